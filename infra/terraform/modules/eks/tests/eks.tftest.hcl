mock_provider "aws" {
  source = "../../mocks"
}

variables {
  name              = "holdfast"
  vpc_id            = "vpc-0123456789abcdef0"
  subnets           = { eu-central-1a = "subnet-0a", eu-central-1b = "subnet-0b" }
  admins            = ["arn:aws:iam::111122223333:role/platform"]
  groups            = { "arn:aws:iam::111122223333:role/ci" = ["holdfast-submit"] }
  kms_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  disks_kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "is_private" {
  assert {
    condition     = one(aws_eks_cluster.this.vpc_config).endpoint_private_access && !one(aws_eks_cluster.this.vpc_config).endpoint_public_access
    error_message = "the API is reached from the VPC"
  }
  assert {
    condition     = one(one(aws_eks_cluster.this.encryption_config).provider).key_arn == var.kms_key_arn && one(aws_eks_cluster.this.encryption_config).resources == toset(["secrets"])
    error_message = "secrets under our key"
  }
  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5 && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.this.name == "/aws/eks/holdfast/cluster"
    error_message = "all logs of the control plane, under our key, where EKS writes them"
  }
  assert {
    condition     = one(aws_eks_cluster.this.access_config).authentication_mode == "API" && !one(aws_eks_cluster.this.access_config).bootstrap_cluster_creator_admin_permissions
    error_message = "access by entries alone"
  }
  assert {
    condition     = aws_eks_access_policy_association.admin["arn:aws:iam::111122223333:role/platform"].policy_arn == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy" && length(aws_eks_access_policy_association.admin) == 1
    error_message = "administrators are those named"
  }
  assert {
    condition     = aws_eks_access_entry.group["arn:aws:iam::111122223333:role/ci"].kubernetes_groups == toset(["holdfast-submit"])
    error_message = "CI is what RBAC grants its group"
  }
  assert {
    condition     = contains(keys(aws_eks_addon.before_nodes), "eks-pod-identity-agent") && jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Pod Identity's agent, and a network that enforces policies"
  }
  assert {
    condition     = !contains([for attachment in aws_iam_role_policy_attachment.node : attachment.policy_arn], "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy") && one(aws_eks_addon.before_nodes["vpc-cni"].pod_identity_association).role_arn == aws_iam_role.cni.arn
    error_message = "the network plugin's rights are not the nodes'"
  }
  assert {
    condition     = aws_ec2_tag.discovery.value == "holdfast" && aws_ec2_tag.discovery.resource_id == "sg-0123456789abcdef0"
    error_message = "Karpenter finds the cluster's security group"
  }
}

run "can_be_reached_from_named_addresses" {
  command = plan
  variables { public_access_cidrs = ["192.0.2.0/24"] }

  assert {
    condition     = one(aws_eks_cluster.this.vpc_config).endpoint_public_access && one(aws_eks_cluster.this.vpc_config).public_access_cidrs == toset(["192.0.2.0/24"])
    error_message = "from these alone"
  }
}

# The whole internet, nobody who may enter, one zone, one node.
run "refuses_what_cannot_be" {
  command = plan
  variables {
    name                = "Holdfast"
    kubernetes_version  = "1.36.3"
    subnets             = { eu-central-1a = "subnet-0a" }
    public_access_cidrs = ["0.0.0.0/0"]
    admins              = []
    system              = { nodes = 1 }
    addon_versions      = { vpc-cnl = "v1" }
    kms_key_arn         = "alias/a"
    disks_kms_key_arn   = "alias/b"
  }
  expect_failures = [
    var.name, var.kubernetes_version, var.subnets, var.public_access_cidrs, var.admins, var.system, var.addon_versions,
    var.kms_key_arn, var.disks_kms_key_arn,
  ]
}

run "refuses_a_session_for_a_role" {
  command = plan
  variables { admins = ["arn:aws:sts::111122223333:assumed-role/platform/me"] }
  expect_failures = [var.admins]
}

run "refuses_groups_of_kubernetes_own" {
  command = plan
  variables { groups = { "arn:aws:iam::111122223333:role/ci" = ["system:masters"] } }
  expect_failures = [var.groups]
}

run "refuses_an_admin_as_a_submitter" {
  command = plan
  variables { groups = { "arn:aws:iam::111122223333:role/platform" = ["holdfast-submit"] } }
  expect_failures = [var.groups]
}
