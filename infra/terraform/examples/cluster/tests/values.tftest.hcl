mock_provider "aws" {
  source = "../../mocks"
}

variables {
  region        = "eu-central-1"
  zones         = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  admins        = ["arn:aws:iam::111122223333:role/platform"]
  karpenter_ami = "al2023@v20261105"
  monthly_limit = 2000
  budget_emails = ["ml@example.com"]
}

run "feeds_the_chart" {
  variables {
    image_tag  = "0.1.0-cuda"
    submitters = ["arn:aws:iam::111122223333:role/ci"]
  }

  assert {
    condition     = yamldecode(output.values).tracking == { database = { host = "mocked.eu-central-1.rds.amazonaws.com", port = 5432, name = "mlflow", user = "mlflow" }, artifacts = { bucket = module.storage.buckets.mlflow.name, region = "eu-central-1" } }
    error_message = "MLflow's database and bucket"
  }
  assert {
    condition     = yamldecode(output.values).image == "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mocked:0.1.0-cuda"
    error_message = "the image with its tag"
  }
  assert {
    condition     = yamldecode(output.values).karpenter.nodeRole == "holdfast-karpenter-node" && yamldecode(output.values).karpenter.discovery == { "karpenter.sh/discovery" = "holdfast" } && yamldecode(output.values).karpenter.tags["holdfast:cluster"] == "holdfast"
    error_message = "what EC2NodeClass needs"
  }
  assert {
    condition     = yamldecode(output.values).nodes == { a10g-4 = 1, a10g-spot = 4, l4-spot = 4 } && yamldecode(output.values).pools["a10g-4"].gpu == { type = "A10G", count = 4, memory = 24 }
    error_message = "pools as their files have them"
  }
  assert {
    condition     = yamldecode(output.values).submit.groups == ["holdfast-submit"]
    error_message = "CI's role is in a group that the chart binds"
  }
  assert {
    condition     = length(yamldecode(output.values).networkPolicy.database) == 3
    error_message = "the database's ranges, and no others"
  }
}
