"""pipeline/report."""
