"""What was found of a bundle, as text for people."""
