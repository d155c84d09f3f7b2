# PostgreSQL with the database `mlflow`; run `CREATE DATABASE prefect` once, by hand or by a job.
resource "random_password" "database" {
  length  = 32
  special = false
}

resource "aws_db_subnet_group" "database" {
  name       = "cots-${var.environment}"
  subnet_ids = var.private_subnet_ids
}

resource "aws_security_group" "database" {
  name        = "cots-${var.environment}-database"
  description = "PostgreSQL, from the cluster only"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_eks_cluster.cluster.vpc_config[0].cluster_security_group_id
  description                  = "PostgreSQL from the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_instance" "database" {
  identifier                   = "cots-${var.environment}"
  engine                       = "postgres"
  engine_version               = "17.2"
  instance_class               = var.database_instance_class
  allocated_storage            = 50
  max_allocated_storage        = 500
  storage_type                 = "gp3"
  storage_encrypted            = true
  db_name                      = "mlflow"
  username                     = "cots"
  password                     = random_password.database.result
  db_subnet_group_name         = aws_db_subnet_group.database.name
  vpc_security_group_ids       = [aws_security_group.database.id]
  publicly_accessible          = false
  multi_az                     = var.environment == "production"
  backup_retention_period      = 14
  deletion_protection          = var.environment == "production"
  skip_final_snapshot          = var.environment != "production"
  final_snapshot_identifier    = "cots-${var.environment}-final"
  performance_insights_enabled = true
  auto_minor_version_upgrade   = true
}
