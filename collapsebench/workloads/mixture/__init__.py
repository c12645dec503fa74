"""Gaussian mixtures, whose truth is known."""
