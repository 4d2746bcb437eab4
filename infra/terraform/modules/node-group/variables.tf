variable "pool" {
  description = "Name of the pool: the nodes' label holdfast/pool."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", var.pool))
    error_message = "pool=${var.pool}: use up to 40 small letters, digits and -; it becomes a label and a node group's name."
  }
}

variable "cluster" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Where nodes start. One subnet where they must be near each other."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids is empty: give one private subnet or more."
  }

  validation {
    condition     = length(var.subnet_ids) == 1 || !var.placement_group
    error_message = "placement_group=true with ${length(var.subnet_ids)} subnets: a cluster placement group is in one zone; give one subnet."
  }
}

variable "security_group_id" {
  description = "The cluster's security group, which EKS made."
  type        = string
}

variable "node_role_arn" {
  description = "Role of the nodes."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the disks; its policy must let EC2 use it (module key with services = [\"ebs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "instance_types" {
  description = "Types a node may be of; for spot, several alike are taken back less often."
  type        = list(string)

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for type in var.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", type))])
    error_message = "instance_types=${join(",", var.instance_types)}: give at least one type, such as g5.2xlarge."
  }

  validation {
    condition     = !anytrue([for type in var.instance_types : can(regex("^(a1|t4g|[a-z]+[0-9]+g[a-z]*)\\.", type))])
    error_message = "instance_types=${join(",", var.instance_types)}: the image is for x86-64; leave out Graviton types."
  }
}

variable "capacity" {
  description = "spot or on-demand."
  type        = string
  default     = "on-demand"

  validation {
    condition     = contains(["spot", "on-demand"], var.capacity)
    error_message = "capacity=${var.capacity}: choose spot or on-demand."
  }
}

variable "nodes" {
  description = "How many. The number is fixed: pools that grow and shrink with their jobs are Karpenter's."
  type        = number

  validation {
    condition     = var.nodes >= 0 && floor(var.nodes) == var.nodes
    error_message = "nodes=${var.nodes}: give a whole number, 0 or more."
  }
}

variable "gpus" {
  description = "GPUs of a node; above 0 the nodes get NVIDIA's driver."
  type        = number
  default     = 0

  validation {
    condition     = var.gpus == 0 || anytrue([for taint in var.taints : taint.key == "nvidia.com/gpu" && taint.effect == "NoSchedule"])
    error_message = "gpus=${var.gpus} without the taint nvidia.com/gpu: pods that need no GPU would fill the nodes; add {key: nvidia.com/gpu, value: present, effect: NoSchedule}."
  }
}

variable "labels" {
  description = "More labels of the nodes."
  type        = map(string)
  default     = {}
}

variable "taints" {
  description = "Taints of the nodes, as Kubernetes writes them."
  type        = list(object({ key = string, value = string, effect = string }))
  default     = []

  validation {
    condition     = alltrue([for taint in var.taints : contains(["NoSchedule", "PreferNoSchedule", "NoExecute"], taint.effect)])
    error_message = "taints: effect is ${join(", ", var.taints[*].effect)}; choose NoSchedule, PreferNoSchedule or NoExecute."
  }
}

variable "disk_gb" {
  description = "Disk of a node, for images and what pods write."
  type        = number
  default     = 100

  validation {
    condition     = var.disk_gb >= 50 && var.disk_gb <= 16384
    error_message = "disk_gb=${var.disk_gb}: give 50 to 16384; the CUDA image unpacks to more than 10 GB."
  }
}

variable "efa" {
  description = "Elastic Fabric Adapters of a node, one a network card; 0 for none."
  type        = number
  default     = 0

  validation {
    condition     = var.efa >= 0 && var.efa <= 32 && floor(var.efa) == var.efa
    error_message = "efa=${var.efa}: give the type's number of network cards with EFA, 0 to 32 (p4d 4, p5 32)."
  }

  validation {
    condition     = var.efa == 0 || length(var.subnet_ids) == 1
    error_message = "efa=${var.efa} with ${length(var.subnet_ids)} subnets: the fabric does not leave a zone; give one subnet."
  }
}

variable "placement_group" {
  description = "Nodes in one rack's reach, for the fabric."
  type        = bool
  default     = false
}

variable "capacity_reservation_id" {
  description = "An On-Demand Capacity Reservation to start in."
  type        = string
  default     = null

  validation {
    condition     = var.capacity_reservation_id == null || (can(regex("^cr-[0-9a-f]+$", var.capacity_reservation_id)) && var.capacity == "on-demand")
    error_message = "capacity_reservation_id=${coalesce(var.capacity_reservation_id, "null")} with capacity=${var.capacity}: give the id of an On-Demand Capacity Reservation, cr-…, and capacity on-demand."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
