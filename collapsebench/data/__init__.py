"""From a data section of a task to its documents and splits."""
