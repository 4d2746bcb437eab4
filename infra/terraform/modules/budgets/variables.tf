variable "name" {
  description = "The cluster's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "tag" {
  description = "Key of the tag whose value is the cluster's name."
  type        = string
  default     = "holdfast:cluster"

  validation {
    condition     = length(var.tag) > 0 && !startswith(var.tag, "aws:")
    error_message = "tag=${var.tag}: name a tag of your own; those that begin with aws: are AWS's."
  }
}

variable "monthly_limit" {
  description = "US dollars a month."
  type        = number

  validation {
    condition     = var.monthly_limit > 0
    error_message = "monthly_limit=${var.monthly_limit}: give the US dollars of a month, above 0."
  }
}

variable "emails" {
  description = "Who is told."
  type        = list(string)

  validation {
    condition     = length(var.emails) >= 1 && length(var.emails) <= 10 && alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "emails=${join(",", var.emails)}: give 1 to 10 addresses; a budget that tells nobody is none."
  }
}

variable "activate_tags" {
  description = "Switch the cost tags on in billing. Only in the paying account, a day after the first use of the tags; elsewhere do it by hand there."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
