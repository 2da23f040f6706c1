"""How sharp the loss is around trained weights, and what training looked like."""
