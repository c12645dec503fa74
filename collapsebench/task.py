"""A task: everything that is fixed. Read from ``tasks/<name>/task.yaml``, validated, frozen, hashed."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from collapsebench.digest import digest_of
from collapsebench.errors import DataError, TaskError
from collapsebench.parameters import did_you_mean
from collapsebench.paths import bundled
from collapsebench.resources import NOTHING_GIVEN, Resources
from collapsebench.task_files import TaskFile, own_file, read_task_file, told
from collapsebench.task_spec import DIGITS, TaskSpec

CALIBRATION_FILE, PROCESSOR_FILE, CHEATS_FILE = "calibration.json", "processor.json", "cheats.json"  # hold its rules
_SPLITS_FILE = "splits.json"


class Task:
    """A loaded task: the specification and the folder it came from.

    Attributes:
        spec: the validated content of the file, reduced to the budget.
        path: the YAML file; the paths in it are relative to its folder.
        budget: share of the task's updates, samples and sampling steps; 1 is the task itself.
        resources: data and weights that the user already has.
        extended: the files that the YAML file extends, nearest first.
    """

    def __init__(
        self,
        spec: TaskSpec,
        path: Path,
        budget: float = 1.0,
        resources: Resources = NOTHING_GIVEN,
        extended: tuple[Path, ...] = (),
    ):
        self.spec, self._whole = spec if budget == 1.0 else _reduced(spec, budget), spec
        self.path = path
        self.budget = budget
        self.resources = resources
        self.extended = extended

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where a task's further files may be: in its folder, then in those of the files that it extends."""
        return tuple(dict.fromkeys(file.parent for file in (self.path, *self.extended)))

    @property
    def id(self) -> str:
        """``name@version``, with the budget if it is reduced, so that such results are never mixed."""
        reduced = "" if self.budget == 1.0 else f"+budget-{self.budget:g}"
        return f"{self.spec.name}@{self.spec.version}{reduced}"

    @property
    def argument(self) -> str:
        """What commands take for it: the name it is registered by, else the path of its file."""
        name = self.path.parent.name
        return name if self.path == registered_tasks().get(name, Path()).resolve() else str(self.path)

    @property
    def shown_argument(self) -> str:
        """The same for texts that are sent around: a path below the current folder, else only the file's name."""
        path = Path(self.argument)
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name

    @cached_property
    def sha256(self) -> str:
        """Digest of everything in the file that can change a raw metric: not title, fidelity scale or checks.

        The data itself has a digest of its own, ``data_sha256`` in ``run.json``. See `collapsebench.digest`.
        """
        return digest_of(self.spec)

    @property
    def split_listing(self) -> dict[str, dict[str, str]] | None:
        """Frozen splits, {split: {sha256 of the document: title}}, from ``splits.json`` beside the task file.

        An older version on other data has its own (`own_file`).
        """
        files = (own_file(self.path, _SPLITS_FILE), self.path.with_name(_SPLITS_FILE))
        return next((json.loads(file.read_text("utf-8")) for file in files if file.is_file()), None)

    @cached_property
    def broken_rules(self) -> dict[str, str]:
        """The rules of a ranked task that calibration or a test found broken: name to measured numbers.

        What was measured on other settings shows nothing about these, so it counts as broken.
        """
        files = [own_file(self.path, name) for name in (CALIBRATION_FILE, PROCESSOR_FILE, CHEATS_FILE)]
        found = {file.name: json.loads(file.read_text("utf-8")) for file in files if file.is_file()}
        rules = [rule for content in found.values() for rule in content.get("rules", [])]
        whole = self.budget == 1.0  # a part of the budget is other settings by intention
        stale = {n for n, content in found.items() if whole and content.get("sha256", self.sha256) != self.sha256}
        return {r["rule"]: r["told"] for r in rules if not r["kept"]} | {
            name: f"{name} was measured on other settings" for name in sorted(stale)
        }

    @property
    def mark(self) -> str:
        """The mark that tables put beside the task's name if its methods are not ranked; else empty."""
        return "retired" if self.spec.retired else "not ranked" if self.broken_rules else ""

    @property
    def unranked(self) -> str | None:
        """Why its methods are not ranked, in sentences; None if they are ranked."""
        if self.spec.retired:
            return f"{self.id} is retired, and its methods are not ranked. {self.spec.retired.strip()}"
        if self.broken_rules:
            rules = ", ".join(self.broken_rules)
            how = "`collapsebench calibrate TASK --check` and docs/cheats.md have the numbers."
            return f"{self.id} breaks rules of a ranked task ({rules}), so its methods are not ranked. {how}"
        return None

    @property
    def has_references(self) -> bool:
        """Whether every scored metric has a reference and a floor; if not, raw metrics are compared."""
        return all(scale.reference is not None for scale in self.spec.scored.values())

    @property
    def calibrated(self) -> bool:
        """Whether every scored metric has its reference and floor, measured on these settings."""
        return self.without_scale is None

    @property
    def without_scale(self) -> str | None:
        """Why fidelity is undefined on this task, in a sentence; None if it is defined, as far as the settings tell."""
        if not self.has_references:
            return f"{self.id} has no references yet, so fidelity is undefined."
        measured_on, settings = self.spec.calibrated_on, digest_of(self._whole)[:DIGITS]
        if measured_on is not None and measured_on.settings != settings:
            others = f"other settings ({measured_on.settings}…, these are {settings}…)"
            return f"the references of {self.id} were measured on {others}, so fidelity is undefined."
        return None

    def require_scale(self, data_sha256: str | None = None) -> None:
        """Refuse to score on references that are missing or were measured on something else.

        Args:
            data_sha256: digest of the data that is scored on; None: not known yet.

        Raises:
            TaskError: the references cannot be used; the message says what to do.
        """
        reason = self.without_scale
        measured_on = self.spec.calibrated_on
        # A reduced budget prepares other data, and its results are not comparable anyway.
        if reason is None and measured_on is not None and data_sha256 is not None and self.budget == 1.0:
            if measured_on.data != data_sha256[:DIGITS]:
                others = f"other data ({measured_on.data}…, this is {data_sha256[:DIGITS]}…)"
                reason = f"the references of {self.id} were measured on {others}, so fidelity is undefined."
        if reason is not None:
            remedy = f"Measure them with `collapsebench calibrate {self.argument} --write`"
            raise TaskError(f"{reason} {remedy}, or use `collapsebench run` for raw metrics.")

    def base_weights(self) -> Path:
        """Return the file of the base model's weights; a member of a family finds that of the file it extends.

        Raises:
            DataError: the file is missing or has another digest, or the task has no base model yet.
        """
        assert self.spec.base is not None
        places = [(folder / self.spec.base.file).resolve() for folder in self.folders]
        file = next((place for place in places if place.is_file()), places[0])
        if self.spec.base.sha256 is None or not file.is_file():
            raise DataError(f"{self.id} has no base model at {file}; train it: collapsebench base {self.argument}.")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != self.spec.base.sha256:
            differs = f"sha256 {found[:16]}…, the task says {self.spec.base.sha256[:16]}…"
            remedy = f"Get the file that belongs to the task, or train it: collapsebench base {self.argument}."
            raise DataError(f"{file} is not the base model of {self.id}: {differs}. {remedy}")
        return file

    def __repr__(self) -> str:
        return f"Task({self.id})"


