variable "name" {
  description = "The cluster's name; buckets are called NAME-data-ACCOUNT, and so on."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "kms_key_arn" {
  description = "Key of the objects."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "keep_versions_days" {
  description = "How long an object that was overwritten or deleted can be brought back."
  type        = number
  default     = 30

  validation {
    condition     = var.keep_versions_days >= 1 && floor(var.keep_versions_days) == var.keep_versions_days
    error_message = "keep_versions_days=${var.keep_versions_days}: give a whole number of days, 1 or more."
  }
}

variable "expire_checkpoints_days" {
  description = "When checkpoints of the bucket ray are deleted; 0 for never. A registered model lies in the bucket mlflow and stays."
  type        = number
  default     = 90

  validation {
    condition     = var.expire_checkpoints_days == 0 || (var.expire_checkpoints_days >= 14 && floor(var.expire_checkpoints_days) == var.expire_checkpoints_days)
    error_message = "expire_checkpoints_days=${var.expire_checkpoints_days}: give 0 for never, or 14 and more; a training that waits for capacity must find its checkpoint again."
  }
}

variable "keep_logs_days" {
  description = "How long access logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = var.keep_logs_days >= 1 && floor(var.keep_logs_days) == var.keep_logs_days
    error_message = "keep_logs_days=${var.keep_logs_days}: give a whole number of days, 1 or more."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
