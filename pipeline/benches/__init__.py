"""Benchmarks: what ``pipeline bench`` measures and prints, each as rows of a table."""
