"""pipeline/compile."""
