"""When to poll which task."""
