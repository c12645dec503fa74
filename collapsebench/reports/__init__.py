"""What people look at: comparisons, plots, galleries, report.html."""
