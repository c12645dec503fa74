"""Verification: reruns a seed of a submission and compares every raw metric. This runs the contestant's code."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from collapsebench.errors import RunError, UserError
from collapsebench.files import require_folder, write_atomically
from collapsebench.methods import Contestant, registered_methods, source_file
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.submission import (
    Attestation,
    Difference,
    Measured,
    SeedResult,
    Session,
    Submission,
    alike,
    attestation_path,
    canonical_bytes,
)
from collapsebench.publishing.submit import seed_result, sessions
from collapsebench.running.cells import Cell
from collapsebench.running.environment import resolve_device
from collapsebench.running.isolated import Named, run_isolated
from collapsebench.running.one_generation import other_source
from collapsebench.running.preflight import check_supplies
from collapsebench.running.progress import Listener, silent
from collapsebench.task import Task
from collapsebench.workloads.processes import world_size

_COUNTS = 1.5  # tolerance of a share, in units of 1/n: one of n elements may differ


@dataclass(frozen=True)
class Plan:
    """The plan of a verification: what it will import and run.

    Attributes:
        entry, submission: the submission to verify. task: its task.
        seed, generations: the chain, and its last generation.
        loss: ``tce``, ``path/to/my_loss.py:MyLoss`` or ``my_package.losses:MyLoss``.
        source: source file of the loss; None for an installed package, which is resolved only when importing is
            allowed.
    """

    entry: Entry
    submission: Submission
    task: Task
    seed: int
    generations: int
    loss: str
    source: Path | None

    def lines(self) -> list[str]:
        """The planned steps as readable text."""
        method = self.submission.method
        where = f"file {self.source}" if self.source is not None else "an installed package"
        return [
            f"loss   {self.loss} ({where}), sha256 {method.source_sha256} as submitted",
            f"with   {', '.join(f'{k}={v}' for k, v in sorted(method.parameters.items()))}",
            f"on     {self.task.id}, seed {self.seed}, generations 0 to {self.generations}",
            *([f"from   {method.url}"] if method.url else []),
        ]


@dataclass(frozen=True)
class Outcome:
    """The result of a verification.

    Attributes:
        differences: values beyond the tolerance, largest first. largest: the largest difference of all values, if any.
        compared, identical: number of values compared, and number equal to the last bit.
        machine: the machine it ran on.
    """

    plan: Plan
    differences: list[Difference]
    largest: Difference | None
    compared: int
    identical: int
    machine: Session

    @property
    def alike(self) -> bool:
        """Whether the kind of machine and the versions are those of the submission."""
        return alike(self.machine, self.plan.submission, self.plan.seed)

    @property
    def deciding(self) -> list[Difference]:
        """The differences that decide: all of them if equal bytes are expected, otherwise those of scored metrics."""
        scored = self.plan.task.spec.scored
        return [d for d in self.differences if self.alike or d.metric in scored]

    @property
    def matched(self) -> bool:
        """Whether the submission is confirmed, i.e. there are no deciding differences."""
        return not self.deciding


def plan_verification(entry: Entry, task: Task, seed: int | None, generations: int, loss: str | None) -> Plan:
    """Resolve what to run, without importing anything.

    Args:
        seed: the seed to run; None: the first official one. generations: the last generation to run.
        loss: location of the loss on this machine; None: as named in the submission, relative to the current folder.

    Raises:
        UserError: the seed or generation is not in the submission, or the source is missing or differs.
    """
    submission = entry.submission
    chosen = task.spec.seeds[0] if seed is None else seed
    chain = next((result for result in submission.results if result.seed == chosen), None)
    if chain is None:
        raise UserError(f"--seed {chosen} is not in the submission; it has {[r.seed for r in submission.results]}.")
    last = len(chain.generations) - 1
    if not 0 <= generations <= last:
        raise UserError(f"--generations {generations} is not allowed; seed {chosen} has generations 0 to {last}.")
    named = loss or submission.method.loss
    source = source_file(named)
    if source is not None and not source.is_file():
        more = f" Get it from {submission.method.url}, read it, and" if submission.method.url else " Get it,"
        raise UserError(f"{source}: no such file.{more} name it with --method path/to/{submission.method.loss}.")
    if source is not None:
        _require_digest(submission, hashlib.sha256(source.read_bytes()).hexdigest(), named)
    return Plan(entry, submission, task, chosen, generations, named, source)


def verification_cell(plan: Plan, out: Path, device: str = "auto") -> Cell:
    """The chain to run. Its method is only a name here; the contestant's code is imported only in other processes.

    Raises:
        UserError: the loss is not the submitted class, or `out` is a file.
    """
    require_folder(out, "--out")
    check_supplies(plan.task)
    if world_size() > 1:
        raise UserError("verify gives every generation a process of its own: start it without `accelerate launch`.")
    submitted = plan.submission.method
    wanted = submitted.loss.rpartition(":")[2]
    if plan.loss.rpartition(":")[2] != wanted:
        raise UserError(f"{plan.loss} is not {wanted}, which was submitted.")

    def make() -> NoReturn:
        raise AssertionError("a contestant's code is not run in the process that judges it")

    method = Contestant(
        name=submitted.name,
        id=plan.entry.digest,
        spec=None,
        loss=submitted.loss,
        description=submitted.card,
        parameters=dict(submitted.parameters),
        source_sha256=submitted.source_sha256,
        real_data=False,
        track=submitted.track,
        make=make,
    )
    return Cell(plan.task, method, plan.seed, out, plan.generations, resolve_device(device))


def verify(plan: Plan, cell: Cell, listener: Listener = silent) -> Outcome:
    """Run the chain and compare it with the submitted one. Executes the contestant's code, in other processes.

    Raises:
        UserError: the loss is not the submitted one, or does not load.
        RunError: the data prepared here is not the submitted data, or the run failed.
    """
    method = plan.submission.method
    file = None if plan.loss in registered_methods() else plan.source
    named = Named(plan.loss, file, dict(method.parameters), method.source_sha256, method.track)
    run_isolated(cell, named, listener)
    about = json.loads((cell.directory.path / "run.json").read_text("utf-8"))
    if about["task"]["data_sha256"] != plan.submission.task.data_sha256:
        raise RunError(
            f"the data of {plan.task.id} prepared here is not what was submitted on (another digest), so nothing can "
            "be compared; `collapsebench doctor` names packages that differ from the tested ones."
        )
    measured = SeedResult.model_validate(seed_result(cell.directory, plan.seed, plan.generations))
    (submitted,) = [result for result in plan.submission.results if result.seed == plan.seed]
    machine = Session.model_validate(sessions([about])[-1])
    return _compared(plan, submitted, measured, machine)


def _require_digest(submission: Submission, found: str, named: str) -> None:
    wanted = submission.method.source_sha256
    if found != wanted:
        raise UserError(other_source(named, found, wanted))


def _compared(plan: Plan, submitted: SeedResult, measured: SeedResult, machine: Session) -> Outcome:
    """Compare each generation; a metric or generation that exists on only one side is a difference of unknown size."""
    differences: list[tuple[float, Difference]] = []
    beyond, compared, identical = [], 0, 0
    theirs = {g.generation: g.metrics for g in submitted.generations if g.generation <= plan.generations}
    ours = {g.generation: g.metrics for g in measured.generations}
    for g in sorted(theirs.keys() | ours.keys()):
        one, other = theirs.get(g, {}), ours.get(g, {})
        for name in sorted(one.keys() | other.keys()):
            compared += 1
            there, here = one.get(name), other.get(name)
            if there == here:
                identical += 1
                continue
            size = relative_difference(there, here)
            difference = Difference(
                metric=name,
                generation=g,
                submitted=None if there is None else there.value,
                measured=None if here is None else here.value,
                relative=size,
            )
            differences.append((float("inf") if size is None else size, difference))
            if there is None or here is None or not within(plan.task, name, there, here):
                beyond.append(differences[-1])
    largest = max(differences, key=lambda pair: pair[0], default=None)
    ordered = [d for _, d in sorted(beyond, key=lambda pair: -pair[0])]
    return Outcome(plan, ordered, largest and largest[1], compared, identical, machine)


def relative_difference(there: Measured | None, here: Measured | None) -> float | None:
    """Difference of two values over the larger one; None if only one side has the metric, or if n differs."""
    if there is None or here is None or there.n != here.n:
        return None
    larger = max(abs(there.value), abs(here.value))
    return abs(there.value - here.value) / larger if larger else 0.0


def within(task: Task, metric: str, there: Measured, here: Measured) -> bool:
    """Whether two values agree within the task's tolerance; shares of n elements may also differ by one element."""
    size = relative_difference(there, here)
    if size is None:
        return False
    counted = task.spec.metric(metric).counted
    return size <= task.spec.checks.tolerance or (counted and abs(there.value - here.value) * here.n <= _COUNTS)


def write_attestation(outcome: Outcome, by: str) -> Path:
    """Write the outcome next to the submission, and return the file."""
    plan = outcome.plan
    attestation = Attestation(
        schema_version=1,
        submission_sha256=plan.entry.sha256,
        seed=plan.seed,
        generations=plan.generations,
        outcome="matched" if outcome.matched else "differed",
        tolerance=plan.task.spec.checks.tolerance,
        compared=outcome.compared,
        identical=outcome.identical,
        largest=outcome.largest,
        by=by,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=outcome.machine,
        alike=outcome.alike,
    )
    content = canonical_bytes(attestation)
    path = attestation_path(plan.entry.path, content)
    write_atomically(path, content.decode())
    return path
