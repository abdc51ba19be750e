"""Post-training quantization: ranges from calibration, scales, and the quantized model."""
