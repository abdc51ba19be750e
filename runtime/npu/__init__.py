"""The simulated NPU: programs, integer contracts, kernels, timeline and device."""
