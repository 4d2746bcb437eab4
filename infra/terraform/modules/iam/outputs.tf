output "role_arns" {
  description = "Role (job, mlflow, karpenter) to ARN."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}
