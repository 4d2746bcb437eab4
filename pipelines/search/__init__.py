"""From a search space to trials, and from trials to the one that is worth registering."""
