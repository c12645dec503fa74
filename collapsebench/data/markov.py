"""A Markov chain with an exactly known transition table: integers in thousandths, the same on every machine."""

from __future__ import annotations

import hashlib

from collapsebench.data.sources import MarkovData

# Weights of a state's successors in thousandths, most likely first. A "sure" state almost always has one successor.
_SURE = (940, 14, 11, 9, 7, 6, 5, 4, 2, 2)
_OPEN = (320, 210, 140, 100, 70, 50, 35, 25, 18, 12, 8, 5, 4, 3)


def transition_weights(data: MarkovData) -> list[list[int]]:
    """Weights of all transitions, (states, states) integers ≥ 0; a row divided by its sum is a distribution.

    The successors of a state are the states sorted by a hash of seed, state and successor. Each weight is raised to the
    power ``data.power``.
    """
    return [_row(data, state) for state in range(data.states)]


def _row(data: MarkovData, state: int) -> list[int]:
    def drawn(successor: int) -> bytes:
        return hashlib.sha256(f"{data.seed}|{state}|{successor}".encode()).digest()

    row = [0] * data.states
    weights = _SURE if state < data.sure else _OPEN
    for successor, weight in zip(sorted(range(data.states), key=drawn), weights, strict=False):
        row[successor] = weight**data.power
    return row
