"""Gaussian mixtures with a known true distribution."""
