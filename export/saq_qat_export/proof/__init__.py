"""The trained network is the shipped file: compared step by step."""
