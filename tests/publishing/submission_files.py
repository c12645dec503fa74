"""Submissions that fit a task and themselves, fabricated without training anything, and their files."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError
from tiny_task import write_tiny_task

from collapsebench.publishing.consistency import Problem, allowed_counts
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.submission import Submission, canonical_bytes, submission_path
from collapsebench.publishing.validation import validate_files
from collapsebench.task import Task, load_task
from collapsebench.task_spec import TaskSpec
from collapsebench.workloads.work import real_share

# Where curves that are not scored begin and what they tend to; for scored ones the task says it.
_ENDS: dict[str, tuple[float, float]] = {
    "perplexity": (60.0, 200.0),
    "selection_perplexity": (62.0, 190.0),
    "next_token_accuracy": (0.15, 0.05),
    "pair_accuracy": (0.65, 0.5),
    "token_loss_p50": (3.0, 4.0),
    "token_loss_p90": (6.0, 8.0),
    "token_loss_p99": (10.0, 14.0),
    "prediction_entropy": (3.5, 1.0),
    "repetition": (0.1, 0.8),
    "unigram_kl": (0.1, 2.0),
    "kd_classifier": (-0.01, 3.0),
    "kl": (10.0, 1.0),
    "reconstruction": (40.0, 80.0),
    "sample_mean": (-1.2, -2.0),
}
_OTHERS = (0.7, 0.2)
_OTHER_EXTRACTORS = {"fid", "kid", "fd_efficientnet_lite0", "kd_efficientnet_lite0"}
_ELEMENTS = {"pair_accuracy": 20, "coverage": 40, "precision": 40, "recall": 40, "class_coverage": 40}
_MANY = 360  # elements of all other metrics

HANGING = 20  # seconds: what takes that long would take for ever with a larger file; how quick it is, is not tested


def tiny_task(folder: Path, kind: str = "text", **changes: Any) -> Task:
    """A tiny task of this kind, written into a folder."""
    return load_task(write_tiny_task(folder, kind, **changes))


def valid_submission(
    task: Task, *, name: str = "MyLoss", seed_noise: float = 0.03, supersedes: str | None = None
) -> Submission:
    """A submission that has nothing wrong: raw metrics that decay from the references towards the floors.

    Args:
        name: of the method; every name has curves, and a source digest, of its own.
        seed_noise: relative standard deviation of a raw metric between seeds and generations.
    """
    spec = task.spec
    content = {
        "schema_version": 1,
        "task": {
            "id": task.id,
            "sha256": task.sha256,
            "data_sha256": sha256("data"),
            "scored": {k: {"reference": s.reference, "floor": s.floor} for k, s in spec.scored.items()},
        },
        "method": {
            "name": name,
            "loss": f"my_loss.py:{name}",
            "parameters": {"beta": 0.5, "reduction": "kept", "steps": 12, "word": "plain"},
            "track": "loss",
            "source_sha256": sha256(name),
            "card": "Down-weights tokens that the model is sure of.\nNothing else changes.",
            "url": "https://example.org/my-loss",
        },
        "authors": ["A. Author", "Борис Ünïcode"],
        "licence": "CC-BY-4.0",
        "date": "2026-01-31",
        "supersedes": supersedes,
        "results": [_seed_result(spec, seed, name, seed_noise) for seed in spec.seeds],
        "provenance": [_session(spec)],
        "samples": _samples(spec),
    }
    return Submission.model_validate_json(json.dumps(content))


def content_of(submission: Submission) -> dict[str, Any]:
    """The content of a submission's file, free to be changed."""
    return submission.model_dump(mode="json", exclude_unset=True)


def engaged(submission: Submission, masked_gradient: float) -> Submission:
    """A copy of a submission with measured engagement."""
    content = content_of(submission)
    for result in content["results"]:
        for g in result["generations"]:
            shares = {"masked_gradient": masked_gradient, "masked_elements": 0.3, "confident_elements": 0.2}
            g["engagement"] = shares
    return Submission.model_validate_json(json.dumps(content))


