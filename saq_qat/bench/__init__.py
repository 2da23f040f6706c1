"""Engines side by side: the bundle and its baselines, measured in one run."""
