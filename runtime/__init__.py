"""The device side: opens a bundle and runs it. Needs numpy and onnxruntime; video in and out is the extra ``video``."""

__version__ = "0.1.0"
