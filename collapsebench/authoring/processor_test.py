"""Tests whether a task gives the same results on other CPUs: reruns cells with an old CPU's vector instructions.

Run as ``python -m collapsebench.authoring.processor_test TASK --out DIR``; it resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

import collapsebench
from collapsebench.authoring.calibration_record import Rule
from collapsebench.errors import CollapsebenchError, RunError, UserError
from collapsebench.files import write_atomically
from collapsebench.methods import BASELINES
from collapsebench.publishing.submission import Measured, raw_frame
from collapsebench.publishing.validation import published_entries
from collapsebench.publishing.verify import relative_difference, within
from collapsebench.running.results import cells_of, raw_metrics
from collapsebench.scoring.columns import records
from collapsebench.scoring.fidelity import DIVERGED
from collapsebench.scoring.scales import score_raw
from collapsebench.scoring.table import RATIO_BASELINES, SeedTable, ranked_table
from collapsebench.task import PROCESSOR_FILE, Task, load_task

# SSE 4.2 (2008): no AVX, no fused multiply-add. torch's own kernels, MKL and oneDNN are limited separately.
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
COMPARED = (0, 1)  # generations whose raw metrics must agree; later ones amplify rounding
MOVED = 1.0  # limit in standard deviations over seeds of cross entropy's mFI
_KEY = ["method", "seed", "generation", "metric"]


@dataclass(frozen=True)
class Outcome:
    """The same cells on two kinds of CPU.

    Attributes:
        task: the task. here, there: raw metrics from `collapsebench.running.results.raw_metrics`; `there` with the old
            CPU's instructions.
    """

    task: Task
    here: pd.DataFrame
    there: pd.DataFrame

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The ranking on either CPU, by method."""
        horizon = self.task.spec.horizon
        return {
            where: ranked_table(score_raw(self.task, raw).scores, horizon).set_index("method")
            for where, raw in (("here", self.here), ("there", self.there))
        }

    @cached_property
    def moved(self) -> dict[str, float]:
        """Cross entropy's mean mFI on both CPUs, its deviation over seeds here, and the difference in deviations."""
        here, there = (SeedTable.of(score_raw(self.task, raw).scores).row("ce") for raw in (self.here, self.there))
        assert here is not None
        assert there is not None
        deviation = float(here.std(ddof=1)) if len(here) > 1 else float("nan")
        difference = float(there.mean() - here.mean())
        moved = abs(difference) / deviation if deviation else (0.0 if difference == 0 else float("inf"))
        return {"here": float(here.mean()), "there": float(there.mean()), "deviation": deviation, "moved": moved}

    def verdicts(self) -> list[dict[str, Any]]:
        """Verdicts of every method against the baselines on both CPUs, and whether the sign changed."""
        found = []
        for method in self.tables["here"].index:
            for baseline in RATIO_BASELINES:
                here, there = (self.tables[where].loc[method].get(f"verdict_{baseline}") for where in ("here", "there"))
                if isinstance(here, str) and isinstance(there, str):
                    row = {"method": str(method), "baseline": baseline, "here": here, "there": there}
                    found.append(row | {"reversed": {here, there} == {"better", "worse"}})
        return found

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Differences of raw metrics in the first generations: method, seed, generation, metric, relative, within."""
        early = [raw[raw["generation"].isin(COMPARED)] for raw in (self.here, self.there)]
        both = early[0].merge(early[1], on=_KEY, how="outer", suffixes=("_here", "_there"))
        both = both[(both["status_here"] != DIVERGED) | (both["status_there"] != DIVERGED)]
        rows = []
        for row in records(both):
            here, there = (_measured(row, where) for where in ("here", "there"))
            fine = here is not None and there is not None and within(self.task, row["metric"], there, here)
            size = relative_difference(there, here)
            relative = float("inf") if size is None else size
            rows.append({**{key: row[key] for key in _KEY}, "relative": relative, "within": fine})
        return pd.DataFrame(rows)

    def rules(self) -> tuple[Rule, ...]:
        """The parts of rule 7, each met or not."""
        ce, verdicts = self.moved, self.verdicts()
        turned = [f"{v['method']} against {v['baseline']}" for v in verdicts if v["reversed"]]
        everything = self.differences
        early = everything[everything["metric"].isin(self.task.spec.scored)]
        beyond, profile = early[~early["within"]], everything[~everything["within"]]["metric"]
        others = sorted(set(profile) - set(self.task.spec.scored))
        worst = early.sort_values("relative", ascending=False).iloc[0]
        tolerance = self.task.spec.checks.tolerance
        names = f" ({', '.join(sorted(set(beyond['metric'])))})" if len(beyond) else ""
        return (
            Rule(
                rule="elsewhere mfi",
                kept=ce["moved"] <= MOVED,  # false for NaN, which occurs with one seed
                told=f"elsewhere: mFI of ce {ce['here']:.4f} here, {ce['there']:.4f} on the old processor, moved by "
                f"{ce['moved']:.2f} standard deviations over seeds ({ce['deviation']:.4f}); the rule asks for at most "
                f"{MOVED:g}",
            ),
            Rule(
                rule="elsewhere verdicts",
                kept=not turned,
                told=f"elsewhere: {len(turned)} of {len(verdicts)} verdicts change their sign"
                + (f" ({', '.join(turned)})" if turned else ""),
            ),
            Rule(
                rule="elsewhere values",
                kept=beyond.empty,
                told=f"elsewhere: {len(beyond)} of {len(early)} scored values in generations 0 and 1 are beyond the "
                f"tolerance of {tolerance:g}{names}; the largest difference is {worst['relative']:.2g}, "
                f"{worst['metric']} of {worst['method']} seed {worst['seed']} in generation {worst['generation']}"
                + (f". Not scored and beyond it: {', '.join(others)}" if others else ""),
            ),
        )

    def lines(self) -> list[str]:
        """The outcome as readable text."""
        told = [
            f"  {v['method']:<10} against {v['baseline']:<4} {v['here']:<7} here, {v['there']} on the old processor"
            for v in self.verdicts()
        ]
        return [f"{self.task.id}: {len(self.here['seed'].unique())} seeds", *told, *map(str, self.rules())]

    def write(self) -> Path:
        """Write processor.json next to the task file."""
        mfi = {where: {str(m): float(x) for m, x in table["mfi"].items()} for where, table in self.tables.items()}
        content = {
            "task": self.task.id,
            "sha256": self.task.sha256,
            "instructions": OLD_PROCESSOR,
            "seeds": sorted(int(seed) for seed in self.here["seed"].unique()),
            "ce": self.moved,
            "mfi": mfi,
            "verdicts": self.verdicts(),
            "rules": [rule.model_dump() for rule in self.rules()],
        }
        file = self.task.path.parent / PROCESSOR_FILE
        write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return file


def _measured(row: dict[str, Any], where: str) -> Measured | None:
    value, n = row[f"value_{where}"], row[f"n_{where}"]
    return None if value is None or n is None else Measured(value=float(value), n=int(n))


def run_there(task: Task, methods: Sequence[str], seeds: Sequence[int], out: Path) -> None:
    """Run the missing cells in processes limited to the old instructions.

    Raises:
        RunError: the cells failed, or the libraries cannot avoid this CPU's newer instructions.
    """
    root = Path(collapsebench.__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    environment = os.environ | OLD_PROCESSOR | {"PYTHONPATH": path}
    told = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    asked = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    if asked.stdout.strip() != "DEFAULT":
        raise RunError(f"torch still uses {asked.stdout.strip()}, so this test would say nothing on this machine.")
    command = [sys.executable, "-m", "collapsebench", "compare", str(task.path), "--methods", ",".join(methods)]
    command += ["--seeds", ",".join(map(str, seeds)), "--out", str(out), "--device", "cpu"]
    if code := subprocess.run(command, env=environment, check=False).returncode:
        raise RunError(f"the runs with the old instructions ended with exit code {code}; what finished is kept.")


def read_runs(task: Task, methods: Sequence[str], seeds: Sequence[int], out: Path) -> pd.DataFrame:
    """Raw metrics of finished cells.

    Raises:
        UserError: some are missing.
    """
    cells = [cell for cell in cells_of(out / task.id, None, seeds) if cell["label"] in methods]
    return _complete(raw_metrics(cells, task.spec.horizon), task, methods, seeds, str(out))


def read_published(task: Task, methods: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """Raw metrics of the committed submissions.

    Raises:
        UserError: some are missing.
    """
    entries = [e for e in published_entries(tasks={task.id: task}) if e.task_id == task.id and e.name in methods]
    replaced = {entry.supersedes for entry in entries}
    frames = [raw_frame(entry.submission) for entry in entries if entry.digest not in replaced]
    raw = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*_KEY, "value", "n", "status"])
    return _complete(raw[raw["seed"].isin(seeds)], task, methods, seeds, "the committed submissions")


def _complete(raw: pd.DataFrame, task: Task, methods: Sequence[str], seeds: Sequence[int], where: str) -> pd.DataFrame:
    """Return the frame if every cell reaches the last generation or has diverged."""
    ended = raw[(raw["generation"] == task.spec.horizon) | (raw["status"] == DIVERGED)]
    there = set(zip(ended["method"], ended["seed"], strict=True))
    missing = [f"{method} seed {seed}" for seed in seeds for method in methods if (method, seed) not in there]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} cell(s) of {task.id}, such as {missing[0]}. Run them with `collapsebench "
            f"compare {task.argument} --out DIR` and give --here DIR."
        )
    return raw


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m collapsebench.authoring.processor_test", description=__doc__)
    parser.add_argument("task", help="a registered task or the path of a task.yaml")
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs with the old instructions")
    parser.add_argument("--here", type=Path, help="directory of ordinary runs; the committed submissions when absent")
    parser.add_argument("--methods", default=",".join(BASELINES), help="comma-separated; ce is needed")
    parser.add_argument("--seeds", help="comma-separated; the official ones when absent")
    parser.add_argument("--write", action="store_true", help=f"write {PROCESSOR_FILE} beside the task file")
    return parser.parse_args()


def _tested(given: argparse.Namespace) -> Outcome:
    """Run the missing cells, and compare."""
    task, methods = load_task(given.task), given.methods.split(",")
    task.require_scale()
    try:
        seeds = [int(seed) for seed in given.seeds.split(",")] if given.seeds else list(task.spec.seeds)
    except ValueError:
        raise UserError(f"--seeds {given.seeds} is not allowed; give integers such as 0,1,2.") from None
    if "ce" not in methods:
        raise UserError(f"--methods {given.methods} is not allowed: ce, whose mFI must not move, is needed.")
    if given.here is not None and given.here.resolve() == given.out.resolve():
        raise UserError(f"--here and --out are both {given.out}: the runs to compare need a directory each.")
    if given.write and seeds != list(task.spec.seeds):
        raise UserError("--write records the test on the official seeds: give it without --seeds.")
    here = read_published(task, methods, seeds) if given.here is None else read_runs(task, methods, seeds, given.here)
    run_there(task, methods, seeds, given.out)
    return Outcome(task, here, read_runs(task, methods, seeds, given.out))


def main() -> None:
    """The command line of this module; exits with 1 if the task does not meet the rule."""
    given = _arguments()
    try:
        outcome = _tested(given)
        print("\n".join(outcome.lines()))
        if given.write:
            print(f"wrote {outcome.write()}")
    except CollapsebenchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    if not all(rule.kept for rule in outcome.rules()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
