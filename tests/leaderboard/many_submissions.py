"""Thousands of valid submissions, derived from the committed ones, to see how the board stands them.

    python tests/leaderboard/many_submissions.py FOLDER [COUNT]

Every one is a committed entry whose curves begin to fall earlier or later and jitter a little, under a name and a
source digest of its own. Raw metrics stay consistent with each other, so `validate` has nothing to object to.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from collapsebench.metrics.catalogue import METRICS
from collapsebench.paths import bundled
from collapsebench.publishing.submission import Submission, canonical_bytes, submission_path
from collapsebench.publishing.validation import submission_files

_JITTER = 0.04  # generations, per seed


def write_many(folder: Path, count: int) -> None:
    """Copy the committed submissions into a folder and add fabricated ones, as many per task, up to a count."""
    committed = submission_files([bundled("submissions")])
    for path in committed:
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    contents = [json.loads(path.read_bytes()) for path in committed if ".attestation-" not in path.name]
    for number in range(count - len(contents)):
        fabricated = _fabricated(contents[number % len(contents)], number)
        submission = Submission.model_validate_json(json.dumps(fabricated))
        content = canonical_bytes(submission)
        (folder / submission_path(submission, content)).write_bytes(content)


def _fabricated(content: dict[str, Any], number: int) -> dict[str, Any]:
    """The entry with this number: a copy with another method and shifted curves."""
    draw = np.random.default_rng(number)
    name = f"Fabricated:beta={number}"
    method = content["method"] | {
        "name": name,
        "loss": "fabricated.py:Fabricated",
        "parameters": {"beta": number},
        "source_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "card": "Fabricated to measure the speed of the board.",
    }
    delay = float(draw.uniform(-0.5, 2.5))
    results = [
        {**result, "generations": _shifted(result["generations"], delay + draw.normal(0, _JITTER))}
        for result in content["results"]
    ]
    return content | {"method": method, "results": results, "authors": [f"Author {number % 97}"]}


def _shifted(generations: list[dict[str, Any]], delay: float) -> list[dict[str, Any]]:
    """Generations whose metrics are those of `delay` generations before, interpolated."""
    last = len(generations) - 1
    moved = []
    for g, generation in enumerate(generations):
        position = min(max(g - delay, 0.01 * abs(delay)), last - 0.01)  # never quite an end: entries must differ
        low = int(position)
        before, after = generations[low]["metrics"], generations[min(low + 1, last)]["metrics"]
        moved.append({**generation, "metrics": _between(before, after, position - low)})
    return moved


def _between(before: dict[str, Any], after: dict[str, Any], share: float) -> dict[str, Any]:
    values: dict[str, float] = {}
    for name, measured in before.items():
        value = (1 - share) * measured["value"] + share * after[name]["value"]
        values[name] = round(value * measured["n"]) / measured["n"] if METRICS[name].counted else value
    if "token_loss" in values:
        values["perplexity"] = math.exp(values["token_loss"])
    if "reconstruction" in values:
        values["negative_elbo"] = values["reconstruction"] + values["kl"]
    return {name: {**before[name], "value": value} for name, value in values.items()}


if __name__ == "__main__":
    write_many(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
