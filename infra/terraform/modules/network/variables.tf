variable "name" {
  description = "The cluster's name; also the value of the tag karpenter.sh/discovery on its subnets."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "name=${var.name}: use 2 to 25 small letters, digits and -, a letter first; names of roles and buckets are made of it."
  }
}

variable "cidr" {
  description = "The VPC's range. Each pod takes an address of it."
  type        = string
  default     = "10.64.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    error_message = "cidr=${var.cidr}: write the first address of a range and its length, such as 10.64.0.0/16."
  }

  validation {
    condition     = try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "cidr=${var.cidr}: take a range between /16 (AWS's largest) and /20 (500 addresses a zone for nodes and pods)."
  }
}

variable "zones" {
  description = "Availability zones. GPUs are not in every zone: aws ec2 describe-instance-type-offerings --location-type availability-zone."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 4 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones=${join(",", var.zones)}: give 2 to 4 different zones; EKS and a standby of the database need two."
  }
}

variable "nat" {
  description = "Way out for what has no endpoint (images of public registries, model hubs, package indexes): none, one (a zone's loss is everyone's), or per-zone."
  type        = string
  default     = "one"

  validation {
    condition     = contains(["none", "one", "per-zone"], var.nat)
    error_message = "nat=${var.nat}: choose none, one or per-zone."
  }
}

variable "interfaces" {
  description = "Services reached through an interface of the VPC. With nat = none a node needs all of the default's."
  type        = set(string)
  default     = ["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "secretsmanager", "sqs", "ssm", "sts"]

  validation {
    condition     = alltrue([for service in var.interfaces : can(regex("^[a-z0-9.-]+$", service)) && !startswith(service, "com.amazonaws") && service != "s3"])
    error_message = "interfaces=${join(",", var.interfaces)}: write a service's short name, such as ecr.api; S3 has its gateway already."
  }

  validation {
    condition     = var.nat != "none" || length(setsubtract(["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts"], var.interfaces)) == 0
    error_message = "nat=none: nodes cannot join without interfaces for ec2, ecr.api, ecr.dkr, eks, eks-auth and sts; add ${join(", ", setsubtract(["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts"], var.interfaces))}, or set nat to one."
  }
}

variable "kms_key_arn" {
  description = "Key of the flow logs; its policy must let CloudWatch Logs use it (module key with services = [\"logs\"])."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn=${var.kms_key_arn}: give a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias."
  }
}

variable "log_days" {
  description = "How long flow logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_days)
    error_message = "log_days=${var.log_days}: CloudWatch keeps logs of a year and more for 365, 400, 545, 731, 1096, 1827 or 3653 days."
  }
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}
