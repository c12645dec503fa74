"""The smallest task that is still a real one: English-looking text from a grammar, a model of a few thousand weights.

No network, no packages with data. One generation takes a fraction of a second on one core.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import yaml

_FIRST = ["Mary", "John", "Alice", "Peter", "Clara", "Hugo", "Irene", "Oscar", "Nadia", "Victor", "Rosa", "Edwin"]
_LAST = ["Stone", "Harlow", "Winter", "Mercer", "Lang", "Foster", "Abbott", "Keller", "Norris", "Quill", "Vance"]
_PLACE = ["Harwick", "Eastmoor", "Lindale", "Brackton", "Overton", "Silverford", "Marlow", "Thornby", "Kestrel"]
_THING = ["bridge", "school", "library", "railway", "garden", "theatre", "harbour", "museum", "mill", "chapel"]
_VERB = ["was built", "was opened", "was closed", "was painted", "was moved", "was bought", "was repaired"]
_ADJECTIVE = ["small", "famous", "northern", "wooden", "quiet", "public", "narrow", "ancient", "royal"]
_MONTH = ["January", "March", "April", "June", "August", "October", "December"]


def paragraphs(n: int, seed: int = 7) -> list[str]:
    """`n` different paragraphs of a few sentences, with names, places, years, numbers and dates."""
    draw = random.Random(seed)
    return [_paragraph(draw) for _ in range(n)]


def _paragraph(draw: random.Random) -> str:
    return " ".join(_sentence(draw) for _ in range(draw.randint(3, 5)))


def _sentence(draw: random.Random) -> str:
    person = f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    thing = f"{draw.choice(_ADJECTIVE)} {draw.choice(_THING)}"
    place, other, year = draw.choice(_PLACE), draw.choice(_PLACE), draw.randint(1500, 1999)
    return draw.choice(
        [
            f"The {thing} in {place} {draw.choice(_VERB)} by {person} in {year}.",
            f"In {year} the {thing} of {place} had about {draw.randint(11, 99) * 10} visitors from {other}.",
            f"On {draw.randint(1, 28)} {draw.choice(_MONTH)} the {thing} {draw.choice(_VERB)} with help from {person}.",
            f"The mayor went to {place} and saw a {thing} with {draw.randint(12, 98)} windows after {year}.",
        ]
    )


_SPEC: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "version": 1,
    "title": "A tiny Llama on sentences from a grammar",
    "tier": "micro",
    "seeds": [0, 1],
    "horizon": 3,
    "threads": 1,
    "init": "previous",
    "data": {"source": "local", "path": "text.txt", "documents": "paragraph"},
    "splits": {"test": 0.1, "selection": 0.05},
    "policy": {"name": "replace", "size": 32},
    "workload": {
        "kind": "text",
        "vocab_size": 320,
        "block": 16,
        "model": {"hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2},
        "training": {
            "batch_size": 8,
            "first": {"updates": 30, "learning_rate": 1.0e-2, "decay": "cosine"},
            "later": {"updates": 12, "learning_rate": 5.0e-3, "decay": "linear"},
        },
        "sampler": {"prompt_tokens": 4, "temperature": 0.9, "batch_size": 32},
        "evaluation": {"test_windows": 24, "selection_windows": 12, "pairs": 20, "batch_size": 32},
    },
    "scored": {
        "perplexity": {"reference": 60.0, "floor": 200.0},
        "next_token_accuracy": {"reference": 0.15, "floor": 0.05},
        "pair_accuracy": {"reference": 0.65, "floor": 0.5},
    },
}


def tiny_spec(**changes: Any) -> dict[str, Any]:
    """The content of the tiny task's file, with changes by dotted path: ``tiny_spec(**{"policy.name": "mix"})``."""
    spec = copy.deepcopy(_SPEC)
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = spec
        for parent in parents:
            section = section[parent]
        section[key] = value
    return spec


def write_tiny_task(folder: Path, **changes: Any) -> Path:
    """Write a task file and its text into a folder; return the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n\n".join(paragraphs(200)), "utf-8")
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(tiny_spec(**changes), sort_keys=False), "utf-8")
    return file


def results(run: Path) -> dict[str, bytes]:
    """Every file of a run's generations but the clock's, by its path below the run."""
    files = sorted(file for file in run.glob("gen-*/*") if file.name != "timing.json")
    return {str(file.relative_to(run)): file.read_bytes() for file in files}
