"""Counts the cost of a task without data or weights. See ``docs/estimate.md``."""
