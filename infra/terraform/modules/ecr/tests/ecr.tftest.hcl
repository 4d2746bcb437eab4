mock_provider "aws" {
  source = "../../mocks"
}

variables {
  kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
}

run "tags_never_move" {
  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE" && !aws_ecr_repository.this.force_delete
    error_message = "a tag must stay what it was"
  }
  assert {
    condition     = one(aws_ecr_repository.this.image_scanning_configuration).scan_on_push && one(aws_ecr_repository.this.encryption_configuration).kms_key == var.kms_key_arn
    error_message = "scanned when pushed, under our key"
  }
  assert {
    condition     = [for rule in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules : rule.selection.countNumber] == [7, 200]
    error_message = "failed pushes go after a week, images when there are 200 newer ones"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    repository  = "Holdfast"
    keep_images = 1
    kms_key_arn = "alias/holdfast"
  }
  expect_failures = [var.repository, var.keep_images, var.kms_key_arn]
}
