# A month's money for what carries the cluster's tag: told at half, at four fifths, and when the forecast passes it.
resource "aws_budgets_budget" "this" {
  name         = "${var.name}-monthly"
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_amount = tostring(var.monthly_limit)
  limit_unit   = "USD"
  tags         = var.tags

  cost_filter {
    name   = "TagKeyValue"
    values = [join("$", ["user:${var.tag}", var.name])]
  }

  dynamic "notification" {
    for_each = { 50 = "ACTUAL", 80 = "ACTUAL", 100 = "FORECASTED" }
    content {
      comparison_operator        = "GREATER_THAN"
      threshold                  = tonumber(notification.key)
      threshold_type             = "PERCENTAGE"
      notification_type          = notification.value
      subscriber_email_addresses = var.emails
    }
  }
}

# Without it the filter above matches nothing. Only the organisation's paying account may do it, and only a day after
# the tag was first used.
resource "aws_ce_cost_allocation_tag" "this" {
  for_each = var.activate_tags ? toset([var.tag, "holdfast:component", "holdfast:pool"]) : toset([])

  tag_key = each.key
  status  = "Active"
}
