terraform {
  required_version = ">= 1.9" # validations that look at several variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}