def registered_tasks() -> dict[str, Path]:
    """Registered tasks by name: every folder of ``tasks/`` with a ``task.yaml``."""
    return {path.parent.name: path for path in sorted(bundled("tasks").glob("*/task.yaml"))}


def load_task(name: str | Path | Task, budget: float = 1.0, resources: Resources = NOTHING_GIVEN) -> Task:
    """Load a registered task, or a task from a path to a YAML file.

    Args:
        name: its name or path; a loaded task is returned as it is.
        budget: share of the task's updates, samples and sampling steps; such results have their own id.
        resources: data and weights that need not be downloaded.

    Raises:
        TaskError: the task does not exist or has errors; all errors are listed.
    """
    if isinstance(name, Task):
        return name
    if not 0 < budget <= 1:
        raise TaskError(f"--budget {budget:g} is not allowed; give a share of the task's budget in (0, 1].")
    registered, text = registered_tasks(), str(name)
    path = registered.get(text)
    if path is None:
        path = Path(text).expanduser()
        if path.suffix not in {".yaml", ".yml"}:
            told = f"unknown task {text!r}{did_you_mean(text, registered)}. Registered: {', '.join(registered)}"
            raise TaskError(f"{told}; or give the path of a task.yaml.")
        if not path.is_file():
            raise TaskError(f"{path}: no such task file.")
    file = read_task_file(path)
    return Task(_validated(file), path.resolve(), budget, resources, file.files[1:])


def _reduced(spec: TaskSpec, budget: float) -> TaskSpec:
    def share(n: int, least: int) -> int:
        return max(min(n, least), round(n * budget))

    policy = spec.policy.model_copy(update={"size": share(spec.policy.size, 16)})
    return spec.model_copy(update={"policy": policy, "workload": spec.workload.reduced(share)})


def _validated(file: TaskFile) -> TaskSpec:
    path = file.files[0]
    try:
        return TaskSpec.model_validate(file.content)
    except ValidationError as error:
        lines = [f"  {told(e, file)}" for e in error.errors()]
        raise TaskError(f"{path} has {len(lines)} error(s):\n" + "\n".join(lines)) from error
