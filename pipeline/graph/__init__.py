"""Graphs: a read-only view of an ONNX model, its checks, and the writing of quantize/dequantize pairs."""
