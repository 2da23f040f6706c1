"""The folder that ships."""
