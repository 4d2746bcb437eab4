"""What runs cost: prices, what each start held and wasted, sums of it."""
