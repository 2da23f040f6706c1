"""Codes that a self-test gives each layer, chosen so that every weight and bias matters in its answers."""
