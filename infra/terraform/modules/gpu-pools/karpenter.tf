# Karpenter's side in AWS: the role its nodes take, and a queue that tells it which nodes AWS is about to take back.
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

resource "aws_iam_role" "node" {
  name = "${var.cluster}-karpenter-node" # fixed, for EC2NodeClass names it
  tags = var.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.key}"
}

resource "aws_eks_access_entry" "node" {
  cluster_name  = var.cluster
  principal_arn = aws_iam_role.node.arn
  type          = "EC2_LINUX"
  tags          = var.tags
}

resource "aws_sqs_queue" "interruption" {
  name                              = "${var.cluster}-karpenter"
  message_retention_seconds         = 300 # a warning older than that is over
  kms_master_key_id                 = var.events_kms_key_arn
  kms_data_key_reuse_period_seconds = 3600
  tags                              = var.tags
}

locals {
  # https://karpenter.sh/docs/reference/cloudformation/#interruption-handling
  events = {
    health      = { source = ["aws.health"], detail-type = ["AWS Health Event"] }
    spot        = { source = ["aws.ec2"], detail-type = ["EC2 Spot Instance Interruption Warning"] }
    rebalance   = { source = ["aws.ec2"], detail-type = ["EC2 Instance Rebalance Recommendation"] }
    state       = { source = ["aws.ec2"], detail-type = ["EC2 Instance State-change Notification"] }
    reservation = { source = ["aws.ec2"], detail-type = ["EC2 Capacity Reservation Instance Interruption Warning"] }
  }
}

resource "aws_cloudwatch_event_rule" "interruption" {
  for_each = local.events

  name          = "${var.cluster}-karpenter-${each.key}"
  description   = "Tells Karpenter: ${each.value.detail-type[0]}"
  event_pattern = jsonencode(each.value)
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "interruption" {
  for_each = local.events

  rule      = aws_cloudwatch_event_rule.interruption[each.key].name
  target_id = "karpenter"
  arn       = aws_sqs_queue.interruption.arn
}

resource "aws_sqs_queue_policy" "interruption" {
  queue_url = aws_sqs_queue.interruption.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OurRules"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = aws_sqs_queue.interruption.arn
        Condition = { ArnEquals = { "aws:SourceArn" = [for rule in aws_cloudwatch_event_rule.interruption : rule.arn] } }
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sqs:*"
        Resource  = aws_sqs_queue.interruption.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
