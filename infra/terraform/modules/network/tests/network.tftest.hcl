mock_provider "aws" {
  source = "../../mocks"
}

variables {
  name        = "holdfast"
  zones       = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "is_private" {
  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.isolated), values(aws_subnet.public)) : subnet.map_public_ip_on_launch != true])
    error_message = "no subnet gives public addresses"
  }
  assert {
    condition     = length(aws_subnet.private) == 3 && length(aws_subnet.isolated) == 3 && length(aws_subnet.public) == 1 && length(aws_nat_gateway.this) == 1
    error_message = "nodes and database in each zone, one NAT"
  }
  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.private), values(aws_subnet.isolated), values(aws_subnet.public)) : subnet.cidr_block])) == 7
    error_message = "every subnet has a range of its own"
  }
  assert {
    condition     = length(aws_default_security_group.this.ingress) == 0 && length(aws_default_security_group.this.egress) == 0
    error_message = "the default security group allows nothing"
  }
  assert {
    condition     = aws_subnet.private["eu-central-1a"].tags["karpenter.sh/discovery"] == "holdfast"
    error_message = "Karpenter finds subnets by this tag"
  }
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.flow.retention_in_days >= 365
    error_message = "flow logs of all traffic, encrypted, for a year"
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled]) && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "AWS's services by their own names, within the VPC"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == var.cidr && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443
    error_message = "the endpoints answer the VPC alone"
  }
}

run "can_do_without_the_internet" {
  variables { nat = "none" }

  assert {
    condition     = length(aws_internet_gateway.this) == 0 && length(aws_nat_gateway.this) == 0 && length(aws_subnet.public) == 0 && length(aws_route.nat) == 0
    error_message = "nat = none leaves no way out"
  }
}

run "can_have_a_nat_in_each_zone" {
  variables { nat = "per-zone" }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.nat) == 3
    error_message = "each zone leaves by its own"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name        = "Holdfast"
    zones       = ["eu-central-1a"]
    cidr        = "10.0.0.0/24"
    interfaces  = ["com.amazonaws.eu-central-1.sts"]
    kms_key_arn = "alias/holdfast"
    log_days    = 30
  }
  expect_failures = [var.name, var.zones, var.cidr, var.interfaces, var.kms_key_arn, var.log_days]
}

run "refuses_an_address_within_a_range_and_half_a_way_out" {
  command = plan
  variables {
    cidr = "10.0.1.7/16"
    nat  = "some"
  }
  expect_failures = [var.cidr, var.nat]
}

run "refuses_nodes_that_could_not_join" {
  command = plan
  variables {
    nat        = "none"
    interfaces = ["ecr.api", "ecr.dkr"]
  }
  expect_failures = [var.interfaces]
}
