"""The arithmetic of quantizers: grids, codes, gradients, first values."""
