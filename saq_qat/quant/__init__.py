"""Quantizers, the plan that places them, and the deploy view that holds their integers."""
