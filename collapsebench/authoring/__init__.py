"""Tools for task authors: calibration, classifiers, estimates, the doctor."""
