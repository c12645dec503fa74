"""Running cells: the recursion, where it runs, and what it leaves on disk."""
