# One cluster, from the network to the budget. A key for each kind of thing: a mistake with one does not open the others.
locals {
  tags = merge(var.tags, { "holdfast:cluster" = var.name })

  shipped = "${path.module}/../../../../k8s/pool"
  files = merge(
    { for file in fileset(local.shipped, "*.yaml") : trimsuffix(file, ".yaml") => "${local.shipped}/${file}" },
    { for file in(var.pools == null ? [] : fileset(var.pools, "*.yaml")) : trimsuffix(file, ".yaml") => "${var.pools}/${file}" },
  )
  pools = { for name, file in local.files : name => yamldecode(file(file)) }
}

module "data_key" {
  source = "../../modules/key"

  name = "${var.name}-data"
  tags = local.tags
}

module "cluster_key" {
  source = "../../modules/key"

  name     = "${var.name}-cluster"
  services = ["logs", "events"]
  tags     = local.tags
}

module "disks_key" {
  source = "../../modules/key"

  name     = "${var.name}-disks"
  services = ["ebs"]
  tags     = local.tags
}

module "network" {
  source = "../../modules/network"

  name        = var.name
  cidr        = var.cidr
  zones       = var.zones
  nat         = var.nat
  kms_key_arn = module.cluster_key.arn
  tags        = local.tags
}

module "eks" {
  source = "../../modules/eks"

  name                = var.name
  vpc_id              = module.network.vpc_id
  subnets             = module.network.private_subnets
  public_access_cidrs = var.public_access_cidrs
  admins              = var.admins
  groups              = { for arn in var.submitters : arn => ["holdfast-submit"] }
  kms_key_arn         = module.cluster_key.arn
  disks_kms_key_arn   = module.disks_key.arn
  tags                = local.tags
}

module "gpu_pools" {
  source = "../../modules/gpu-pools"

  cluster            = module.eks.name
  vpc_id             = module.network.vpc_id
  subnets            = module.network.private_subnets
  security_group_id  = module.eks.security_group_id
  node_role_arn      = module.eks.node_role_arn
  pools              = local.pools
  managed            = var.managed_pools
  kms_key_arn        = module.disks_key.arn
  events_kms_key_arn = module.cluster_key.arn
  tags               = local.tags
}

module "storage" {
  source = "../../modules/storage"

  name        = var.name
  kms_key_arn = module.data_key.arn
  tags        = local.tags
}

module "registry_db" {
  source = "../../modules/registry-db"

  name                   = var.name
  vpc_id                 = module.network.vpc_id
  subnet_ids             = values(module.network.isolated_subnets)
  client_security_groups = { cluster = module.eks.security_group_id }
  kms_key_arn            = module.data_key.arn
  logs_kms_key_arn       = module.cluster_key.arn
  deletion_protection    = var.deletion_protection
  tags                   = local.tags
}

module "iam" {
  source = "../../modules/iam"

  cluster                 = module.eks.name
  namespace               = var.namespace
  bucket_arns             = { for use, bucket in module.storage.buckets : use => bucket.arn }
  data_kms_key_arn        = module.data_key.arn
  events_kms_key_arn      = module.cluster_key.arn
  karpenter_node_role_arn = module.gpu_pools.node_role_arn
  karpenter_queue_arn     = module.gpu_pools.queue.arn
  tags                    = local.tags
}

module "ecr" {
  source = "../../modules/ecr"

  repository  = var.name
  kms_key_arn = module.data_key.arn
  tags        = local.tags
}

module "budgets" {
  source = "../../modules/budgets"

  name          = var.name
  monthly_limit = var.monthly_limit
  emails        = var.budget_emails
  tags          = local.tags
}
