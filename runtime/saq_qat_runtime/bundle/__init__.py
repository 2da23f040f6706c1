"""The folder that ships, read with the standard library: manifest, files, model."""
