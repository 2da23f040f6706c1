"""Serve bundles over HTTP: the Open Inference Protocol, pictures, and numbers for monitoring."""