def write(submission: Submission, folder: Path) -> Path:
    """Write a submission to its path below a folder of submissions."""
    content = canonical_bytes(submission)
    path = folder / submission_path(submission, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_content(content: Any, folder: Path) -> Path:
    """Write any content as a careful cheat would: canonical if the schema allows it, under the name of its digest."""
    text = json.dumps(content)
    try:
        return write(Submission.model_validate_json(text), folder)
    except ValidationError:
        return write_bytes(text.encode(), folder)


def write_bytes(content: bytes, folder: Path, name: str = "MyLoss") -> Path:
    """Write bytes under the name that belongs to their digest."""
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def problems_of(path: Path, task: Task, *published: Entry) -> list[Problem]:
    """The problems of one file."""
    (verdict,) = validate_files([path], {task.id: task}, published)
    return verdict.problems


def entry_of(submission: Submission) -> Entry:
    """The published entry of a submission."""
    content = canonical_bytes(submission)
    return Entry.of(Path(submission_path(submission, content)), content, submission)


def put(content: Any, path: str, value: Any) -> Any:
    """A copy with another value at a path such as ``results.0.seed``."""
    return _changed(content, path.split("."), lambda node, key: node.__setitem__(key, value))


def drop(content: Any, path: str) -> Any:
    """A copy without what is at a path."""
    return _changed(content, path.split("."), lambda node, key: node.__delitem__(key))


def at(content: Any, path: str) -> Any:
    """What is at a path; all of it at the empty one."""
    for key in path.split(".") if path else ():
        content = content[int(key) if isinstance(content, list) else key]
    return content


def _changed(content: Any, keys: list[str], change: Any) -> Any:
    content = copy.deepcopy(content)
    node = at(content, ".".join(keys[:-1]))
    change(node, int(keys[-1]) if isinstance(node, list) else keys[-1])
    return content


def sha256(text: str) -> str:
    """The digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _seed_result(spec: TaskSpec, seed: int, name: str, noise: float) -> dict[str, Any]:
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return {"seed": seed, "generations": [_generation(spec, g, draw, noise) for g in range(spec.horizon + 1)]}


def _generation(spec: TaskSpec, generation: int, draw: np.random.Generator, noise: float) -> dict[str, Any]:
    trained, sampled = allowed_counts(spec, generation)
    return {
        "generation": generation,
        "status": "ok",
        "metrics": _metrics(spec, 0.7 ** (generation + 0.5), draw, noise),
        "elements_trained": trained[0] if trained else 1000 * generation,
        "elements_sampled": sampled[0] if sampled else 1000,
        "real_share": real_share(spec, generation) or 0.0,
        "seconds": round(float(draw.uniform(1, 2)), 3),
    }


def _metrics(spec: TaskSpec, left: float, draw: np.random.Generator, noise: float) -> dict[str, Any]:
    """Raw metrics at this remaining share of the distance to the floor."""
    values: dict[str, float] = {}
    for name in sorted(set(spec.metrics) - _OTHER_EXTRACTORS):
        scale = spec.scored.get(name)
        start, end = _ENDS.get(name, _OTHERS) if scale is None else (scale.reference, scale.floor)
        low, high = spec.metric(name).bounds
        value = (end + left * (start - end)) * (1 + noise * draw.normal())
        values[name] = float(min(max(value, low), high))
        if spec.metric(name).counted:
            n = _ELEMENTS.get(name, _MANY)
            values[name] = round(values[name] * n) / n
    if "token_loss" in values:
        values["token_loss"] = math.log(values["perplexity"])
        values["perplexity"] = math.exp(values["token_loss"])
    if "negative_elbo" in values:
        values["kl"] = 0.2 * values["negative_elbo"]
        values["reconstruction"] = values["negative_elbo"] - values["kl"]
    return {name: {"value": value, "n": _ELEMENTS.get(name, _MANY)} for name, value in values.items()}


def _session(spec: TaskSpec) -> dict[str, Any]:
    return {
        "seeds": list(spec.seeds),
        "packages": {"numpy": "2.1.0", "torch": "2.6.0+cpu", "triton": None},
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "processor": "A processor",
        "gpu": None,
        "device": "cpu",
        "precision": "float32",
        "threads": spec.threads,
        "git": {"commit": "0" * 40, "dirty": False},
    }


def _samples(spec: TaskSpec) -> dict[str, Any]:
    shown = [str(g) for g in range(spec.horizon + 1)]
    common = {"seed": spec.seeds[0]}
    if spec.workload.kind in ("text", "pretrained-lm", "markov"):
        texts = {g: [{"prompt": "The mill in", "text": f" Harwick was built\nin 190{g}."}] for g in shown}
        return {"kind": "text", "generations": texts, **common}
    if spec.workload.kind == "gmm":
        x = np.linspace(-4, 4, 17)
        curves = {g: np.exp(-((x + 1 / (1 + int(g))) ** 2)).tolist() for g in shown}
        return {"kind": "density", "generations": curves, "x": x.tolist(), "truth": np.exp(-(x**2)).tolist(), **common}
    pictures = {g: base64.b64encode(png(np.full((4, 30), 9 * int(g), np.uint8))).decode() for g in shown}
    return {"kind": "images", "generations": pictures, **common}


def png(pixels: np.ndarray, **options: Any) -> bytes:
    """The PNG file that Pillow writes for an array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()
