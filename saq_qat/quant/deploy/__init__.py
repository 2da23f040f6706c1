"""The network that ships: BatchNorm folded, integers in place of fake-quant."""
