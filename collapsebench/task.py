"""A task: everything that is fixed. Read from ``tasks/<name>/task.yaml``, validated, frozen, hashed."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from collapsebench.data.sources import AnySplits, EmbeddedData, Source, Splits
from collapsebench.digest import digest_of
from collapsebench.errors import DataError, TaskError
from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import METRICS, Metric
from collapsebench.metrics.scored import Scored
from collapsebench.parameters import did_you_mean
from collapsebench.paths import bundled
from collapsebench.resources import NOTHING_GIVEN, Resources
from collapsebench.task_files import TaskFile, own_file, read_task_file, told
from collapsebench.workloads.kind import Kind
from collapsebench.workloads.kinds import KINDS, section
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training


class Policy(Frozen):
    """How the training set of a generation g ≥ 1 is composed (see `collapsebench.policies`).

    Attributes:
        size: items per generation: samples drawn, and items trained on unless the policy accumulates.
        real_share: share of real items, for ``mix`` and ``fresh-mix`` only.
        real_data: which real items a chain knows, if a base model is shipped. ``per-seed``: its seed draws them from
            the training split. ``shared``: they are drawn once, and all seeds know the same in the same order.
    """

    name: Literal["replace", "accumulate", "accumulate-subsample", "mix", "fresh-mix", "regenerate-fresh"]
    size: int = Field(gt=0)
    real_share: float | None = Field(None, gt=0, lt=1)
    real_data: Literal["per-seed", "shared"] = "per-seed"

    @model_validator(mode="after")
    def _real_share_belongs_to_mixes(self) -> Policy:
        if (self.name in ("mix", "fresh-mix")) != (self.real_share is not None):
            raise ValueError("real_share is required for the policies mix and fresh-mix, and only there")
        return self

    @property
    def real_items(self) -> int:
        """Real items among the `size` of a generation, under the policies with a `real_share`."""
        assert self.real_share is not None
        return round(self.real_share * self.size)

    def reserved(self, horizon: int) -> int:
        """Real items withheld from generation 0, because they are new in one of generations 1 to G."""
        return horizon * self.real_items if self.name == "fresh-mix" else 0


class Base(Frozen):
    """The base model: small weights beside the task file, trained once by ``collapsebench base``.

    Attributes:
        file: the weights, relative to the task file; tasks of a family share it.
        sha256: of that file; None: not trained yet.
        data: what it was trained on, disjoint from all splits of the task. training: only its ``first`` stage is used.
    """

    file: str
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    data: Source
    training: Training


DIGITS = 16  # of a digest, where one is named
CALIBRATION_FILE, PROCESSOR_FILE, CHEATS_FILE = "calibration.json", "processor.json", "cheats.json"  # hold its rules


class CalibratedOn(Frozen):
    """What the scale was measured on: prefixes of two digests. The scale is meaningless on anything else.

    Attributes:
        settings: of the task, `Task.sha256`. data: of the prepared data, ``data_sha256`` in ``run.json``.
    """

    settings: str = Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")
    data: str = Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")


class Checks(Frozen):
    """Limits for checking submissions to this task (``docs/protocol.md``).

    Attributes:
        tolerance: relative difference of a raw metric that `verify` accepts; the same machine type gives equal bytes.
        best_start: fidelity at generation 0, not clipped and mean over seeds, that no loss reaches with this budget.
    """

    tolerance: float = Field(0.005, gt=0, lt=0.01)
    best_start: float = Field(1.2, gt=1)


class TaskSpec(Frozen):
    """The content of a task's YAML file.

    Attributes:
        version: raised with any change that can change a result; results of different versions are never compared.
        retired: why the task is no longer ranked; None: it is ranked. Its results stay visible.
        beside: why the task is ranked by itself and excluded from the mean over tasks; None: it is included.
        seeds: the official seeds.
        horizon: last generation G; generations 0..G are run.
        init: where weights start: from the ``previous`` generation, from ``scratch``, or from the ``base`` model.
        base: that model, for ``init: base`` only; None also where the section ``workload`` names the weights.
        threads: CPU threads of a cell. Fixed, because results depend on it in the last bits.
        scored: the metrics that define fidelity, with their frozen scales.
        calibrated_on: what the scales were measured on; None: not recorded, and not checked.
        checks: limits for checking submissions.
        workload: model, training, sampling and evaluation, in the terms of the modality.
    """

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)
    version: int = Field(ge=1)
    title: str = Field(max_length=120)
    retired: str | None = Field(None, min_length=1, max_length=600)
    beside: str | None = Field(None, min_length=1, max_length=600)
    tier: Literal["micro", "standard"]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    horizon: int = Field(ge=1, le=1000)
    threads: int = Field(1, ge=1)
    init: Literal["previous", "scratch", "base"]
    base: Base | None = None
    data: Source
    splits: AnySplits = Splits()
    policy: Policy
    workload: Annotated[SerializeAsAny[WorkloadSettings], BeforeValidator(section)]
    scored: dict[str, Scored] = Field(min_length=1)
    calibrated_on: CalibratedOn | None = None
    checks: Checks = Checks(tolerance=0.005, best_start=1.2)

    @model_validator(mode="after")
    def _data_fits_the_workload(self) -> TaskSpec:
        kind = self.kind
        for place, data in (("data", self.data), *((("base.data", self.base.data),) if self.base else ())):
            given = data.corpus if isinstance(data, EmbeddedData) else data.source
            if given not in kind.sources:
                told = f"{place}: {given} cannot feed a {kind.name} task; allowed are {', '.join(kind.sources)}"
                raise ValueError(told)
        if not isinstance(self.splits, kind.splits):
            keys = ", ".join(kind.splits.model_fields)
            raise ValueError(f"splits: a {kind.name} task divides its data by {keys}")
        return self

    @model_validator(mode="after")
    def _base_fits_init(self) -> TaskSpec:
        given = self.init == "base" and self.kind.base == "given"  # it is the model of the section workload
        if (self.init == "base" and not given) != (self.base is not None):
            raise ValueError("the section base is required for init: base, and only there")
        if self.policy.real_data == "shared" and self.base is None:
            raise ValueError("policy.real_data: without the section base all seeds know the same anyway; leave it out")
        if self.base is not None and self.kind.base == "none":
            raise ValueError(f"init: a {self.kind.name} task cannot start from a base model yet")
        if self.base is not None and getattr(self.workload.training, "later", None) is not None:
            raise ValueError("workload.training.later: under init: base all generations have the budget of the first")
        return self

    @model_validator(mode="after")
    def _scored_metrics_exist(self) -> TaskSpec:
        self.workload.check_policy(self.policy)
        without_floor = self.workload.without_floor()
        possible = [n for n in self.metrics if self.metric(n).direction and n not in without_floor]
        unknown = [name for name in self.scored if name not in possible]
        if unknown:
            raise ValueError(f"scored: unknown metrics {unknown}; a {self.workload.kind} task can score {possible}")
        if short := [name for name, scale in self.scored.items() if scale.lacks(self.horizon)]:
            raise ValueError(f"scored: {short} lack references of later generations; there are {self.horizon} of them")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} has a seed twice")
        return self

    @property
    def kind(self) -> Kind:
        """The record of the task's kind of workload."""
        return KINDS[self.workload.kind]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics that the task can measure, in display order."""
        return (*self.kind.metrics, *self._own_metrics)

    def metric(self, name: str) -> Metric:
        """The description of a metric, from the catalogue or as the task declares it.

        Raises:
            KeyError: the task does not measure it.
        """
        return METRICS[name] if name in self.kind.metrics else self._own_metrics[name]

    @property
    def _own_metrics(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in self.workload.own_metrics(self.horizon)}


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
        """Frozen splits, {split: {sha256 of the document: title}}, from ``splits.json`` beside the task file."""
        file = self.path.parent / "splits.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    @cached_property
    def broken_rules(self) -> dict[str, str]:
        """The rules of a ranked task that calibration or a test found broken: name to measured numbers."""
        files = [own_file(self.path, name) for name in (CALIBRATION_FILE, PROCESSOR_FILE, CHEATS_FILE)]
        found = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
        return {r["rule"]: r["told"] for content in found for r in content.get("rules", []) if not r["kept"]}

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
