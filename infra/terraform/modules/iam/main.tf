# A role for each service account that needs AWS, bound by EKS Pod Identity: no keys, and no use by any other pod.
data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name

  read  = ["s3:GetObject"]
  write = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]

  encrypt = { Sid = "Encrypt", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.data_kms_key_arn] }
  list    = { for use, arn in var.bucket_arns : use => { Sid = "List${title(use)}", Effect = "Allow", Action = ["s3:ListBucket", "s3:GetBucketLocation"], Resource = [arn] } }
  reads   = { for use, arn in var.bucket_arns : use => { Sid = "Read${title(use)}", Effect = "Allow", Action = local.read, Resource = ["${arn}/*"] } }
  writes  = { for use, arn in var.bucket_arns : use => { Sid = "Write${title(use)}", Effect = "Allow", Action = local.write, Resource = ["${arn}/*"] } }

  # Who submits and waits needs nothing of AWS: how a job ended stands in its lease.
  roles = {
    job       = { namespace = var.namespace, account = "holdfast-job", statements = [local.list.data, local.reads.data, local.list.ray, local.writes.ray, local.encrypt] }
    mlflow    = { namespace = var.namespace, account = "holdfast-mlflow", statements = [local.list.mlflow, local.writes.mlflow, local.encrypt] }
    karpenter = { namespace = var.karpenter_namespace, account = "karpenter", statements = local.karpenter }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name        = "${var.cluster}-${each.key}"
  description = "Service account ${each.value.account} of namespace ${each.value.namespace}, cluster ${var.cluster}"
  tags        = merge(var.tags, { "holdfast:component" = each.key })
  # The tags are those that Pod Identity gives each session:
  # https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { StringEquals = {
        "aws:RequestTag/eks-cluster-name"           = var.cluster
        "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
        "aws:RequestTag/kubernetes-service-account" = each.value.account
      } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = local.roles

  name   = "what-it-needs"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = each.value.statements })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = { for name, role in local.roles : name => role if var.associate }

  cluster_name    = var.cluster
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.this[each.key].arn
  tags            = var.tags
}
