# What Karpenter 1.14's controller does, held to what carries the cluster's tag.
# https://karpenter.sh/v1.14/reference/cloudformation/#controller-authorization
locals {
  ec2   = "arn:${local.partition}:ec2:${local.region}:${local.account}"
  owned = "kubernetes.io/cluster/${var.cluster}"

  asks_for_owned = {
    StringEquals = { "aws:RequestTag/${local.owned}" = "owned", "aws:RequestTag/eks:eks-cluster-name" = var.cluster }
    StringLike   = { "aws:RequestTag/karpenter.sh/nodepool" = "*" }
  }
  is_owned = {
    StringEquals = { "aws:ResourceTag/${local.owned}" = "owned" }
    StringLike   = { "aws:ResourceTag/karpenter.sh/nodepool" = "*" }
  }
  profile_asked = {
    "aws:RequestTag/${local.owned}"                = "owned"
    "aws:RequestTag/eks:eks-cluster-name"          = var.cluster
    "aws:RequestTag/topology.kubernetes.io/region" = local.region
  }
  profile_owned = {
    "aws:ResourceTag/${local.owned}"                = "owned"
    "aws:ResourceTag/topology.kubernetes.io/region" = local.region
  }
  profiles = ["arn:${local.partition}:iam::${local.account}:instance-profile/*"]
  started  = [for kind in ["fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request"] : "${local.ec2}:${kind}/*"]

  karpenter = concat(local.karpenter_starts, local.karpenter_profiles, local.karpenter_reads)

  karpenter_starts = [
    {
      Sid    = "StartFrom"
      Effect = "Allow"
      Action = ["ec2:RunInstances", "ec2:CreateFleet"]
      # Images and snapshots are Amazon's: no account in their ARN.
      Resource = concat([for kind in ["image", "snapshot"] : "arn:${local.partition}:ec2:${local.region}::${kind}/*"],
      [for kind in ["security-group", "subnet", "capacity-reservation", "placement-group"] : "${local.ec2}:${kind}/*"])
    },
    { Sid = "StartByOurTemplate", Effect = "Allow", Action = ["ec2:RunInstances", "ec2:CreateFleet"], Resource = ["${local.ec2}:launch-template/*"], Condition = local.is_owned },
    { Sid = "StartTagged", Effect = "Allow", Action = ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"], Resource = local.started, Condition = local.asks_for_owned },
    {
      Sid      = "TagAtStart"
      Effect   = "Allow"
      Action   = ["ec2:CreateTags"]
      Resource = local.started
      Condition = {
        StringEquals = merge(local.asks_for_owned.StringEquals, { "ec2:CreateAction" = ["RunInstances", "CreateFleet", "CreateLaunchTemplate"] })
        StringLike   = local.asks_for_owned.StringLike
      }
    },
    {
      Sid      = "TagOurNodes"
      Effect   = "Allow"
      Action   = ["ec2:CreateTags"]
      Resource = ["${local.ec2}:instance/*"]
      Condition = {
        StringEquals                = local.is_owned.StringEquals
        StringLike                  = local.is_owned.StringLike
        StringEqualsIfExists        = { "aws:RequestTag/eks:eks-cluster-name" = var.cluster }
        "ForAllValues:StringEquals" = { "aws:TagKeys" = ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"] }
      }
    },
    { Sid = "EndOurs", Effect = "Allow", Action = ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"], Resource = ["${local.ec2}:instance/*", "${local.ec2}:launch-template/*"], Condition = local.is_owned },
    { Sid = "PassNodeRole", Effect = "Allow", Action = ["iam:PassRole"], Resource = [var.karpenter_node_role_arn], Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } } },
  ]

  karpenter_profiles = [
    {
      Sid       = "MakeProfiles"
      Effect    = "Allow"
      Action    = ["iam:CreateInstanceProfile"]
      Resource  = local.profiles
      Condition = { StringEquals = local.profile_asked, StringLike = { "aws:RequestTag/karpenter.k8s.aws/ec2nodeclass" = "*" } }
    },
    {
      Sid      = "TagProfiles"
      Effect   = "Allow"
      Action   = ["iam:TagInstanceProfile"]
      Resource = local.profiles
      Condition = {
        StringEquals = merge(local.profile_asked, local.profile_owned)
        StringLike   = { "aws:RequestTag/karpenter.k8s.aws/ec2nodeclass" = "*", "aws:ResourceTag/karpenter.k8s.aws/ec2nodeclass" = "*" }
      }
    },
    {
      Sid       = "UseProfiles"
      Effect    = "Allow"
      Action    = ["iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"]
      Resource  = local.profiles
      Condition = { StringEquals = local.profile_owned, StringLike = { "aws:ResourceTag/karpenter.k8s.aws/ec2nodeclass" = "*" } }
    },
    { Sid = "ReadProfiles", Effect = "Allow", Action = ["iam:GetInstanceProfile", "iam:ListInstanceProfiles"], Resource = local.profiles },
  ]

  karpenter_reads = [
    {
      # EC2's Describe actions and the price list know no resources:
      # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
      Sid    = "Describe"
      Effect = "Allow"
      Action = [
        "ec2:DescribeCapacityReservations", "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeInstanceStatus",
        "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplates",
        "ec2:DescribePlacementGroups", "ec2:DescribeSecurityGroups", "ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets",
      ]
      Resource  = "*"
      Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
    },
    { Sid = "Prices", Effect = "Allow", Action = ["pricing:GetProducts"], Resource = "*" },
    { Sid = "NewestImage", Effect = "Allow", Action = ["ssm:GetParameter"], Resource = ["arn:${local.partition}:ssm:${local.region}::parameter/aws/service/*"] },
    { Sid = "Interruptions", Effect = "Allow", Action = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"], Resource = [var.karpenter_queue_arn] },
    { Sid = "ReadQueue", Effect = "Allow", Action = ["kms:Decrypt"], Resource = [var.events_kms_key_arn] },
    { Sid = "FindCluster", Effect = "Allow", Action = ["eks:DescribeCluster"], Resource = ["arn:${local.partition}:eks:${local.region}:${local.account}:cluster/${var.cluster}"] },
  ]
}
