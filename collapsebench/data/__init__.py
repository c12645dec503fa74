"""Loads the data section of a task as documents or images, and splits them."""
