mock_provider "aws" {
  source = "../../mocks"
}

variables {
  cluster           = "holdfast"
  pool              = "a100-8"
  vpc_id            = "vpc-0123456789abcdef0"
  subnet_ids        = ["subnet-0a"]
  security_group_id = "sg-0123456789abcdef0"
  node_role_arn     = "arn:aws:iam::111122223333:role/node"
  kms_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  instance_types    = ["p4d.24xlarge"]
  gpus              = 8
  nodes             = 2
  taints            = [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }]
}

run "keeps_pods_from_the_node" {
  assert {
    condition     = one(aws_launch_template.this.metadata_options).http_tokens == "required" && one(aws_launch_template.this.metadata_options).http_put_response_hop_limit == 1
    error_message = "IMDSv2, and not for pods"
  }
  assert {
    condition = alltrue([for disk in one(aws_launch_template.this.block_device_mappings).ebs :
    tobool(disk.encrypted) && disk.kms_key_id == var.kms_key_arn && disk.volume_type == "gp3"])
    error_message = "a gp3 disk under our key"
  }
  assert {
    condition     = aws_eks_node_group.this.labels["holdfast/pool"] == "a100-8" && aws_eks_node_group.this.ami_type == "AL2023_x86_64_NVIDIA"
    error_message = "its pool's label, and NVIDIA's driver"
  }
  assert {
    condition     = [for taint in aws_eks_node_group.this.taint : "${taint.key}=${taint.value}:${taint.effect}"] == ["nvidia.com/gpu=present:NO_SCHEDULE"]
    error_message = "GPU nodes keep other pods off"
  }
  assert {
    condition     = alltrue([for kind in aws_launch_template.this.tag_specifications : kind.tags["holdfast:pool"] == "a100-8"]) && length(aws_launch_template.this.tag_specifications) == 3
    error_message = "what a pool costs is told by its tag"
  }
  assert {
    condition     = length(aws_security_group.efa) == 0 && length(aws_placement_group.this) == 0 && length(aws_launch_template.this.capacity_reservation_specification) == 0
    error_message = "no fabric, no placement group and no reservation unless asked for"
  }
}

run "has_a_fabric" {
  variables {
    efa                     = 4
    placement_group         = true
    capacity_reservation_id = "cr-0123456789abcdef0"
  }

  assert {
    condition     = [for card in aws_launch_template.this.network_interfaces : "${card.network_card_index} ${card.device_index} ${card.interface_type}"] == ["0 0 efa", "1 1 efa-only", "2 1 efa-only", "3 1 efa-only"]
    error_message = "an adapter on each network card, the first with the address"
  }
  assert {
    condition     = alltrue([for card in aws_launch_template.this.network_interfaces : length(card.security_groups) == 2]) && aws_launch_template.this.vpc_security_group_ids == null
    error_message = "adapters are in the cluster's group and in the fabric's"
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.efa[0].cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.efa[0].ip_protocol == "-1"
    error_message = "members among themselves, all protocols"
  }
  assert {
    condition     = aws_placement_group.this[0].strategy == "cluster" && one(aws_launch_template.this.placement).group_name == "holdfast-a100-8"
    error_message = "near each other"
  }
  assert {
    condition     = one(one(aws_launch_template.this.capacity_reservation_specification).capacity_reservation_target).capacity_reservation_id == "cr-0123456789abcdef0"
    error_message = "in the reservation"
  }
}

run "is_spot_without_gpu" {
  command = plan
  variables {
    pool           = "cpu"
    subnet_ids     = ["subnet-0a", "subnet-0b"]
    instance_types = ["c7i.2xlarge", "c6a.2xlarge"]
    capacity       = "spot"
    gpus           = 0
    taints         = []
  }

  assert {
    condition     = aws_eks_node_group.this.capacity_type == "SPOT" && aws_eks_node_group.this.ami_type == "AL2023_x86_64_STANDARD" && length(aws_eks_node_group.this.taint) == 0
    error_message = "spot, without driver and taint"
  }
}

# GPUs that anything may fill, a reservation on spot, a fabric over zones, Graviton, half a node.
run "refuses_what_cannot_be" {
  command = plan
  variables {
    pool                    = "A100"
    taints                  = []
    capacity                = "spot"
    capacity_reservation_id = "cr-0123456789abcdef0"
    efa                     = 4
    subnet_ids              = ["subnet-0a", "subnet-0b"]
    instance_types          = ["g5g.xlarge"]
    nodes                   = 0.5
    disk_gb                 = 20
    kms_key_arn             = "alias/holdfast"
  }
  expect_failures = [
    var.pool, var.gpus, var.capacity_reservation_id, var.efa, var.instance_types, var.nodes, var.disk_gb, var.kms_key_arn,
  ]
}

run "refuses_a_placement_group_over_zones_and_other_words" {
  command = plan
  variables {
    placement_group = true
    subnet_ids      = ["subnet-0a", "subnet-0b"]
    capacity        = "SPOT"
    taints          = [{ key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" }]
  }
  expect_failures = [var.subnet_ids, var.capacity, var.taints]
}
