"""Sequences of a known Markov chain."""
