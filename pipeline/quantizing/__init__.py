"""Quantizing a model of the user's own: from an ONNX file and images to a quantized file, its recipe and its report."""
