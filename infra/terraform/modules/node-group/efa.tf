# The fabric's traffic passes only between members of one group, and it must be allowed both ways.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-start.html#efa-start-security
resource "aws_security_group" "efa" {
  count = var.efa > 0 ? 1 : 0

  name        = "${var.cluster}-${var.pool}-efa"
  description = "Elastic Fabric Adapters of pool ${var.pool} among themselves"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.cluster}-${var.pool}-efa" })
}

resource "aws_vpc_security_group_ingress_rule" "efa" {
  count = var.efa > 0 ? 1 : 0

  security_group_id            = aws_security_group.efa[0].id
  referenced_security_group_id = aws_security_group.efa[0].id
  description                  = "From members"
  ip_protocol                  = "-1"
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "efa" {
  count = var.efa > 0 ? 1 : 0

  security_group_id            = aws_security_group.efa[0].id
  referenced_security_group_id = aws_security_group.efa[0].id
  description                  = "To members"
  ip_protocol                  = "-1"
  tags                         = var.tags
}
