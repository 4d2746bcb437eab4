# The modules that moto can hold, applied together; its address comes from the test. It forgets parts of a database
# (performance insights, parameters) and has neither EKS's add-ons nor Pod Identity, and an apply with the repository and
# the budget did not end: those modules run under mocks only.
variable "address" { type = string }

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  region                      = "eu-central-1"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true

  endpoints {
    ec2  = var.address
    iam  = var.address
    kms  = var.address
    logs = var.address
    s3   = var.address
    sts  = var.address
  }
}

module "key" {
  source   = "./modules/key"
  name     = "holdfast"
  services = ["logs"]
}

module "network" {
  source      = "./modules/network"
  name        = "holdfast"
  zones       = ["eu-central-1a", "eu-central-1b"]
  interfaces  = ["sts"]
  kms_key_arn = module.key.arn
}

module "storage" {
  source      = "./modules/storage"
  name        = "holdfast"
  kms_key_arn = module.key.arn
}

module "iam" {
  source                  = "./modules/iam"
  cluster                 = "holdfast"
  associate               = false
  bucket_arns             = { for use, bucket in module.storage.buckets : use => bucket.arn }
  data_kms_key_arn        = module.key.arn
  events_kms_key_arn      = module.key.arn
  karpenter_node_role_arn = "arn:aws:iam::123456789012:role/holdfast-karpenter-node"
  karpenter_queue_arn     = "arn:aws:sqs:eu-central-1:123456789012:holdfast-karpenter"
}

output "key" { value = module.key.arn }
output "vpc" { value = module.network.vpc_id }
output "buckets" { value = { for use, bucket in module.storage.buckets : use => bucket.name } }
