"""Targets: what an NPU is (profiles), what it demands of an operator (rules), and where operators go (placement)."""
