"""Frames on their way: captured, queued, prepared, inferred, each step in a thread of its own."""
