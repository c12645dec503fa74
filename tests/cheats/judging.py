"""Cheats against cross entropy on a task: who learns less loses, who is the same ties, no leak pays (rule 2)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from collapsebench.api import prepare
from collapsebench.errors import UserError
from collapsebench.methods import load_method
from collapsebench.publishing.submission import SeedResult
from collapsebench.publishing.submit import seed_result
from collapsebench.publishing.verify import within
from collapsebench.running.cells import Cell
from collapsebench.running.engines import Engine
from collapsebench.running.isolated import Named, run_isolated
from collapsebench.running.progress import Listener, silent
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.statistics import paired_difference, paired_t, two_sided_p
from collapsebench.task import Task, load_task, registered_tasks

HERE = Path(__file__).parent
LEVEL = 0.05
EQUAL = 0.02  # of cross entropy's mFI: an equivalent whose whole interval is closer is equal, however sure the test is
Group = Literal["learns less", "equivalent", "leak", "distortion"]


@dataclass(frozen=True)
class Cheat:
    """A loss, and the part of the rule that it is judged by.

    Attributes:
        loss: file and class in this folder, with parameters. group: decides what is expected.
    """

    loss: str
    group: Group

    @property
    def spec(self) -> str:
        return str(HERE / self.loss)


CHEATS = (
    *(
        Cheat(f"learning_less.py:{name}", "learns less")
        for name in ("Frozen", "EveryTenthStep", "StopsAfterATenth", "ConstantAwful", "Noise")
    ),
    Cheat("anchors.py:Anchored", "learns less"),
    Cheat("equivalents.py:Times:factor=0.25", "equivalent"),
    Cheat("equivalents.py:Times:factor=4", "equivalent"),
    *(
        Cheat(f"leaks.py:{name}", "leak")
        for name in (
            "PromptsFourfold", "GraphWalker", "MemoryOnClass", "MemoryOnTorch", "MemoryInFile",
            "Table", "TableInText", "TableInDigits", "TableInManyParameters",
        )
    ),
    *(Cheat(f"distortions.py:Tempered:tau={tau}", "distortion") for tau in (0.8, 0.95, 1.05, 1.25)),
    *(Cheat(f"odds.py:TemperedOdds:tau={tau}", "distortion") for tau in (0.8, 0.95, 1.05, 1.25)),
    Cheat("distortions.py:Memorises", "distortion"),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The outcome of a cheat on a task.

    Attributes:
        cheat: which. outcome: ``refused``, ``better``, ``worse``, ``tied``, or ``caught``: better, and found out by a
            verification. told: the reason of a refusal, or the verification's largest difference.
        mfi, difference, low, high: mean mFI, and the paired difference to cross entropy with its 95 % interval, in
            generations; None where it was refused. p: of the paired t-test.
        novelty: of the last generation's samples, mean over seeds, where the task measures it.
    """

    cheat: Cheat
    outcome: Literal["refused", "better", "worse", "tied", "caught"]
    told: str = ""
    mfi: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    novelty: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the rule holds for a verdict; None if the rule does not apply."""
        expected = {
            "learns less": ("refused", "worse"),
            "equivalent": ("tied",),
            "leak": ("refused", "worse", "tied", "caught"),
        }
        return None if self.cheat.group == "distortion" else self.outcome in expected[self.cheat.group]


@dataclass(frozen=True)
class Judgement:
    """All verdicts on a task.

    Attributes:
        task: which. seeds: number of them. mfi, novelty: cross entropy's, as in `Verdict`.
    """

    task: Task
    seeds: int
    mfi: float
    novelty: float | None
    verdicts: list[Verdict]


def ranked_micro_tasks() -> Iterator[Task]:
    """The registered tasks whose entries are ranked and whose cells take minutes."""
    for name in registered_tasks():
        task = load_task(name)
        if task.spec.tier == "micro" and task.spec.retired is None and task.calibrated:
            yield task


def judge(
    task: Task, out: Path, seeds: Sequence[int], generations: int, engine: Engine = "auto", listener: Listener = silent
) -> Judgement:
    """Run what is missing of cheats × seeds and of cross entropy, and judge the cheats.

    Args:
        out: directory of the runs; finished generations are reused. generations: the last one.
    """
    kind = task.spec.workload.kind
    refused: dict[Cheat, Verdict] = {}
    for cheat in CHEATS:
        try:
            load_method(cheat.spec, kind)
        except UserError as error:
            refused[cheat] = Verdict(cheat, "refused", str(error))
    playing = [cheat for cheat in CHEATS if cheat not in refused]
    methods = {cheat: load_method(cheat.spec, kind) for cheat in playing}
    trial = prepare(task, ["ce", *methods.values()], seeds, out, generations, "cpu")
    trial.run(engine, listener)
    compared = trial.comparison()
    novelty = _novelty(compared.raw)
    mfi = compared.scores[compared.scores["metric"] == ALL].pivot(index="method", columns="seed", values="mfi")
    ce = mfi.loc["ce"].to_numpy(float)
    verdicts = []
    for cheat in CHEATS:
        if cheat in refused:
            verdicts.append(refused[cheat])
            continue
        name = methods[cheat].name
        found = _scored(cheat, mfi.loc[name].to_numpy(float), ce, novelty.get(name))
        if found.outcome == "better" and cheat.group == "leak":
            cells = [cell for cell in trial.cells if cell.method.name == name and cell.seed == seeds[0]]
            found = verified(found, cells[0])
        verdicts.append(found)
    return Judgement(task, len(seeds), float(ce.mean()), novelty.get("ce"), verdicts)


def _novelty(raw: pd.DataFrame) -> dict[str, float]:
    """Novelty of the samples of the last generation by method, where it is measured."""
    found = raw[raw["metric"] == "novelty"]
    last = found[found["generation"] == found["generation"].max()]
    return {str(name): float(value) for name, value in last.groupby("method")["value"].mean().items()}


def _scored(cheat: Cheat, ours: np.ndarray, ce: np.ndarray, novelty: float | None) -> Verdict:
    t, n = paired_t(ours[None], ce)
    p = float(two_sided_p(t, n)[0])
    found = paired_difference(ours, ce)
    if found.estimate is None or found.low is None or found.high is None:
        raise UserError("one seed tells nothing: give two or more.")
    outcome: Literal["better", "worse", "tied"] = "tied"
    equal = cheat.group == "equivalent" and max(-found.low, found.high) <= EQUAL * ce.mean()
    if p < LEVEL and not equal:
        outcome = "better" if found.estimate > 0 else "worse"
    return Verdict(
        cheat, outcome, "", float(ours.mean()), found.estimate, found.low, found.high, p, novelty
    )  # fmt: skip


def verified(found: Verdict, cell: Cell) -> Verdict:
    """The verdict on a leak with an advantage: whether isolated generations detect it."""
    method, file = cell.method, Path(found.cheat.spec.split(":")[0])
    named = Named(found.cheat.spec, file, method.parameters, method.source_sha256, method.track)
    with tempfile.TemporaryDirectory() as folder:
        alone = Cell(cell.task, method, cell.seed, Path(folder), 1, cell.device)
        run_isolated(alone, named, silent)
        there, here = (
            SeedResult.model_validate(seed_result(c.directory, c.seed, 1)).generations[1].metrics for c in (cell, alone)
        )
    differing = [name for name in there if not within(cell.task, name, there[name], here[name])]
    if not differing:
        return found
    return Verdict(**{**vars(found), "outcome": "caught", "told": f"verify differs in {', '.join(differing)}"})
