variable "name" {
  description = "The key's alias, without alias/."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9/_-]{1,200}$", var.name)) && !startswith(var.name, "alias/") && !startswith(var.name, "aws/")
    error_message = "name=${var.name}: use letters, digits, / _ and -, without alias/ or aws/ in front."
  }
}

variable "services" {
  description = "Services that use the key by themselves: logs (CloudWatch), events (EventBridge to SQS), ebs (disks of instances)."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.services, ["logs", "events", "ebs"])) == 0
    error_message = "services=${join(",", var.services)}: choose among logs, events and ebs; others use the key through IAM."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
