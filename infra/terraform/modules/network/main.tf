# Three kinds of subnets in each zone: private for nodes, isolated for the database (no way out), public for NAT alone.
resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # private names of the VPC endpoints
  tags                 = merge(var.tags, { Name = var.name })
}

# Adopted without a rule: nothing uses the default group.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.name}-unused" })
}

locals {
  # The first half of the range is the nodes' (a pod takes an address of its own), the second half the rest's.
  rest     = cidrsubnet(var.cidr, 1, 1)
  zones    = { for place, zone in var.zones : zone => place }
  gateways = var.nat == "none" ? {} : var.nat == "one" ? { (var.zones[0]) = 0 } : local.zones
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 3, each.value)
  tags = merge(var.tags, {
    Name                              = "${var.name}-private-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
    "karpenter.sh/discovery"          = var.name
  })
}

resource "aws_subnet" "isolated" {
  for_each = local.zones

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(local.rest, 5, each.value)
  tags              = merge(var.tags, { Name = "${var.name}-isolated-${each.key}" })
}

resource "aws_subnet" "public" {
  for_each = local.gateways

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(local.rest, 5, 8 + each.value)
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${var.name}-public-${each.key}" })
}
