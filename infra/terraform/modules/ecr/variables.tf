variable "repository" {
  description = "Name of the repository."
  type        = string
  default     = "holdfast"

  validation {
    condition     = can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", var.repository))
    error_message = "repository=${var.repository}: use small letters and digits, with single . _ - or / between them."
  }
}

variable "kms_key_arn" {
  description = "Key of the images."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "keep_images" {
  description = "How many images are kept; a model's version names the image that trained it."
  type        = number
  default     = 200

  validation {
    condition     = var.keep_images >= 10 && floor(var.keep_images) == var.keep_images
    error_message = "keep_images=${var.keep_images}: keep 10 or more; a schedule still runs an older one."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
