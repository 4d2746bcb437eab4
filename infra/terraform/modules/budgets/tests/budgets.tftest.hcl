mock_provider "aws" {
  source = "../../mocks"
}

variables {
  name          = "holdfast"
  monthly_limit = 2000
  emails        = ["ml@example.com"]
}

run "watches_what_carries_the_tag" {
  assert {
    condition     = one(aws_budgets_budget.this.cost_filter).values == tolist(["user:holdfast:cluster$holdfast"])
    error_message = "the budget is the cluster's"
  }
  assert {
    condition     = { for notice in aws_budgets_budget.this.notification : notice.notification_type => notice.threshold... } == { ACTUAL = [50, 80], FORECASTED = [100] }
    error_message = "told at half, at four fifths, and before it is passed"
  }
  assert {
    condition     = length(aws_ce_cost_allocation_tag.this) == 0
    error_message = "only the paying account can switch cost tags on"
  }
}

run "switches_cost_tags_on" {
  command = plan
  variables { activate_tags = true }

  assert {
    condition     = contains(keys(aws_ce_cost_allocation_tag.this), "holdfast:cluster") && contains(keys(aws_ce_cost_allocation_tag.this), "holdfast:pool")
    error_message = "by cluster, by component, by pool"
  }
}

run "refuses_what_cannot_be" {
  command = plan
  variables {
    name          = "h"
    monthly_limit = 0
    emails        = []
    tag           = "aws:eks:cluster-name"
  }
  expect_failures = [var.name, var.monthly_limit, var.emails, var.tag]
}

run "refuses_what_is_no_address" {
  command = plan
  variables { emails = ["ml-platform"] }
  expect_failures = [var.emails]
}
