"""Kinds of quantizers: one file each, listed in ``table.py``."""
