"""Checks that a well-formed submission is consistent and fits its task. Mismatches are `Problem`s; nothing is run."""

from __future__ import annotations

import datetime
import hashlib
import math
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from collapsebench.errors import UserError
from collapsebench.methods import CONTROL, registered_methods
from collapsebench.parameters import require_few_words
from collapsebench.publishing.plain_png import check_plain_png
from collapsebench.publishing.registered_defaults import registered_defaults, shared_defaults
from collapsebench.publishing.submission import (
    DensitySamples,
    GenerationResult,
    ImageSamples,
    SeedResult,
    Submission,
)
from collapsebench.scoring.fidelity import Scale, unclipped_fidelity
from collapsebench.task import Task
from collapsebench.task_spec import TaskSpec
from collapsebench.workloads.work import real_share, work_of

_REFERENCE_ROUNDING = 1e-4  # references are frozen with six digits
_EQUAL = 1e-6  # relative tolerance of numbers computed from one another
_COUNT_SLACK = 0.01  # tolerance of a count that was divided by n
_CHANNELS = (1, 3)
_FIRST_DAY = "2026-01-01"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Attributes:
        code: short name of the kind of problem. path: JSON path. given, allowed: readable descriptions on one line.
    """

    code: str
    path: str
    given: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: {self.given}; allowed: {self.allowed} [{self.code}]"


def check_against_task(submission: Submission, task: Task) -> list[Problem]:
    """All inconsistencies of a submission, and mismatches with its task.

    Args:
        submission: a submission accepted by the schema. task: the task of its id.
    """
    return [
        *_task(submission, task),
        *_method(submission),
        *_seeds(submission, task),
        *_provenance(submission, task),
        *_generations(submission, task),
        *_metrics(submission, task),
        *_counters(submission, task),
        *_first_generation(submission, task),
        *_equal_seeds(submission),
        *_samples(submission, task),
    ]


def _task(submission: Submission, task: Task) -> Iterator[Problem]:
    if submission.task.sha256 != task.sha256:
        yield Problem("task-digest", "task.sha256", submission.task.sha256, f"{task.sha256}, the digest of {task.id}")
    measured_on = task.spec.calibrated_on
    if measured_on is not None and not submission.task.data_sha256.startswith(measured_on.data):
        allowed = f"{measured_on.data}…, on which the references of {task.id} were measured"
        yield Problem("data", "task.data_sha256", submission.task.data_sha256, allowed)
    given, own = submission.task.scored, task.spec.scored
    for name in sorted(given.keys() | own.keys()):
        path = f"task.scored.{name}"
        if name not in own:
            yield Problem("references", path, f"{name} is not scored", f"the scored metrics {', '.join(own)}")
        elif name not in given:
            yield Problem("references", path, "missing", f"the scale of {task.id}")
        elif (given[name].reference, given[name].floor) != (own[name].reference, own[name].floor):
            stated = f"reference {given[name].reference}, floor {given[name].floor}"
            frozen = f"reference {own[name].reference}, floor {own[name].floor}, as {task.id} has them"
            yield Problem("references", path, stated, frozen)
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    if not _FIRST_DAY <= submission.date <= tomorrow.isoformat():
        yield Problem("date", "date", submission.date, f"a day since {_FIRST_DAY} that has begun")


def _method(submission: Submission) -> Iterator[Problem]:
    method = submission.method
    claimed = {method.name.split(":")[0], method.loss.split(":")[0]}
    if CONTROL in claimed:
        yield Problem("method", "method.name", CONTROL, "a method; the control is not a contestant")
    for name, path in registered_methods().items():
        if (name in claimed or method.source_sha256 == _digest(path)) and (
            method.source_sha256 != _digest(path) or method.loss != name
        ):
            yield Problem(
                "baseline-digest", "method.source_sha256", f"{method.source_sha256} as {method.name!r}",
                f"{_digest(path)} for the registered {name}; a method of your own needs a name of its own",
            )  # fmt: skip
        elif method.loss == name:
            yield from _registered_parameters(submission)
    yield from _parameters(submission)


def _parameters(submission: Submission) -> Iterator[Problem]:
    """Few numbers and words, and a reduction that can train."""
    method, path = submission.method, "method.parameters"
    given = method.parameters
    try:
        require_few_words(method.name, given, shared_defaults())
    except UserError as error:
        yield Problem("parameters", path, f"{len(given)} parameters", str(error)[:200])
    if given.get("reduction", "mean") not in ("mean", "kept"):
        yield Problem("parameters", f"{path}.reduction", str(given["reduction"]), "mean or kept")


def _reads_as(text: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text == str(value)
    try:
        return float(text) == float(value)
    except ValueError:
        return False


def _registered_parameters(submission: Submission) -> Iterator[Problem]:
    """A registered method has its own parameters, and its name says which of them are not at their defaults."""
    method, defaults = submission.method, registered_defaults()[submission.method.loss]
    given = method.parameters
    if given.keys() != defaults.keys():
        path = "method.parameters"
        yield Problem("baseline-parameters", path, f"{sorted(given)}", f"those of {method.loss}: {sorted(defaults)}")
        return
    said = dict(part.partition("=")[::2] for part in filter(None, method.name.partition(":")[2].split(",")))
    named = {key for key, text in said.items() if key in given and _reads_as(text, given[key])}
    changed = {key for key, value in defaults.items() if given[key] != value}
    if hidden := sorted((changed | said.keys()) - named):
        told = ",".join(f"{key}={given[key]}" for key in hidden if key in given)
        allowed = f"a name that says what differs from {method.loss}, such as {method.loss}:{told}"
        yield Problem("baseline-parameters", "method.name", method.name, allowed)


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _seeds(submission: Submission, task: Task) -> Iterator[Problem]:
    given = [result.seed for result in submission.results]
    official = list(task.spec.seeds)
    if given == official:
        return
    path, allowed = "results", f"the official seeds {official}, in this order"
    if len(set(given)) < len(given):
        yield Problem("seeds-doubled", path, f"seeds {given}", allowed)
    if foreign := sorted(set(given) - set(official)):
        yield Problem("seeds-foreign", path, f"seeds {foreign}", allowed)
    if missing := sorted(set(official) - set(given)):
        yield Problem("seeds-missing", path, f"seeds {missing} are missing", allowed)
    if sorted(given) == sorted(official):
        yield Problem("seeds-order", path, f"seeds {given}", allowed)


def _provenance(submission: Submission, task: Task) -> Iterator[Problem]:
    told = {seed for session in submission.provenance for seed in session.seeds}
    run = {result.seed for result in submission.results}
    if told != run:
        yield Problem("provenance", "provenance", f"seeds {sorted(told)}", f"all seeds of the results, {sorted(run)}")
    for i, session in enumerate(submission.provenance):
        if session.threads != task.spec.threads and session.device == "cpu":
            path = f"provenance[{i}].threads"
            yield Problem("provenance", path, str(session.threads), f"{task.spec.threads}, as the task fixes")


def _generations(submission: Submission, task: Task) -> Iterator[Problem]:
    horizon = task.spec.horizon
    for i, result in enumerate(submission.results):
        numbers = [g.generation for g in result.generations]
        path = f"results[{i}].generations"
        if numbers != list(range(len(numbers))):
            yield Problem("generations-order", path, f"generations {_short(numbers)}", "0, 1, 2, … without gaps")
            continue
        diverged = [g.generation for g in result.generations if g.status == "diverged"]
        if diverged and diverged[0] < numbers[-1]:
            given = f"generation {diverged[0]} diverged, and {numbers[-1]} follows"
            yield Problem("after-divergence", path, given, "nothing after a diverged generation")
        if numbers[-1] > horizon or (numbers[-1] < horizon and not diverged):
            given = f"the last generation is {numbers[-1]}"
            yield Problem("generations-missing", path, given, f"{horizon}, or an earlier one that diverged")
        for g in result.generations:
            for name in ("metrics", "engagement"):
                if g.status == "diverged" and getattr(g, name):
                    yield Problem("after-divergence", f"{path}[{g.generation}].{name}", name, "none when diverged")


def _each(submission: Submission) -> Iterator[tuple[str, GenerationResult]]:
    for i, result in enumerate(submission.results):
        for j, g in enumerate(result.generations):
            if g.status == "ok":
                yield f"results[{i}].generations[{j}]", g


def _metrics(submission: Submission, task: Task) -> Iterator[Problem]:
    known = {name: task.spec.metric(name) for name in task.spec.metrics}
    growing = task.spec.policy.name == "regenerate-fresh"  # a generation writes as many items as it was trained on
    names, expected = set[str](), dict[int, dict[str, int]]()
    for path, g in _each(submission):
        for name in task.spec.scored:
            if name not in g.metrics:
                yield Problem("metric-missing", f"{path}.metrics.{name}", "missing", "a value: it is scored")
        for name, measured in g.metrics.items():
            place = f"{path}.metrics.{name}"
            if name not in known:
                yield Problem("metric-unknown", place, name, f"the metrics of a {task.spec.workload.kind} task")
                continue
            low, high = known[name].bounds
            if not low <= measured.value <= high:
                yield Problem("metric-bounds", f"{place}.value", f"{measured.value!r}", f"{low:g} to {high:g}")
                continue
            count = measured.value * measured.n
            if known[name].counted and abs(count - round(count)) > _COUNT_SLACK:
                yield Problem(
                    "not-a-multiple", f"{place}.value", f"{measured.value!r}", f"a multiple of 1/{measured.n}"
                )
        sizes = {name: measured.n for name, measured in g.metrics.items()}
        names = names or set(sizes)
        first = expected.setdefault(g.generation if growing else 0, sizes)
        different = sorted(
            (names ^ set(sizes)) | {k for k in first.keys() | sizes.keys() if first.get(k) != sizes.get(k)}
        )
        if different:
            allowed = "the same metrics on as many elements in every seed" + ("" if growing else " and generation")
            yield Problem("metric-n", f"{path}.metrics", f"{', '.join(different)} differ", allowed)
        yield from _related(path, g)


def _related(path: str, g: GenerationResult) -> Iterator[Problem]:
    """Check metrics that follow from one another or must be ordered."""
    value = {name: measured.value for name, measured in g.metrics.items()}
    if {"perplexity", "token_loss"} <= value.keys():
        expected = math.exp(min(value["token_loss"], 700.0))
        if not math.isclose(value["perplexity"], expected, rel_tol=_EQUAL):
            given = f"perplexity {value['perplexity']!r}"
            yield Problem("inconsistent", f"{path}.metrics.perplexity", given, f"exp(token_loss) = {expected!r}")
    if {"negative_elbo", "reconstruction", "kl"} <= value.keys():
        expected = value["reconstruction"] + value["kl"]
        if not math.isclose(value["negative_elbo"], expected, rel_tol=_EQUAL):
            given = f"negative_elbo {value['negative_elbo']!r}"
            yield Problem("inconsistent", f"{path}.metrics.negative_elbo", given, f"reconstruction + kl = {expected!r}")
    for low, high in pairwise(name for name in ("token_loss_p50", "token_loss_p90", "token_loss_p99") if name in value):
        if value[low] > value[high]:
            given = f"{low} {value[low]!r} above {high} {value[high]!r}"
            yield Problem("inconsistent", f"{path}.metrics.{high}", given, f"{low} ≤ {high}")


def _counters(submission: Submission, task: Task) -> Iterator[Problem]:
    counts = {g: allowed_counts(task.spec, g) for g in range(task.spec.horizon + 1)}
    for path, g in _each(submission):
        trained, sampled = counts.get(g.generation, ((), ()))  # another generation is a problem of its own
        if trained and g.elements_trained not in trained:
            yield Problem("counters", f"{path}.elements_trained", str(g.elements_trained), _either(trained))
        if sampled and g.elements_sampled not in sampled:
            yield Problem("counters", f"{path}.elements_sampled", str(g.elements_sampled), _either(sampled))
        share = real_share(task.spec, g.generation)
        if share is not None and not math.isclose(g.real_share, share, abs_tol=_EQUAL):
            yield Problem("counters", f"{path}.real_share", f"{g.real_share!r}", f"{share!r}, as the data policy gives")


def allowed_counts(spec: TaskSpec, generation: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Possible numbers of elements trained on and sampled in a generation; empty if they depend on the data's size.

    Images have one channel or three; the task file does not say which.
    """
    work, per_item = work_of(spec, generation), {spec.kind.item_elements(spec.workload, c) for c in _CHANNELS}
    trained = () if work.trained is None else tuple(work.trained * size for size in sorted(per_item))
    sampled = () if work.drawn is None else tuple(work.drawn * size for size in sorted(per_item))
    return trained, sampled


