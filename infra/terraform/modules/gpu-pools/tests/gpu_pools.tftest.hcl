mock_provider "aws" {
  source = "../../mocks"
}

variables {
  cluster            = "holdfast"
  vpc_id             = "vpc-0123456789abcdef0"
  subnets            = { eu-central-1a = "subnet-0a", eu-central-1b = "subnet-0b" }
  security_group_id  = "sg-0123456789abcdef0"
  node_role_arn      = "arn:aws:iam::111122223333:role/node"
  kms_key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  events_kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  pools = {
    head   = { instance_types = ["m6i.large"], capacity = "on-demand", cpus = 1.7, memory = 6, labels = null }
    a100-8 = { instance_types = ["p4d.24xlarge"], capacity = "on-demand", cpus = 94, memory = 1100, efa = 4, topology = "topology.kubernetes.io/zone", gpu = { type = "A100", count = 8, memory = 40 }, taints = [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }] }
  }
}

run "tells_karpenter_what_aws_takes_back" {
  assert {
    condition     = output.managed != null && toset(keys(output.managed)) == toset(["head"])
    error_message = "a managed group for the head alone, unless more are asked for"
  }
  assert {
    condition     = aws_sqs_queue.interruption.kms_master_key_id == var.events_kms_key_arn && aws_sqs_queue.interruption.message_retention_seconds == 300
    error_message = "the queue is encrypted, and forgets"
  }
  assert {
    condition = toset(flatten([for rule in aws_cloudwatch_event_rule.interruption : jsondecode(rule.event_pattern).detail-type])) == toset([
      "AWS Health Event", "EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation",
    "EC2 Instance State-change Notification", "EC2 Capacity Reservation Instance Interruption Warning"])
    error_message = "every kind of warning that Karpenter reads"
  }
  assert {
    condition     = alltrue([for target in aws_cloudwatch_event_target.interruption : target.arn == aws_sqs_queue.interruption.arn]) && length(aws_cloudwatch_event_target.interruption) == 5
    error_message = "each rule sends to the queue"
  }
  assert {
    condition     = [for statement in jsondecode(aws_sqs_queue_policy.interruption.policy).Statement : statement.Effect if can(statement.Condition.ArnEquals) || can(statement.Condition.Bool)] == ["Allow", "Deny"]
    error_message = "our rules may send, by TLS"
  }
  assert {
    condition     = aws_eks_access_entry.node.type == "EC2_LINUX" && output.node_role_name == "holdfast-karpenter-node"
    error_message = "Karpenter's nodes may join"
  }
  assert {
    condition     = output.pools["head"].labels == {} && output.pools["head"].taints == [] && output.pools["a100-8"].efa == 4
    error_message = "pools with every key, none null that a list or a map is"
  }
}

run "keeps_gpus_in_one_zone" {
  variables {
    managed = {
      head   = { nodes = 2 }
      a100-8 = { nodes = 2, zone = "eu-central-1b", placement_group = true }
    }
  }

  assert {
    condition     = toset(keys(output.managed)) == toset(["head", "a100-8"])
    error_message = "one group each"
  }
}

run "refuses_an_unknown_pool_and_aliases" {
  command = plan
  variables {
    managed            = { h200 = { nodes = 1 } }
    kms_key_arn        = "alias/a"
    events_kms_key_arn = "alias/b"
  }
  expect_failures = [var.managed, var.kms_key_arn, var.events_kms_key_arn]
}

run "refuses_a_zone_without_subnet" {
  command = plan
  variables { managed = { head = { nodes = 1, zone = "eu-central-1c" } } }
  expect_failures = [var.managed]
}

run "refuses_a_misspelt_key" {
  command = plan
  variables { pools = { head = { instance_types = ["m6i.large"], capacity = "on-demand", cpus = 1, memory = 6, taint = [] } } }
  expect_failures = [var.pools]
}

run "refuses_a_pool_without_capacity" {
  command = plan
  variables { pools = { head = { instance_types = ["m6i.large"], cpus = 1, memory = 6 } } }
  expect_failures = [var.pools]
}
