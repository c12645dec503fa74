"""What is measured, and the catalogue of it."""
