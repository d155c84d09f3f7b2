output "bucket" {
  description = "For ARTIFACTS of the overlay (s3://BUCKET/mlflow) and `dvc remote add` (s3://BUCKET/dvc)."
  value       = aws_s3_bucket.store.bucket
}

output "cluster" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = aws_eks_cluster.cluster.name
}

output "mlflow_uri" {
  description = "For the secret cots-database, key mlflow-uri."
  value       = "postgresql://cots:${random_password.database.result}@${aws_db_instance.database.endpoint}/mlflow"
  sensitive   = true
}

output "prefect_uri" {
  description = "For the secret cots-database, key prefect-uri."
  value       = "postgresql+asyncpg://cots:${random_password.database.result}@${aws_db_instance.database.endpoint}/prefect"
  sensitive   = true
}
