output "node_role_name" {
  description = "Role that EC2NodeClass names."
  value       = aws_iam_role.node.name
}

output "node_role_arn" {
  description = "The same, as the controller's policy names it."
  value       = aws_iam_role.node.arn
}

output "queue" {
  description = "The queue of interruptions: its name for Karpenter's settings.interruptionQueue, its ARN for the controller's policy."
  value       = { name = aws_sqs_queue.interruption.name, arn = aws_sqs_queue.interruption.arn }
}

output "managed" {
  description = "Pool to node group."
  value       = { for pool, group in module.managed : pool => group.name }
}

output "pools" {
  description = "All pools, each with every key, as the chart's values have them."
  value       = local.pools
}
