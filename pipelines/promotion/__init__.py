"""From a challenger to the champion: evidence, the gate, the move."""
