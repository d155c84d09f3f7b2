variable "environment" {
  description = "Name of this copy of the platform; part of every name."
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "The environment is staging or production, as the overlays of infra/kubernetes."
  }
}

variable "region" {
  description = "Where everything is."
  type        = string
}

variable "vpc_id" {
  description = "The network, which exists already."
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets without public addresses, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "A database and a cluster need subnets in two zones at least."
  }
}

variable "api_access_cidrs" {
  description = "Addresses from which the cluster's API may be reached; empty keeps it inside the network."
  type        = list(string)
}

variable "kubernetes_version" {
  description = "Of the cluster; infra/kubernetes is checked against it."
  type        = string
  default     = "1.32"
}

variable "database_instance_class" {
  description = "Size of PostgreSQL."
  type        = string
  default     = "db.t4g.medium"
}

variable "cpu_instance_type" {
  description = "Machines that serve, and run MLflow and Prefect."
  type        = string
  default     = "m7i.xlarge"
}

variable "gpu_instance_type" {
  description = "Machines that train, one at a time and only while something trains."
  type        = string
  default     = "g6.4xlarge"
}

variable "max_cpu_nodes" {
  description = "Most machines that serve."
  type        = number
  default     = 6
}
