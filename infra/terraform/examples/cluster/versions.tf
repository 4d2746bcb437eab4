terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # State holds names and ARNs, no passwords. Keep it in a bucket of its own, made beforehand:
  # backend "s3" { bucket = "…", key = "holdfast.tfstate", region = "…", encrypt = true, use_lockfile = true }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}
