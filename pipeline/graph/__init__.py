"""pipeline/graph."""
