variable "name" {
  description = "The cluster's name; everything is named and tagged by it."
  type        = string
  default     = "holdfast"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "region" {
  description = "AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region=${var.region}: give a region such as eu-central-1, without the zone's letter."
  }
}

variable "zones" {
  description = "Availability zones of the region. GPUs are not in every zone."
  type        = list(string)

  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "zones=${join(",", var.zones)}: they must lie in region ${var.region}."
  }
}

variable "cidr" {
  description = "The VPC's range."
  type        = string
  default     = "10.64.0.0/16"
}

variable "nat" {
  description = "none, one or per-zone: the way out to what has no endpoint in the VPC."
  type        = string
  default     = "one"
}

variable "public_access_cidrs" {
  description = "Addresses that may reach the Kubernetes API from outside the VPC; none by default."
  type        = list(string)
  default     = []
}

variable "admins" {
  description = "ARNs of the IAM roles that administer the cluster."
  type        = set(string)
}

variable "submitters" {
  description = "ARNs of the IAM roles that may submit jobs from outside the cluster: CI's, a team's."
  type        = set(string)
  default     = []
}

variable "namespace" {
  description = "Namespace of the chart's release."
  type        = string
  default     = "holdfast"
}

variable "image_tag" {
  description = "Tag of the image in the new repository; empty until one is pushed."
  type        = string
  default     = ""

  validation {
    condition     = var.image_tag == "" || (can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.image_tag)) && var.image_tag != "latest")
    error_message = "image_tag=${var.image_tag}: give the tag of an image, such as 0.1.0-cuda; never latest, for what runs would not be known."
  }
}

variable "pools" {
  description = "A folder with pools of your own, NAME.yaml; one hides a shipped one of its name."
  type        = string
  default     = null

  validation {
    condition     = var.pools == null || try(length(fileset(var.pools, "*.yaml")) > 0, false)
    error_message = "pools=${coalesce(var.pools, "null")}: no NAME.yaml there; give the folder that holds your pools."
  }
}

variable "managed_pools" {
  description = "Pools kept as managed node groups of a fixed size; see modules/gpu-pools."
  type = map(object({
    nodes                   = number
    disk_gb                 = optional(number, 100)
    zone                    = optional(string)
    placement_group         = optional(bool, false)
    capacity_reservation_id = optional(string)
  }))
  default = { head = { nodes = 1 } }

  validation {
    condition     = contains(keys(var.managed_pools), "head")
    error_message = "managed_pools=${join(",", keys(var.managed_pools))}: keep head among them; a Ray head must stand on nodes that nobody takes back."
  }
}

variable "karpenter_pools" {
  description = "Pools whose nodes Karpenter starts and ends, and how many nodes each may have."
  type        = map(number)
  default     = { l4-spot = 4, a10g-spot = 4, a10g-4 = 1 }

  validation {
    condition     = length(setintersection(keys(var.karpenter_pools), keys(var.managed_pools))) == 0
    error_message = "karpenter_pools: ${join(",", setintersection(keys(var.karpenter_pools), keys(var.managed_pools)))} is among managed_pools too; a pool is one or the other."
  }

  validation {
    condition     = alltrue([for nodes in values(var.karpenter_pools) : nodes >= 1 && floor(nodes) == nodes])
    error_message = "karpenter_pools=${jsonencode(var.karpenter_pools)}: give each pool the most nodes it may have, 1 or more; leave a pool out to have none."
  }
}

variable "karpenter_ami" {
  description = "Image of Karpenter's nodes with its version. A new one replaces nodes, so it is chosen, not followed."
  type        = string

  validation {
    condition     = can(regex("^al2023@v[0-9]{8}$", var.karpenter_ami))
    error_message = "karpenter_ami=${var.karpenter_ami}: give al2023@vYYYYMMDD; the README has the command that prints the newest."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete MLflow's database."
  type        = bool
  default     = true
}

variable "monthly_limit" {
  description = "US dollars a month that the budget warns about."
  type        = number
}

variable "budget_emails" {
  description = "Who is told."
  type        = list(string)
}

variable "tags" {
  description = "More tags of everything: a team, a cost centre."
  type        = map(string)
  default     = {}
}
