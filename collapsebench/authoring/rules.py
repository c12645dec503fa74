"""The rules of a ranked task, checked on the calibration of cross entropy, the control and the base model.

The limits were fixed before any other method was run on a task. ``docs/adding-a-task.md`` explains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

import numpy as np
import pandas as pd

from collapsebench.authoring.calibration_record import CONFIDENT, Record, Rule
from collapsebench.methods import CONTROL
from collapsebench.scoring.fidelity import ALL, Array, Scale, unclipped_fidelity
from collapsebench.scoring.power import detectable
from collapsebench.scoring.table import score_methods
from collapsebench.task_spec import TaskSpec

DECAY = (0.3, 0.7)  # mFI / G of cross entropy under policy replace
BELOW_CONTROL = 0.9  # share of the control's mFI, under the other policies
CONTROL_RANGE = (0.95, 1.05)
AWAKE = 0.1  # share of training elements with p > 0.9
SEEDS = 10
NOISE = 0.02  # standard deviation over seeds, in f
DETECTABLE = 0.05  # share of cross entropy's mFI
BETTER = 0.01  # advantage of another setting, in f
CELL_SECONDS, CELL_SECONDS_IN_STEPS = 120.0, 240.0  # images that are drawn in many steps take longer


@dataclass(frozen=True)
class Measured:
    """A record in the form used by the rules.

    Attributes:
        spec: the task. record: its calibration record.
    """

    spec: TaskSpec
    record: Record

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """Scales of the scored metrics."""
        return self.record.scales(self.spec)

    @cached_property
    def fidelities(self) -> pd.DataFrame:
        """Fidelities of the scored metrics, not clipped: method, seed, metric, generation, value, fidelity."""
        frame = self.record.frame()
        parts = [
            mine.assign(
                fidelity=unclipped_fidelity(mine["value"].to_numpy(float), scale, mine["generation"].to_numpy(int))
            )
            for name, scale in self.scales.items()
            if len(mine := frame[frame["metric"] == name])
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Mean fidelities over seeds: method, metric, generation, fidelity."""
        by = ["method", "metric", "generation"]
        return self.fidelities.groupby(by)[["fidelity"]].mean().reset_index()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores as in every comparison, from `collapsebench.scoring.seed_scores.seed_scores`."""
        raw = self.fidelities.drop(columns="fidelity").assign(status="ok")
        return score_methods(raw, self.scales, self.spec.horizon).scores

    def mfi(self, method: str, metric: str = ALL) -> Array:
        """mFI of a method by seed, in its binding metric or a given one."""
        mine = self.scores[(self.scores["method"] == method) & (self.scores["metric"] == metric)]
        return mine["mfi"].to_numpy(float)

    def variances(self, method: str, metric: str) -> pd.Series:
        """Variance over seeds of a method's fidelities in one metric, by generation; NaN with one seed."""
        frame = self.fidelities
        mine = frame[(frame["method"] == method) & (frame["metric"] == metric)]
        return mine.groupby("generation")["fidelity"].var(ddof=1)

    @property
    def control_at_start(self) -> list[float]:
        """Mean fidelities of the control on generation 0's references, in metrics with later references."""
        frame = self.fidelities[self.fidelities["method"] == CONTROL]
        means = frame.groupby(["metric", "generation"])["value"].mean()
        own = {name: replace(scale, later=()) for name, scale in self.scales.items() if scale.later}
        return [float(f) for name, scale in own.items() for f in unclipped_fidelity(means[name].to_numpy(float), scale)]

    @cached_property
    def binding(self) -> str:
        """The binding metric of cross entropy."""
        mine = self.scores[(self.scores["method"] == "ce") & (self.scores["metric"] == ALL)]
        return str(mine["binds"].iloc[0])


def rules_of(spec: TaskSpec, record: Record) -> tuple[Rule, ...]:
    """The outcome of every rule that ce, the control and the base model can decide."""
    measured = Measured(spec, record)
    rules = [
        _learning(measured),
        _decay(measured),
        _control(measured),
        *_awake(measured),
        _seeds(measured),
        *_noise(measured),
        _detectable(measured),
        _at_its_best(measured),
        *_cheap(measured),
    ]
    return tuple(rules)


