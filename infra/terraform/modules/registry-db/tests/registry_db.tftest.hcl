mock_provider "aws" {
  source = "../../mocks"
}

variables {
  name                   = "holdfast"
  vpc_id                 = "vpc-0123456789abcdef0"
  subnet_ids             = ["subnet-0a", "subnet-0b"]
  client_security_groups = { cluster = "sg-0123456789abcdef0" }
  kms_key_arn            = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  logs_kms_key_arn       = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "is_private_encrypted_and_kept" {
  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == var.kms_key_arn && aws_db_instance.this.performance_insights_kms_key_id == var.kms_key_arn
    error_message = "disk and performance data under our key"
  }
  assert {
    condition     = !aws_db_instance.this.publicly_accessible && aws_db_instance.this.iam_database_authentication_enabled
    error_message = "reached from within, by IAM too"
  }
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null
    error_message = "nobody writes the master password down"
  }
  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.backup_retention_period >= 7
    error_message = "a standby, backups, and no deletion by mistake"
  }
  assert {
    condition     = contains([for parameter in aws_db_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1") && aws_db_parameter_group.this.family == "postgres17"
    error_message = "TLS only"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["cluster"].referenced_security_group_id == "sg-0123456789abcdef0" && aws_vpc_security_group_ingress_rule.clients["cluster"].cidr_ipv4 == null
    error_message = "the cluster connects, and no address does"
  }
  assert {
    condition     = alltrue([for group in aws_cloudwatch_log_group.this : group.kms_key_id == var.logs_kms_key_arn && group.retention_in_days >= 365])
    error_message = "logs encrypted, for a year"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name                   = "9"
    subnet_ids             = ["subnet-0a", "subnet-0a"]
    client_security_groups = {}
    backup_days            = 0
    engine_version         = "8.0"
    instance_class         = "t4g.medium"
    storage_gb             = 5
    kms_key_arn            = "alias/a"
    logs_kms_key_arn       = "alias/b"
  }
  expect_failures = [
    var.name, var.subnet_ids, var.client_security_groups, var.backup_days, var.engine_version, var.instance_class,
    var.storage_gb, var.kms_key_arn, var.logs_kms_key_arn,
  ]
}
