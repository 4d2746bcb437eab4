# A key of our own, which AWS rotates every year. Who may use it is said by IAM policies; a service is named here only where it acts
# by itself.
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name
  use       = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]

  # In a key's policy, "*" as the resource is the key itself.
  # https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-overview.html
  of_service = {
    logs = {
      Sid       = "CloudWatchLogs"
      Effect    = "Allow"
      Principal = { Service = "logs.${local.region}.amazonaws.com" }
      Action    = local.use
      Resource  = "*"
      Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:*" } }
    }
    events = {
      Sid       = "EventBridgeToAnEncryptedQueue"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = "*"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }
    # As the policy of the key aws/ebs: whoever of this account may start an instance may encrypt its disk, through EC2
    # only. Auto Scaling's service-linked role cannot be named, for it may not exist yet.
    ebs = {
      Sid       = "DisksThroughEc2"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action    = concat(local.use, ["kms:CreateGrant"])
      Resource  = "*"
      Condition = { StringEquals = { "kms:CallerAccount" = local.account, "kms:ViaService" = "ec2.${local.region}.amazonaws.com" } }
    }
  }
}

resource "aws_kms_key" "this" {
  description             = "Holdfast ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "IamDecides"
        Effect    = "Allow"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      }],
      [for name, statement in local.of_service : statement if contains(var.services, name)],
    )
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}
