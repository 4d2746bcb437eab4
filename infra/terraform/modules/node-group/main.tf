# A managed node group and its launch template: IMDSv2 out of pods' reach, an encrypted disk, and for GPUs on demand a
# fabric, a placement group, a reservation.
locals {
  gpu = var.gpus > 0
}

resource "aws_placement_group" "this" {
  count = var.placement_group ? 1 : 0

  name     = "${var.cluster}-${var.pool}"
  strategy = "cluster"
  tags     = var.tags
}

resource "aws_launch_template" "this" {
  name_prefix            = "${var.cluster}-${var.pool}-"
  update_default_version = true
  tags                   = var.tags
  # Network interfaces bring their groups themselves.
  vpc_security_group_ids = var.efa == 0 ? [var.security_group_id] : null

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # a pod is a hop further: it gets credentials by Pod Identity only
    instance_metadata_tags      = "disabled"
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.disk_gb
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  monitoring {
    enabled = true
  }

  # An adapter on each network card; the first carries the node's address, the others traffic of the fabric only.
  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html
  dynamic "network_interfaces" {
    for_each = range(var.efa)
    content {
      device_index          = network_interfaces.value == 0 ? 0 : 1
      network_card_index    = network_interfaces.value
      interface_type        = network_interfaces.value == 0 ? "efa" : "efa-only"
      security_groups       = [var.security_group_id, aws_security_group.efa[0].id]
      delete_on_termination = true
    }
  }

  dynamic "placement" {
    for_each = aws_placement_group.this
    content {
      group_name = placement.value.name
    }
  }

  dynamic "capacity_reservation_specification" {
    for_each = var.capacity_reservation_id == null ? [] : [var.capacity_reservation_id]
    content {
      capacity_reservation_target {
        capacity_reservation_id = capacity_reservation_specification.value
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = "${var.cluster}-${var.pool}", "holdfast:pool" = var.pool })
    }
  }
}

resource "aws_eks_node_group" "this" {
  cluster_name           = var.cluster
  node_group_name_prefix = "${var.pool}-"
  node_role_arn          = var.node_role_arn
  subnet_ids             = var.subnet_ids
  instance_types         = var.instance_types
  capacity_type          = var.capacity == "spot" ? "SPOT" : "ON_DEMAND"
  ami_type               = local.gpu ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  labels                 = merge(var.labels, { "holdfast/pool" = var.pool })
  tags                   = merge(var.tags, { "holdfast:pool" = var.pool })

  scaling_config {
    min_size     = var.nodes
    desired_size = var.nodes
    max_size     = var.nodes + 1 # an update starts the new node before it ends the old
  }

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  dynamic "taint" {
    for_each = var.taints
    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = { NoSchedule = "NO_SCHEDULE", PreferNoSchedule = "PREFER_NO_SCHEDULE", NoExecute = "NO_EXECUTE" }[taint.value.effect]
    }
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true # a GPU that has fallen off the bus is a node to replace
  }

  lifecycle {
    create_before_destroy = true
  }
}
