output "host" {
  description = "Name of the database's host."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Its port."
  value       = aws_db_instance.this.port
}

output "database" {
  description = "Name of the database."
  value       = aws_db_instance.this.db_name
}

output "admin" {
  description = "The master user."
  value       = aws_db_instance.this.username
}

output "admin_secret_arn" {
  description = "The secret with the master user's password."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "resource_id" {
  description = "The name that IAM's rds-db:connect knows the instance by."
  value       = aws_db_instance.this.resource_id
}
