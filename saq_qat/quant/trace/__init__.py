"""A user's network as a graph of named operations."""
