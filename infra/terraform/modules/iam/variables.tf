variable "cluster" {
  description = "Name of the EKS cluster; the roles are called CLUSTER-job, CLUSTER-mlflow, and so on."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.cluster))
    error_message = "cluster=${var.cluster}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "associate" {
  description = "Bind the roles to the service accounts. False makes the roles alone, before there is a cluster."
  type        = bool
  default     = true
}

variable "namespace" {
  description = "Namespace of the chart's release."
  type        = string
  default     = "holdfast"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace)) && !startswith(var.namespace, "kube-")
    error_message = "namespace=${var.namespace}: use small letters, digits and -, and none of Kubernetes' own (kube-…)."
  }
}

variable "karpenter_namespace" {
  description = "Namespace of Karpenter's release; its guide says kube-system."
  type        = string
  default     = "kube-system"
}

variable "bucket_arns" {
  description = "Use (data, ray, mlflow) to the bucket's ARN."
  type        = map(string)

  validation {
    condition     = alltrue([for use in ["data", "ray", "mlflow"] : can(regex("^arn:[^:]+:s3:::[a-z0-9.-]+$", var.bucket_arns[use]))])
    error_message = "bucket_arns has ${join(", ", keys(var.bucket_arns))}: give the ARNs of data, ray and mlflow, each arn:aws:s3:::BUCKET without a path."
  }
}

variable "data_kms_key_arn" {
  description = "Key of the buckets."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.data_kms_key_arn))
    error_message = "data_kms_key_arn=${var.data_kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "events_kms_key_arn" {
  description = "Key of Karpenter's queue."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.events_kms_key_arn))
    error_message = "events_kms_key_arn=${var.events_kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "karpenter_node_role_arn" {
  description = "The only role that Karpenter may give to nodes."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:iam::[0-9]{12}:role/[^*]+$", var.karpenter_node_role_arn))
    error_message = "karpenter_node_role_arn=${var.karpenter_node_role_arn}: give one role's ARN, arn:aws:iam::ACCOUNT:role/NAME; with a wildcard Karpenter could hand out any role."
  }
}

variable "karpenter_queue_arn" {
  description = "Karpenter's queue of interruptions."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:sqs:[^:]+:[0-9]{12}:[^*]+$", var.karpenter_queue_arn))
    error_message = "karpenter_queue_arn=${var.karpenter_queue_arn}: give the queue's ARN, arn:aws:sqs:REGION:ACCOUNT:NAME."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
