variable "cluster" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnets" {
  description = "Zone to private subnet."
  type        = map(string)
}

variable "security_group_id" {
  description = "The cluster's security group, which EKS made."
  type        = string
}

variable "node_role_arn" {
  description = "Role of managed nodes."
  type        = string
}

variable "pools" {
  description = "Name to the content of k8s/pool/NAME.yaml, or of a file of yours like it."
  type        = any

  validation {
    condition = alltrue([for pool in values(var.pools) : length(setsubtract(keys(pool),
    ["instance_types", "capacity", "cpus", "memory", "gpu", "labels", "taints", "topology", "efa", "grace_seconds"])) == 0])
    error_message = "pools: a pool has keys ${join(", ", distinct(flatten([for pool in values(var.pools) : keys(pool)])))}; known are instance_types, capacity, cpus, memory, gpu, labels, taints, topology, efa and grace_seconds."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : alltrue([for key in ["instance_types", "capacity", "cpus", "memory"] : contains(keys(pool), key)])])
    error_message = "pools: one of ${join(", ", keys(var.pools))} lacks instance_types, capacity, cpus or memory; see a file in k8s/pool."
  }
}

variable "managed" {
  description = "Pools kept as managed node groups, and how many nodes each has. Karpenter starts the nodes of the others."
  type = map(object({
    nodes                   = number
    disk_gb                 = optional(number, 100)
    zone                    = optional(string)
    placement_group         = optional(bool, false)
    capacity_reservation_id = optional(string)
  }))
  default = { head = { nodes = 1 } }

  validation {
    condition     = length(setsubtract(keys(var.managed), keys(var.pools))) == 0
    error_message = "managed=${join(",", setsubtract(keys(var.managed), keys(var.pools)))}: no such pool; there are ${join(", ", keys(var.pools))}."
  }

  validation {
    condition     = alltrue([for group in values(var.managed) : group.zone == null || contains(keys(var.subnets), coalesce(group.zone, "-"))])
    error_message = "managed: a zone is none of the subnets', which are ${join(", ", keys(var.subnets))}."
  }

  validation {
    condition     = !contains(keys(var.managed), "system")
    error_message = "managed=system: that name is the cluster's own group for DNS and controllers; choose another for the pool."
  }
}

variable "kms_key_arn" {
  description = "Key of the nodes' disks; its policy must let EC2 use it (module key with services = [\"ebs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "events_kms_key_arn" {
  description = "Key of the queue; its policy must let EventBridge use it (module key with services = [\"events\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.events_kms_key_arn))
    error_message = "events_kms_key_arn=${var.events_kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
