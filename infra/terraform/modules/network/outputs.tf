output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "private_subnets" {
  description = "Zone to subnet, for nodes."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "isolated_subnets" {
  description = "Zone to subnet, for the database."
  value       = { for zone, subnet in aws_subnet.isolated : zone => subnet.id }
}

output "isolated_cidrs" {
  description = "The ranges of those subnets, for NetworkPolicies."
  value       = [for subnet in aws_subnet.isolated : subnet.cidr_block]
}
