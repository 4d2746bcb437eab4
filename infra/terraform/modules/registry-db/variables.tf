variable "name" {
  description = "The cluster's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets without a way out, in two zones or more."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2
    error_message = "subnet_ids=${join(",", var.subnet_ids)}: give two or more, in different zones; RDS refuses a group of one zone."
  }
}

variable "client_security_groups" {
  description = "Who may connect: a word for it, and its security group."
  type        = map(string)

  validation {
    condition     = length(var.client_security_groups) > 0
    error_message = "client_security_groups is empty: nothing could connect; give the cluster's, { cluster = module.eks.security_group_id }."
  }
}

variable "kms_key_arn" {
  description = "Key of the disk, the master password and the performance data."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "logs_kms_key_arn" {
  description = "Key of the logs; its policy must let CloudWatch Logs use it (module key with services = [\"logs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.logs_kms_key_arn))
    error_message = "logs_kms_key_arn=${var.logs_kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "engine_version" {
  description = "PostgreSQL's major version; RDS takes the newest minor one."
  type        = string
  default     = "17"

  validation {
    condition     = can(regex("^1[4-9](\\.[0-9]+)?$", var.engine_version))
    error_message = "engine_version=${var.engine_version}: give PostgreSQL 14 to 19, such as 17."
  }
}

variable "instance_class" {
  description = "Size of the instance."
  type        = string
  default     = "db.t4g.medium"

  validation {
    condition     = startswith(var.instance_class, "db.")
    error_message = "instance_class=${var.instance_class}: RDS's classes begin with db., such as db.t4g.medium."
  }
}

variable "storage_gb" {
  description = "Disk at first, in GiB; RDS lets it grow to five times that."
  type        = number
  default     = 20

  validation {
    condition     = var.storage_gb >= 20 && var.storage_gb <= 13000
    error_message = "storage_gb=${var.storage_gb}: gp3 takes 20 GiB and more, and five times that must be below 65536."
  }
}

variable "multi_az" {
  description = "A standby in another zone."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "How far back the database can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days=${var.backup_days}: RDS keeps 1 to 35 days; 0 would switch backups off."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database. Set to false and apply before terraform destroy."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