def learns_everywhere(spec: TaskSpec) -> bool:
    """Whether a loss that learns nothing ends where it started, or every generation gets new real data."""
    return spec.init != "previous" or spec.policy.name == "regenerate-fresh"


def _learning(measured: Measured) -> Rule:
    """Every generation must learn; the scale runs from a model that learned nothing to cross entropy."""
    spec, broken = measured.spec, []
    if not learns_everywhere(spec):
        broken.append(f"init: {spec.init} under policy {spec.policy.name} lets a loss that learns nothing keep all")
    told = []
    for name, scored in measured.record.scored.items():
        reference, floor = float(scored.reference or 0), float(scored.floor or 0)
        lower = spec.metric(name).direction == "lower"
        for one in (reference, *(scored.later or ())):
            if (one >= floor) if lower else (one <= floor):
                broken.append(f"the reference of {name} is worse than its floor ({one:g}, {floor:g})")
        told.append(f"{name} {floor:g} to {reference:g}")
    what = "the base model has fidelity 0" if spec.init == "base" else f"init: {spec.init}"
    return Rule(rule="learning", kept=not broken, told=f"learning: {'; '.join(broken or [what, *told])}")


def _decay(measured: Measured) -> Rule:
    """Fidelity must fall gradually: neither at once nor hardly at all."""
    horizon = measured.spec.horizon
    ce, control = (float(measured.mfi(method).mean()) for method in ("ce", CONTROL))
    told = f"decay: mFI / G of ce {ce / horizon:.3f} ({measured.binding} binds), of the control {control / horizon:.3f}"
    if measured.spec.policy.name == "replace":
        low, high = DECAY
        kept = low <= ce / horizon <= high
        return Rule(rule="decay", kept=kept, told=f"{told}; the rule asks for {low:g} to {high:g} of ce")
    kept = DECAY[0] * horizon <= ce <= BELOW_CONTROL * control
    share = 1 - ce / control if control > 0 else 0.0
    return Rule(rule="decay", kept=kept, told=f"{told}; ce is {share:.1%} below, the rule asks for a tenth")


def _control(measured: Measured) -> Rule:
    """The loss of fidelity must be collapse and not over-training.

    If the references are the control's own, its fidelity is 1 by definition. It is then measured on the reference of
    generation 0: as its training sets grow it may improve, but must not get worse.
    """
    means = measured.curves[measured.curves["method"] == CONTROL]["fidelity"]
    low, high = float(means.min()), float(means.max())
    kept = low >= CONTROL_RANGE[0] and high <= CONTROL_RANGE[1]
    told = f"control: mean fidelity {low:.3f} to {high:.3f} over metrics and generations; the rule asks for "
    told += f"{CONTROL_RANGE[0]} to {CONTROL_RANGE[1]}"
    if grown := measured.control_at_start:
        kept = kept and min(grown) >= CONTROL_RANGE[0]
        told += f"; {min(grown):.3f} to {max(grown):.3f} by the references of generation 0, where it has its own later"
    return Rule(rule="control", kept=kept, told=told)


def _awake(measured: Measured) -> Iterator[Rule]:
    """There must be elements of which the model is confident, since losses against collapse act on these."""
    if not measured.spec.symbols:
        return
    frame = measured.record.frame()
    mine = frame[(frame["metric"] == CONFIDENT) & (frame["method"] == "ce")].groupby("generation")["value"].mean()
    if not len(mine):
        yield Rule(rule="awake", kept=False, told="awake: the share of elements with p > 0.9 was not measured")
        return
    by_generation = " ".join(f"{share:.1%}" for share in mine)
    told = f"awake: {by_generation} of the training elements have p > 0.9 under ce, by generation"
    yield Rule(
        rule="awake", kept=bool(mine.iloc[0] >= AWAKE), told=f"{told}; the rule asks for {AWAKE:.0%} at generation 0"
    )


def _seeds(measured: Measured) -> Rule:
    n, values = len(measured.spec.seeds), measured.fidelities
    complete = all(set(values[values["method"] == m]["seed"]) == set(measured.spec.seeds) for m in ("ce", CONTROL))
    missing = "" if complete else ", not all of them measured on ce and the control"
    told = f"seeds: {n} official ones{missing}; the rule asks for {SEEDS}"
    return Rule(rule="seeds", kept=n >= SEEDS and complete, told=told)


