"""What makers of tasks run: calibration, classifiers, estimates, the doctor."""
