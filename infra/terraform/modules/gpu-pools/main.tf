# Managed groups for the pools that must always be there: the Ray head's, and GPUs on demand or reserved. A pool is its
# YAML file, the same that `holdfast submit` reads.
locals {
  defaults = { gpu = null, labels = {}, taints = [], topology = null, efa = 0, grace_seconds = 120 }
  # A key that is there but empty (`labels:`) is null in YAML.
  pools = { for name, pool in var.pools : name => merge(local.defaults, { for key, value in pool : key => value if value != null }) }
  zone  = "topology.kubernetes.io/zone"
}

module "managed" {
  source   = "../node-group"
  for_each = var.managed

  cluster           = var.cluster
  pool              = each.key
  vpc_id            = var.vpc_id
  security_group_id = var.security_group_id
  node_role_arn     = var.node_role_arn
  kms_key_arn       = var.kms_key_arn
  # What must stay together stays in one zone.
  subnet_ids = (each.value.zone != null ? [var.subnets[each.value.zone]] :
  local.pools[each.key].topology == local.zone ? [values(var.subnets)[0]] : values(var.subnets))

  instance_types = local.pools[each.key].instance_types
  capacity       = local.pools[each.key].capacity
  gpus           = try(local.pools[each.key].gpu.count, 0)
  labels         = local.pools[each.key].labels
  taints         = local.pools[each.key].taints
  efa            = local.pools[each.key].efa

  nodes                   = each.value.nodes
  disk_gb                 = each.value.disk_gb
  placement_group         = each.value.placement_group
  capacity_reservation_id = each.value.capacity_reservation_id
  tags                    = merge(var.tags, { "holdfast:component" = "pools" })
}
