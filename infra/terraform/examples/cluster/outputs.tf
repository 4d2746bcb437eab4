# terraform output -raw values > values-aws.yaml
output "values" {
  description = "Values of the Helm chart."
  value = yamlencode({
    image = var.image_tag == "" ? "" : "${module.ecr.url}:${var.image_tag}"
    tracking = {
      database  = { host = module.registry_db.host, port = module.registry_db.port, name = module.registry_db.database, user = "mlflow" }
      artifacts = { bucket = module.storage.buckets.mlflow.name, region = var.region }
    }
    storage = { uri = "s3://${module.storage.buckets.ray.name}/runs" }
    submit  = { groups = length(var.submitters) == 0 ? [] : ["holdfast-submit"] }
    pools   = { for name in keys(var.karpenter_pools) : name => module.gpu_pools.pools[name] }
    nodes   = var.karpenter_pools
    karpenter = {
      enabled   = true
      nodeRole  = module.gpu_pools.node_role_name
      discovery = { "karpenter.sh/discovery" = var.name }
      ami       = var.karpenter_ami
      kmsKey    = module.disks_key.arn
      tags      = local.tags
    }
    networkPolicy = { database = module.network.isolated_cidrs }
  })

  precondition {
    condition     = length(setsubtract(keys(var.karpenter_pools), keys(local.pools))) == 0
    error_message = "karpenter_pools=${join(",", setsubtract(keys(var.karpenter_pools), keys(local.pools)))}: no such pool; there are ${join(", ", keys(local.pools))}."
  }
}

output "karpenter" {
  description = "Settings of Karpenter's own chart: settings.clusterName and settings.interruptionQueue."
  value       = { clusterName = module.eks.name, interruptionQueue = module.gpu_pools.queue.name }
}

output "kubeconfig" {
  description = "The command that writes it, for an administrator's or a submitter's role."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.eks.name}"
}

output "repository" {
  description = "Where the image is pushed."
  value       = module.ecr.url
}

output "data" {
  description = "Bucket of the data sets."
  value       = "s3://${module.storage.buckets.data.name}"
}

output "database" {
  description = "MLflow's database, its administrator, and the secret with that one's password."
  value       = { host = module.registry_db.host, admin = module.registry_db.admin, secret = module.registry_db.admin_secret_arn }
}