def _first_generation(submission: Submission, task: Task) -> Iterator[Problem]:
    """Check generation 0, which has no synthetic data: CE's values are known, and no loss can be far better than CE."""
    for name, frozen in task.spec.scored.items():
        firsts = [r.generations[0].metrics[name].value for r in submission.results if name in r.generations[0].metrics]
        if not firsts or frozen.reference is None or frozen.floor is None:
            continue
        path = f"results[*].generations[0].metrics.{name}.value"
        mean = sum(first / len(firsts) for first in firsts)  # cannot overflow
        if submission.method.name == "ce" and not math.isclose(
            mean, frozen.reference, rel_tol=task.spec.checks.tolerance + _REFERENCE_ROUNDING
        ):
            given = f"mean over seeds {mean:g}"
            yield Problem("first-generation", path, given, f"{frozen.reference:g}: ce is the reference of {task.id}")
        scale = Scale(frozen.reference, frozen.floor, task.spec.metric(name).scale)
        reached = float(unclipped_fidelity(firsts, scale).mean())
        if reached > task.spec.checks.best_start:
            given = f"mean fidelity {reached:.3g} ({mean:g})"
            allowed = f"at most {task.spec.checks.best_start:g} at generation 0; CE has 1 with the same budget"
            yield Problem("first-generation", path, given, allowed)


