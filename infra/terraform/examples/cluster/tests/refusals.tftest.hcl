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

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name          = "Holdfast"
    region        = "eu-central-1a"
    image_tag     = "latest"
    karpenter_ami = "al2023@latest"
    pools         = "./nowhere"
    managed_pools = { a100-8 = { nodes = 1 } }
  }
  expect_failures = [var.name, var.region, var.image_tag, var.karpenter_ami, var.pools, var.managed_pools]
}

run "refuses_zones_elsewhere_and_a_pool_of_no_nodes" {
  command = plan
  variables {
    zones           = ["us-east-1a", "us-east-1b"]
    karpenter_pools = { l4-spot = 0 }
  }
  expect_failures = [var.zones, var.karpenter_pools]
}

run "refuses_a_pool_twice" {
  command = plan
  variables { managed_pools = { head = { nodes = 1 }, l4-spot = { nodes = 1 } } }
  expect_failures = [var.karpenter_pools]
}

run "refuses_an_unknown_pool" {
  command = plan
  variables { karpenter_pools = { l5-spot = 1 } }
  expect_failures = [output.values]
}
