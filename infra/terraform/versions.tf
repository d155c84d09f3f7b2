terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.82.2"
    }
    random = {
      source  = "hashicorp/random"
      version = "3.6.3"
    }
  }

  # The state contains the database's password: keep it in an encrypted, versioned bucket with locking, not in a file.
  # Make the bucket once by hand, then: terraform init -backend-config=staging.s3.tfbackend
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "cots", environment = var.environment }
  }
}
