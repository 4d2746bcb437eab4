mock_provider "aws" {
  source = "../../mocks"
}

variables {
  name        = "holdfast"
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "guards_every_bucket" {
  assert {
    condition     = toset(keys(aws_s3_bucket.this)) == toset(["data", "ray", "mlflow"]) && aws_s3_bucket.this["ray"].bucket == "holdfast-ray-111122223333"
    error_message = "three buckets, named with the account"
  }
  assert {
    condition = alltrue([for block in concat(values(aws_s3_bucket_public_access_block.this), [aws_s3_bucket_public_access_block.logs]) :
    block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets])
    error_message = "public access is blocked in all four ways"
  }
  assert {
    condition = alltrue([for encryption in aws_s3_bucket_server_side_encryption_configuration.this :
    one(one(encryption.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.kms_key_arn && one(encryption.rule).bucket_key_enabled])
    error_message = "objects lie under our key"
  }
  assert {
    condition     = alltrue([for versioning in values(aws_s3_bucket_versioning.this) : one(versioning.versioning_configuration).status == "Enabled"])
    error_message = "what was overwritten can be brought back"
  }
  assert {
    condition = alltrue([for policy in concat(values(aws_s3_bucket_policy.this), [aws_s3_bucket_policy.logs]) : anytrue([for statement in jsondecode(policy.policy).Statement :
    statement.Effect == "Deny" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false" && statement.Action == "s3:*"])])
    error_message = "without TLS nothing is answered"
  }
  assert {
    condition     = alltrue([for bucket in values(aws_s3_bucket_policy.this) : toset([for statement in jsondecode(bucket.policy).Statement : statement.Sid]) == toset(["TlsOnly", "KmsOnly", "OurKeyOnly"])])
    error_message = "another key, or none, is refused"
  }
  assert {
    condition     = alltrue([for rules in aws_s3_bucket_lifecycle_configuration.this : anytrue([for rule in rules.rule : one(rule.abort_incomplete_multipart_upload[*].days_after_initiation) == 7])])
    error_message = "uploads that were cut off are cleared"
  }
  assert {
    condition     = length(aws_s3_bucket_lifecycle_configuration.this["ray"].rule) == 2 && length(aws_s3_bucket_lifecycle_configuration.this["mlflow"].rule) == 1
    error_message = "checkpoints expire, models do not"
  }
  assert {
    condition     = alltrue([for use, logging in aws_s3_bucket_logging.this : logging.target_bucket == aws_s3_bucket.logs.id && logging.target_prefix == "${use}/"])
    error_message = "who read and wrote is written down"
  }
  assert {
    condition     = alltrue([for bucket in concat(values(aws_s3_bucket.this), [aws_s3_bucket.logs]) : !bucket.force_destroy])
    error_message = "no bucket goes with its content"
  }
}

run "keeps_checkpoints_if_told_to" {
  command = plan
  variables { expire_checkpoints_days = 0 }

  assert {
    condition     = length(aws_s3_bucket_lifecycle_configuration.this["ray"].rule) == 1
    error_message = "0 is never"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name                    = "holdfast-of-the-whole-department"
    kms_key_arn             = "alias/holdfast"
    expire_checkpoints_days = 2
    keep_versions_days      = 0
    keep_logs_days          = 0.5
  }
  expect_failures = [var.name, var.kms_key_arn, var.expire_checkpoints_days, var.keep_versions_days, var.keep_logs_days]
}
