"""Post-training quantization against other toolkits: same model, same calibration images, same evaluation."""