def _noise(measured: Measured) -> Iterator[Rule]:
    """Noise between seeds must be small; it is the control's variance over seeds, averaged over the generations.

    The control repeats generation 0, which is also cross entropy's. In cross entropy's own later generations, recursion
    amplifies noise, which is not a property of the metric; their largest deviation is only reported.
    """
    for name in measured.scales:
        noise = float(np.sqrt(measured.variances(CONTROL, name).mean()))
        largest = float(np.sqrt(measured.variances("ce", name).max()))
        yield Rule(
            rule=f"noise {name}",
            kept=noise <= NOISE,  # false for NaN, which occurs with one seed
            told=f"noise: standard deviation of {name} over seeds {noise:.4f} in f (ce at most {largest:.4f}); the "
            f"rule asks for at most {NOISE:g}",
        )


def _detectable(measured: Measured) -> Rule:
    """The smallest difference that a planned comparison detects, before there is another method to compare.

    Two independent chains differ by √2 times the deviation of one. Methods share initial weights, data and noise, but
    their samples differ from generation 0 on: on text, pairing does not reduce the deviation.
    """
    mfi = measured.mfi("ce")
    told = "detectable: needs two seeds"
    if len(mfi) < 2:
        return Rule(rule="detectable", kept=False, told=told)
    found = detectable(float(np.sqrt(2) * mfi.std(ddof=1)), len(mfi), float(mfi.mean()))
    share = float("inf") if found.share is None else found.share
    return Rule(
        rule="detectable",
        kept=share <= DETECTABLE,
        told=f"detectable: with {len(mfi)} seeds a difference of mFI of at most {found.difference:.3f} generations, "
        f"{share:.1%} of ce's {mfi.mean():.3f}, is found with 80 % power (deviation √2 · "
        f"{mfi.std(ddof=1):.4f}); the rule asks for {DETECTABLE:.0%}",
    )


def grid_fidelities(measured: Measured) -> dict[tuple[float, float], float]:
    """Fidelity of every setting at generation 0 on the selection split, where the chosen setting has 1.

    Keys are the factors of learning rate and length. A setting that diverges in any seed has 0.
    """
    grid = measured.record.grid
    if grid is None:
        return {}
    values = {(t.rate, t.length): [v for v in t.values if v is not None] for t in grid.tried}
    chosen = fmean(values[1.0, 1.0])
    scale = Scale(chosen, measured.record.floors[grid.metric], measured.spec.metric(grid.metric).scale)
    return {
        key: float(unclipped_fidelity(fmean(found), scale)) if len(found) == len(grid.seeds) else 0.0
        for key, found in values.items()
    }


def _at_its_best(measured: Measured) -> Rule:
    """Cross entropy must be well tuned; otherwise a loss could win by regularising, or by learning more."""
    fidelities, grid = grid_fidelities(measured), measured.record.grid
    if grid is None:
        return Rule(rule="best", kept=False, told="best: other learning rates and lengths of training were not tried")
    best = max(fidelities, key=lambda key: fidelities[key])
    return Rule(
        rule="best",
        kept=fidelities[best] - 1 <= BETTER,
        told=f"best: of {len(fidelities)} settings, learning rate × {best[0]:g} and length × {best[1]:g} is the best, "
        f"{fidelities[best] - 1:+.4f} in f of {grid.metric} at generation 0, mean of "
        f"{len(grid.seeds)} seeds; the rule asks for at most +{BETTER:g}",
    )


def _cheap(measured: Measured) -> Iterator[Rule]:
    """Cells must be cheap; the fastest cell counts, since other processes disturbed it least."""
    totals = sorted(s.total for s in measured.record.seconds if s.method == "ce")
    if measured.spec.tier != "micro" or not totals:
        return
    kind = measured.spec.kind
    in_steps = kind.samples == "images" and kind.steps is not None
    allowed = CELL_SECONDS_IN_STEPS if in_steps else CELL_SECONDS
    yield Rule(
        rule="cheap",
        kept=totals[0] <= allowed,
        told=f"cheap: a cell of ce takes {totals[0]:.1f} s where nothing disturbs it (the quickest; median "
        f"{totals[len(totals) // 2]:.1f} s); the rule asks for at most {allowed:g} s",
    )
