variable "environment" {
  description = "Name of this installation; part of every resource's name."
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "The environment must be staging or production, like the overlays of infra/kubernetes."
  }
}

variable "region" {
  description = "Region of all resources."
  type        = string
}

variable "vpc_id" {
  description = "An existing network."
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets without public addresses, in at least two zones."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "A database and a cluster need subnets in at least two zones."
  }
}

variable "api_access_cidrs" {
  description = "Addresses from which the cluster's API may be reached; empty keeps it inside the network."
  type        = list(string)
}

variable "kubernetes_version" {
  description = "Version of the cluster; infra/kubernetes is checked against it."
  type        = string
  default     = "1.32"
}

variable "database_instance_class" {
  description = "Size of the PostgreSQL instance."
  type        = string
  default     = "db.t4g.medium"
}

variable "cpu_instance_type" {
  description = "Type of the machines that serve and run MLflow and Prefect."
  type        = string
  default     = "m7i.xlarge"
}

variable "gpu_instance_type" {
  description = "Type of the machines that train; one at a time, and only during training."
  type        = string
  default     = "g6.4xlarge"
}

variable "max_cpu_nodes" {
  description = "Maximum number of machines that serve."
  type        = number
  default     = 6
}
