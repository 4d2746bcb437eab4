mock_provider "aws" {
  source = "../../mocks"
}

variables {
  cluster                 = "holdfast"
  bucket_arns             = { data = "arn:aws:s3:::d", ray = "arn:aws:s3:::r", mlflow = "arn:aws:s3:::m" }
  data_kms_key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  events_kms_key_arn      = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  karpenter_node_role_arn = "arn:aws:iam::111122223333:role/holdfast-karpenter-node"
  karpenter_queue_arn     = "arn:aws:sqs:eu-central-1:111122223333:holdfast-karpenter"
}

run "grants_what_each_needs" {
  assert {
    condition = { for name, one in aws_eks_pod_identity_association.this : "${one.namespace}/${one.service_account}" => name } == {
    "holdfast/holdfast-job" = "job", "holdfast/holdfast-mlflow" = "mlflow", "kube-system/karpenter" = "karpenter" }
    error_message = "a role a service account"
  }
  assert {
    condition = alltrue([for name, role in aws_iam_role.this : alltrue([for statement in jsondecode(role.assume_role_policy).Statement :
      statement.Principal == { Service = "pods.eks.amazonaws.com" } && statement.Condition.StringEquals["aws:RequestTag/eks-cluster-name"] == "holdfast" &&
    statement.Condition.StringEquals["aws:RequestTag/kubernetes-service-account"] == (name == "karpenter" ? "karpenter" : "holdfast-${name}")])])
    error_message = "a role is taken by its service account in this cluster"
  }
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this["job"].policy).Statement : statement.Resource])) == toset([
    "arn:aws:s3:::d", "arn:aws:s3:::d/*", "arn:aws:s3:::r", "arn:aws:s3:::r/*", var.data_kms_key_arn])
    error_message = "a job sees data and checkpoints; models go through MLflow"
  }
  assert {
    condition = !anytrue(flatten([for statement in jsondecode(aws_iam_role_policy.this["job"].policy).Statement : [for resource in statement.Resource :
    startswith(resource, "arn:aws:s3:::d") && anytrue([for action in statement.Action : strcontains(action, "Put") || strcontains(action, "Delete")])]]))
    error_message = "a job does not write data"
  }
  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this["mlflow"].policy).Statement : statement.Resource])) == toset(["arn:aws:s3:::m", "arn:aws:s3:::m/*", var.data_kms_key_arn])
    error_message = "MLflow sees its own bucket"
  }
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this["karpenter"].policy).Statement : statement.Sid if statement.Resource == "*"] == ["Describe", "Prices"]
    error_message = "no resource is everything, but for what knows no resources"
  }
  assert {
    condition = alltrue([for statement in jsondecode(aws_iam_role_policy.this["karpenter"].policy).Statement : try(length(statement.Condition) > 0, false)
    if length(setintersection(statement.Action, ["ec2:CreateTags", "ec2:TerminateInstances", "ec2:DeleteLaunchTemplate", "ec2:CreateLaunchTemplate", "iam:PassRole", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile"])) > 0])
    error_message = "Karpenter changes only what carries the cluster's tags"
  }
  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : length(policy.policy) < 10240])
    error_message = "IAM takes 10240 characters in the policies of a role"
  }
}

run "makes_roles_before_the_cluster" {
  command = plan
  variables { associate = false }

  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 0 && length(aws_iam_role.this) == 3
    error_message = "roles alone"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    cluster                 = "Holdfast"
    namespace               = "kube-system"
    bucket_arns             = { data = "arn:aws:s3:::d", ray = "arn:aws:s3:::*", mlflow = "arn:aws:s3:::m" }
    data_kms_key_arn        = "alias/a"
    events_kms_key_arn      = "alias/b"
    karpenter_node_role_arn = "arn:aws:iam::111122223333:role/*"
    karpenter_queue_arn     = "https://sqs.eu-central-1.amazonaws.com/111122223333/holdfast"
  }
  expect_failures = [
    var.cluster, var.namespace, var.bucket_arns, var.data_kms_key_arn, var.events_kms_key_arn,
    var.karpenter_node_role_arn, var.karpenter_queue_arn,
  ]
}
