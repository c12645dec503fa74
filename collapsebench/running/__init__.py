"""Running cells: the recursion, the engines that run it, and the files it writes."""
