mock_provider "aws" {
  source = "../../mocks"
}

run "rotates" {
  variables { name = "holdfast-data" }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_key.this.deletion_window_in_days == 30
    error_message = "the key must rotate, and its deletion be revocable for 30 days"
  }
  assert {
    condition     = length(jsondecode(aws_kms_key.this.policy).Statement) == 1
    error_message = "a key nobody asked services for lets IAM decide, and nothing else"
  }
}

run "names_services_with_their_conditions" {
  variables {
    name     = "holdfast-all"
    services = ["logs", "events", "ebs"]
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_kms_key.this.policy).Statement : contains(keys(statement), "Condition") || statement.Sid == "IamDecides"])
    error_message = "a statement that names a service must be held to this account"
  }
  assert {
    condition     = [for statement in jsondecode(aws_kms_key.this.policy).Statement : statement.Condition.StringEquals["kms:CallerAccount"] if statement.Sid == "DisksThroughEc2"] == ["111122223333"]
    error_message = "disks: whoever uses the key must be of this account"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name     = "alias/holdfast"
    services = ["s3"]
  }
  expect_failures = [var.name, var.services]
}
