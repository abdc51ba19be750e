"""pipeline/targets."""
