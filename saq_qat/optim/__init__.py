"""Training steps: plain descent, SAM, and sharpness-aware quantization."""
