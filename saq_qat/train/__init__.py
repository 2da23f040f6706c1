"""Training: a plain loop over the stages of a recipe, its checkpoints and its log."""
