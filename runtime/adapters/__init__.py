"""runtime/adapters."""