def _equal_seeds(submission: Submission) -> Iterator[Problem]:
    first: dict[str, SeedResult] = {}
    for i, result in enumerate(submission.results):
        digest = result.digest
        if digest is not None and (same := first.setdefault(digest, result)) is not result:
            given = f"the same values as seed {same.seed}"
            yield Problem("identical-seeds", f"results[{i}]", given, "seeds that were run, which differ")


def _samples(submission: Submission, task: Task) -> Iterator[Problem]:
    samples = submission.samples
    if samples is None:
        return
    wanted = task.spec.kind.samples
    if samples.kind != wanted:
        yield Problem("samples", "samples.kind", samples.kind, wanted)
    lengths = {result.seed: len(result.generations) for result in submission.results}
    if samples.seed not in lengths:
        yield Problem("samples", "samples.seed", str(samples.seed), f"one of {sorted(lengths)}")
    for key in samples.generations:
        if int(key) >= lengths.get(samples.seed, int(key) + 1):
            yield Problem("samples", f"samples.generations.{key}", key, "a generation of that seed")
    if isinstance(samples, ImageSamples):
        for key, text in samples.generations.items():
            try:
                check_plain_png(b64decode(text, validate=True))
            except ValueError as error:
                yield Problem("samples", f"samples.generations.{key}", str(error), "a plain PNG, 8-bit grey or RGB")
    if isinstance(samples, DensitySamples):
        curves = {"truth": samples.truth} | {f"generations.{k}": c for k, c in samples.generations.items()}
        for key, curve in curves.items():
            if len(curve) != len(samples.x):
                yield Problem("samples", f"samples.{key}", f"{len(curve)} points", f"{len(samples.x)}, as x has")


def _short(numbers: list[int]) -> str:
    return str(numbers) if len(numbers) <= 12 else f"{numbers[:12]} and {len(numbers) - 12} more"


def _either(counts: tuple[int, ...]) -> str:
    return " or ".join(str(count) for count in counts) + ", by the task's budget"
