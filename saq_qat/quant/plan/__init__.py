"""Which tensor gets which quantizer, what every target can run, and why: decided before training."""
