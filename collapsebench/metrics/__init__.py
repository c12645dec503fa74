"""The metrics, and their catalogue."""
