"""What a task costs, by arithmetic alone: one module per workload, no torch, no data. See ``docs/estimate.md``."""
