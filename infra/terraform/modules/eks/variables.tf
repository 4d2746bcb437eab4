variable "name" {
  description = "The cluster's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes' minor version."
  type        = string
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.[0-9]+$", var.kubernetes_version)) && try(tonumber(split(".", var.kubernetes_version)[1]) >= 33, false)
    error_message = "kubernetes_version=${var.kubernetes_version}: give a minor version from 1.33 on, such as 1.36; EKS chooses the patch."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnets" {
  description = "Zone to private subnet."
  type        = map(string)

  validation {
    condition     = length(var.subnets) >= 2
    error_message = "subnets=${join(",", keys(var.subnets))}: give a private subnet in each of two zones or more; EKS refuses one."
  }
}

variable "public_access_cidrs" {
  description = "Addresses that may reach the API from outside the VPC. None by default: use a VPN, a bastion or a runner within the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrhost(cidr, 0)) && try(tonumber(split("/", cidr)[1]) >= 16, false)])
    error_message = "public_access_cidrs=${join(",", var.public_access_cidrs)}: name your own addresses, /16 at the widest, such as 192.0.2.0/24; never 0.0.0.0/0."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles that administer the cluster. Nobody else does, not even who made it."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0
    error_message = "admins is empty: nobody could enter the cluster; give the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME."
  }

  validation {
    condition     = alltrue([for arn in var.admins : can(regex("^arn:[^:]+:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "admins=${join(",", var.admins)}: give ARNs of IAM roles, arn:aws:iam::ACCOUNT:role/NAME; of an assumed role (sts) the role itself."
  }
}

variable "groups" {
  description = "ARN of a role (CI's, a team's) to Kubernetes groups that RBAC grants something, such as holdfast-submit."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for arn in keys(var.groups) : can(regex("^arn:[^:]+:iam::[0-9]{12}:(role|user)/", arn)) && !contains(var.admins, arn)])
    error_message = "groups=${join(",", keys(var.groups))}: the keys are ARNs of IAM roles that are no admins, arn:aws:iam::ACCOUNT:role/NAME."
  }

  validation {
    condition     = alltrue([for names in values(var.groups) : length(names) > 0 && !anytrue([for name in names : startswith(name, "system:")])])
    error_message = "groups: give each role a group, and none that begins with system:; EKS refuses those. Administrators go into admins."
  }
}

variable "kms_key_arn" {
  description = "Key of the secrets and the logs; its policy must let CloudWatch Logs use it (module key with services = [\"logs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "disks_kms_key_arn" {
  description = "Key of the nodes' disks; its policy must let EC2 use it (module key with services = [\"ebs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.disks_kms_key_arn))
    error_message = "disks_kms_key_arn=${var.disks_kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "system" {
  description = "Nodes for DNS, Karpenter, KubeRay, Kueue and MLflow, on demand."
  type = object({
    instance_types = optional(list(string), ["m6i.large", "m6a.large"])
    nodes          = optional(number, 3)
  })
  default = {}

  validation {
    condition     = var.system.nodes >= 2
    error_message = "system.nodes=${var.system.nodes}: give 2 or more, so that DNS and the controllers outlive a node."
  }
}

variable "addon_versions" {
  description = "Add-on to version; of an add-on that is not named, EKS takes its default for the Kubernetes version."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.addon_versions), ["coredns", "eks-node-monitoring-agent", "eks-pod-identity-agent", "kube-proxy", "vpc-cni"])) == 0
    error_message = "addon_versions=${join(",", keys(var.addon_versions))}: choose among coredns, eks-node-monitoring-agent, eks-pod-identity-agent, kube-proxy and vpc-cni."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
