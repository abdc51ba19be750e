"""pipeline/tasks/detection."""
