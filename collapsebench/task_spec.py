"""What a task file says: its sections, with the checks that need no other file. Reading it: `collapsebench.task`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from collapsebench.data.sources import AnySplits, EmbeddedData, Source, Splits
from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import METRICS, Metric
from collapsebench.metrics.scored import Scored
from collapsebench.workloads.kind import Kind
from collapsebench.workloads.kinds import KINDS, section
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training


class Policy(Frozen):
    """How the training set of a generation g ≥ 1 is composed (see `collapsebench.policies`).

    Attributes:
        size: items per generation: samples drawn, and items trained on unless the policy accumulates.
        real_share: share of real items, for ``mix`` and ``fresh-mix`` only.
        real_data: which real items a chain knows, if generations start anew (`TaskSpec.starts_anew`). ``per-seed``: its
            seed draws them from the training split. ``shared``: they are drawn once, and all seeds know the same in the
            same order.
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


LARGEST_SEED = 2**31 - 1
DIGITS = 16  # of a digest, where one is named


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
        if self.policy.real_data == "shared" and not self.starts_anew:
            raise ValueError("policy.real_data: without base or init: scratch all seeds know the same; leave it out")
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
    def starts_anew(self) -> bool:
        """Whether every generation starts from fresh weights, or from a base model that is shipped with the task.

        Then each chain knows only as much real data as a generation trains on.
        """
        return self.init == "scratch" or self.base is not None

    @property
    def symbols(self) -> bool:
        """Whether elements are symbols, whose p is a probability; otherwise p is a density."""
        return self.kind.symbols(self.workload)

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
