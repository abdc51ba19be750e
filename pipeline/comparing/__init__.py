"""One model on many targets, side by side: what each makes of it, and whether its NPU is worth it.

Every figure of a device is an estimate of ``pipeline.checking``; accuracies are measured on the integer engine.
"""
