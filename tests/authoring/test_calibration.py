"""Calibration: what the scale is measured on, what the rules say, that nothing is scored on another task's scale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import collapsebench, python, with_methods
from tiny_task import BASED, write_bars, write_based_task, write_tiny_task

from collapsebench.authoring.calibration_record import Record
from collapsebench.authoring.rules import rules_of
from collapsebench.running.artifacts import RunDirectory
from collapsebench.task import load_task, registered_tasks

GRID = {(rate, length) for rate in (0.5, 1.0, 2.0) for length in (0.5, 1.0, 2.0)}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task that starts from a base model, calibrated, and its runs; not to be changed."""
    folder = tmp_path_factory.mktemp("calibrated")
    task = write_based_task(folder / "task")
    before = task.read_bytes()
    refused = collapsebench("calibrate", task, "--write", "--device", "cpu", cwd=folder)
    assert refused.code == 1
    assert "error: nothing was written: tiny-based@1 breaks rules of a ranked task (" in refused.err
    assert "--write --force" in refused.err
    assert (task.read_bytes(), (folder / "task" / "calibration.json").exists()) == (before, False)
    finished = collapsebench("calibrate", task, "--write", "--force", "--device", "cpu", cwd=folder)
    assert finished.code == 0, finished.err
    assert "measuring the untouched base model" in finished.err
    return folder


@pytest.fixture
def workplace(calibrated: Path, tmp_path: Path) -> Path:
    """A copy of that folder to work in."""
    return Path(shutil.copytree(calibrated, tmp_path / "work"))


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "calibration.json").read_text("utf-8"))


def changed(task: Path, **changes: Any) -> None:
    content = yaml.safe_load(task.read_text("utf-8"))
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[key] = value
    task.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def moved_runs(workplace: Path) -> None:
    """Let copied runs name the copy of the task."""
    for file in workplace.glob("runs/*/*/*/run.json"):
        content = json.loads(file.read_text("utf-8")) | {"task_file": str(workplace / "task" / "task.yaml")}
        file.write_text(json.dumps(content), "utf-8")


# What is measured


def test_floor_is_what_the_untouched_base_model_has_and_reference_what_ce_learns(calibrated: Path) -> None:
    record = record_of(calibrated / "task")
    scored = load_task(calibrated / "task" / "task.yaml").spec.scored["nll_per_byte"]
    assert len(record["base"]["nll_per_byte"]) == 1, "a loss on real text does not depend on the seed"
    assert scored.floor == float(f"{record['base']['nll_per_byte'][0]:.6g}")
    firsts = [
        RunDirectory(calibrated / f"runs/tiny-based@1/ce/seed-{seed}").read(0, "metrics.json")["metrics"]
        for seed in (0, 1)
    ]
    mean = sum(metrics["nll_per_byte"]["value"] for metrics in firsts) / 2
    assert scored.reference == float(f"{mean:.6g}")
    assert scored.reference < scored.floor


def test_record_holds_every_seed_its_engagement_and_what_it_was_measured_on(calibrated: Path) -> None:
    record, task = record_of(calibrated / "task"), load_task(calibrated / "task" / "task.yaml")
    rows = {(row["method"], row["seed"], row["metric"]): row["values"] for row in record["values"]}
    for method in ("ce", "control"):
        for seed in (0, 1):
            store = RunDirectory(calibrated / "runs" / task.id / method / f"seed-{seed}")
            found = [store.read(g, "metrics.json") for g in range(3)]
            metrics = [f["metrics"]["nll_per_byte"]["value"] for f in found]
            assert rows[method, seed, "nll_per_byte"] == metrics
            assert rows[method, seed, "confident_elements"] == [f["engagement"]["confident_elements"] for f in found]
    assert record["sha256"] == task.sha256
    assert "torch" in record["circumstances"][0]["packages"]
    assert {s["method"] for s in record["seconds"]} == {"ce", "control"}
    assert all({"train", "sample", "evaluate"} <= s["phases"].keys() for s in record["seconds"])
    assert task.spec.calibrated_on is not None
    assert record["data_sha256"].startswith(task.spec.calibrated_on.data)


def test_grid_tries_other_settings_of_one_and_the_same_task(calibrated: Path) -> None:
    grid = record_of(calibrated / "task")["grid"]
    assert grid["metric"] == "selection_perplexity"
    assert {(tried["rate"], tried["length"]) for tried in grid["tried"]} == GRID
    assert {tried["length"]: tried["epochs"] for tried in grid["tried"]} == {0.5: 2, 1.0: 4, 2.0: 8}
    assert all(len(tried["values"]) == len(grid["seeds"]) == 2 for tried in grid["tried"])
    folder = calibrated / "runs" / "calibration" / "grid" / "rate-2-length-0.5"
    about = json.loads((folder / "tiny-based@1" / "ce" / "seed-1" / "run.json").read_text("utf-8"))
    assert about["task"]["id"] == "tiny-based@1"
    training = load_task(folder / "task.yaml").spec.workload.training.first
    assert (training.learning_rate, training.epochs) == (2.0e-2, 2)


def test_runs_of_the_grid_are_not_scored(workplace: Path) -> None:
    finished = collapsebench("score", "runs", cwd=workplace)
    assert finished.code == 0, finished.err
    assert finished.out.count("tiny-based@1, not ranked, generations") == 1


def test_calibration_goes_on_where_it_stopped_and_finds_the_same(workplace: Path) -> None:
    before = (workplace / "task" / "calibration.json").read_bytes(), (workplace / "task" / "task.yaml").read_bytes()
    finished = collapsebench("calibrate", "task/task.yaml", "--write", "--force", "--device", "cpu", cwd=workplace)
    assert finished.code == 0, finished.err
    assert "complete" not in finished.err
    after = (workplace / "task" / "calibration.json").read_bytes(), (workplace / "task" / "task.yaml").read_bytes()
    assert after == before


def test_member_of_a_family_starts_from_the_base_model_beside_the_file_it_extends(workplace: Path) -> None:
    member = workplace / "member" / "task.yaml"
    member.parent.mkdir()
    member.write_text("extends: ../task/task.yaml\nname: member\nversion: 1\ntitle: A member\n", "utf-8")
    task = load_task(member)
    assert task.base_weights() == (workplace / "task" / "base.safetensors").resolve()
    assert task.spec.calibrated_on is None, "the scale was measured on the other task"


# What the scale is of


def test_other_settings_are_not_scored_on_the_scale(workplace: Path) -> None:
    changed(workplace / "task" / "task.yaml", **{"workload.training.first.epochs": 5})
    moved_runs(workplace)
    for command in (
        with_methods(Path("task/task.yaml"), "ce", "other"),
        ["score", "runs"],
        ["submit", "runs", "--method", "ce", "--authors", "A. Author", "--yes"],
    ):
        refused = collapsebench(*command, cwd=workplace)
        assert refused.code == 2, refused.out
        assert "the references of tiny-based@1 were measured on other settings" in refused.err
        assert "collapsebench calibrate" in refused.err
    assert not (workplace / "other").exists()
    run = collapsebench("run", "task/task.yaml", "--method", "ce", "--generations", "0", "--out", "raw", cwd=workplace)
    assert run.code == 0, run.err


def test_other_data_is_not_scored_on_the_scale(workplace: Path) -> None:
    task = workplace / "task"
    text = (task / "text.txt").read_text("utf-8")
    (task / "text.txt").write_text(text.replace("mayor", "elder"), "utf-8")
    (task / "splits.json").unlink()
    refused = collapsebench(*with_methods(task / "task.yaml", "ce", "other"), cwd=workplace)
    assert refused.code == 2
    assert "the references of tiny-based@1 were measured on other data" in refused.err
    assert not (workplace / "other").exists(), "nothing is run in vain"


def test_runs_on_other_data_are_not_scored_either(workplace: Path) -> None:
    moved_runs(workplace)
    submit = ("submit", "runs", "--method", "ce", "--authors", "A. Author", "--yes")
    assert collapsebench(*submit, cwd=workplace).code == 0
    validate = ("validate", "submissions", "--task", "task/task.yaml")
    assert collapsebench(*validate, cwd=workplace).code == 0
    changed(workplace / "task" / "task.yaml", **{"calibrated_on.data": "0" * 16})
    for command in (("score", "runs"), submit):
        refused = collapsebench(*command, cwd=workplace)
        assert refused.code == 2
        assert "were measured on other data (0000000000000000…" in refused.err
    refused = collapsebench(*validate, cwd=workplace)
    assert refused.code == 2
    assert "allowed: 0000000000000000…, on which the references of tiny-based@1 were measured [data]" in refused.out


# The rules


FIDELITY = (1.0, 0.6, 0.4)


def sound_values(seeds: range, metric: str, reference: float, floor: float) -> list[dict[str, Any]]:
    """A gradual fall of ce, and a control that stays; all seeds differ a little."""
    rows = []
    for method, curve in (("ce", FIDELITY), ("control", (1.0, 1.0, 1.0))):
        for seed in seeds:
            noise = 0.004 * (seed % 3 - 1)
            values = [floor + (f + noise) * (reference - floor) for f in curve]
            rows.append({"method": method, "seed": seed, "metric": metric, "values": values})
    return rows


def sound_record(task_file: Path) -> dict[str, Any]:
    """The record that calibration would write if every rule were met."""
    task, seeds = load_task(task_file), range(10)
    tried = [
        {
            "rate": r,
            "length": n,
            "learning_rate": r * 0.01,
            "epochs": int(4 * n),
            "values": [20.0 + r, 21.0, 22.0],
        }
        for r, n in sorted(GRID)
    ]
    chosen = next(t for t in tried if (t["rate"], t["length"]) == (1.0, 1.0))
    chosen["values"] = [20.0, 20.5, 21.0]
    confident = [{"method": "ce", "seed": s, "metric": "confident_elements", "values": [0.2, 0.3, 0.4]} for s in seeds]
    return {
        "schema_version": 2,
        "task": task.id,
        "sha256": task.sha256,
        "data_sha256": "5e" * 32,
        "circumstances": [],
        "scored": {
            "nll_per_byte": {"reference": 1.5, "floor": 2.0},
            "next_token_accuracy": {"reference": 0.5, "floor": 0.4},
        },
        "floors": {"nll_per_byte": 2.0, "next_token_accuracy": 0.4, "selection_perplexity": 30.0},
        "base": {"nll_per_byte": [2.0], "next_token_accuracy": [0.4], "selection_perplexity": [30.0]},
        "values": [
            *sound_values(seeds, "nll_per_byte", 1.5, 2.0),
            *sound_values(seeds, "next_token_accuracy", 0.5, 0.4),
            *confident,
        ],
        "grid": {"metric": "selection_perplexity", "seeds": [0, 1, 2], "tried": tried},
        "seconds": [{"method": "ce", "seed": s, "phases": {"train": 60.0, "sample": 20.0 + s}} for s in seeds],
    }


@pytest.fixture
def sound(tmp_path: Path) -> Callable[..., Path]:
    """Write a task and a record that meet every rule, except for a change to the record or the task."""

    def written(change: Callable[[dict[str, Any]], None] = lambda record: None, **of_task: Any) -> Path:
        scored: dict[str, Any] = {
            "nll_per_byte": {"reference": 1.5, "floor": 2.0},
            "next_token_accuracy": {"reference": 0.5, "floor": 0.4},
        }
        settings = BASED["text"] | {"seeds": list(range(10)), "scored": scored} | of_task
        file = write_tiny_task(tmp_path, "text", **settings)
        measured_on = {"settings": load_task(file).sha256[:16], "data": "5e" * 8}
        changed(file, calibrated_on=measured_on)
        content = sound_record(file)
        for name, scale in content["scored"].items():
            first = [v["values"][0] for v in content["values"] if (v["method"], v["metric"]) == ("ce", name)]
            scale["reference"] = float(f"{sum(first) / len(first):.6g}")
        change(content)
        record = Record.model_validate_json(json.dumps(content))
        changed(file, scored={name: s.model_dump() for name, s in record.scored.items()})
        spec = load_task(file).spec
        record.model_copy(update={"rules": rules_of(spec, record)}).write(tmp_path)
        return file

    return written


def test_check_of_a_sound_calibration_runs_nothing_and_succeeds(sound: Callable[..., Path], tmp_path: Path) -> None:
    finished = collapsebench("calibrate", sound(), "--check", cwd=tmp_path)
    assert finished.code == 0, finished.out + finished.err
    assert "BROKEN" not in finished.out
    assert finished.out.count("kept") == 10
    assert "mFI / G of ce 0.649" in finished.out
    assert not (tmp_path / "runs").exists()
    assert load_task(tmp_path / "task.yaml").unranked is None


def scaled(method: str, factor: float, from_generation: int) -> Callable[[dict[str, Any]], None]:
    """Move the NLL of a method towards the floor of 2.0."""

    def change(record: dict[str, Any]) -> None:
        for row in record["values"]:
            if (row["method"], row["metric"]) == (method, "nll_per_byte"):
                row["values"] = [
                    v if g < from_generation else 2 - factor * (2 - v) for g, v in enumerate(row["values"])
                ]

    return change


def noisy(record: dict[str, Any]) -> None:
    for row in record["values"]:
        if row["metric"] == "nll_per_byte":
            row["values"] = [v + 0.02 * (row["seed"] % 3 - 1) for v in row["values"]]


def better_elsewhere(record: dict[str, Any]) -> None:
    record["grid"]["tried"][-1]["values"] = [19.0, 19.5, 20.0]


def sleepy(record: dict[str, Any]) -> None:
    for row in record["values"]:
        if row["metric"] == "confident_elements":
            row["values"] = [0.05, 0.3, 0.4]


def slow(record: dict[str, Any]) -> None:
    for row in record["seconds"]:
        row["phases"]["train"] = 200.0


def without_a_seed(record: dict[str, Any]) -> None:
    record["values"] = [row for row in record["values"] if (row["method"], row["seed"]) != ("control", 9)]


def upside_down(record: dict[str, Any]) -> None:
    record["scored"]["next_token_accuracy"] = {"reference": 0.3, "floor": 0.4}


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "falls at once": (scaled("ce", 0.0, 1), "decay: mFI / G of ce 0.250"),
    "control overtrains": (scaled("control", 1.1, 1), "control: mean fidelity 1.000 to 1.100"),
    "control decays": (scaled("control", 0.9, 2), "control: mean fidelity 0.900 to 1.000"),
    "noise": (noisy, "noise: standard deviation of nll_per_byte"),
    "another rate is better": (better_elsewhere, "best: of 9 settings, learning rate × 2 and length × 2 is the best"),
    "a seed was not measured": (without_a_seed, "seeds: 10 official ones, not all of them"),
    "nothing to leave out": (sleepy, "awake: 5.0% 30.0% 40.0%"),
    "too long": (slow, "cheap: a cell of ce takes 220.0 s"),
    "base is better": (upside_down, "learning: the reference of next_token_accuracy is worse than its floor"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_check_names_a_broken_rule_and_fails(case: str, sound: Callable[..., Path], tmp_path: Path) -> None:
    change, told = BROKEN[case]
    finished = collapsebench("calibrate", sound(change), "--check", cwd=tmp_path)
    assert finished.code == 1, finished.out + finished.err
    assert any(line.startswith("BROKEN") and told in line for line in finished.out.splitlines()), finished.out
    task = load_task(tmp_path / "task.yaml")
    assert task.mark == "not ranked"
    assert task.unranked is not None
    assert told.split(":")[0] in task.unranked


def test_a_task_that_lets_a_loss_learn_nothing_is_not_ranked(sound: Callable[..., Path], tmp_path: Path) -> None:
    task = sound(**{"init": "previous", "base": None})
    finished = collapsebench("calibrate", task, "--check", cwd=tmp_path)
    assert finished.code == 1
    assert "BROKEN  learning: init: previous under policy replace lets a loss that learns nothing keep all" in (
        finished.out
    )


def test_under_other_policies_ce_must_only_stay_below_the_control(sound: Callable[..., Path], tmp_path: Path) -> None:
    mix = {"policy": {"name": "mix", "size": 32, "real_share": 0.1}}
    raised = sound(scaled("ce", 1.5, 1), **mix)
    finished = collapsebench("calibrate", raised, "--check", cwd=tmp_path)
    assert finished.code == 0, finished.out
    assert "ce is 35.0% below, the rule asks for a tenth" in finished.out
    lost = collapsebench("calibrate", sound(scaled("ce", 0.0, 1), **mix), "--check", cwd=tmp_path)
    assert lost.code == 1
    assert "BROKEN  decay: mFI / G of ce 0.250" in lost.out, "neither at once nor hardly at all"


def test_check_holds_the_record_against_the_task_and_against_itself(sound: Callable[..., Path], tmp_path: Path) -> None:
    task = sound()
    changed(task, **{"policy.size": 33})
    other = collapsebench("calibrate", task, "--check", cwd=tmp_path)
    assert other.code == 1
    assert "BROKEN  settings: the record has" in other.out
    changed(task, **{"policy.size": 32, "calibrated_on.data": "0" * 16})
    assert "BROKEN  data: the record has 5e5e5e5e5e5e5e5e…, the task says 0000000000000000…" in (
        collapsebench("calibrate", task, "--check", cwd=tmp_path).out
    )
    changed(task, **{"calibrated_on.data": "5e" * 8})
    for change, problem in (
        (sleepy, "rules: they do not follow from the values of the record"),
        (noisy, "scored: nll_per_byte does not follow from the values of the record"),
    ):
        record = record_of(tmp_path)
        change(record)
        (tmp_path / "calibration.json").write_text(json.dumps(record), "utf-8")
        told = collapsebench("calibrate", task, "--check", cwd=tmp_path)
        assert told.code == 1
        assert f"BROKEN  {problem}" in told.out


def test_check_holds_a_floor_against_the_base_model(sound: Callable[..., Path], tmp_path: Path) -> None:
    def moved(record: dict[str, Any]) -> None:
        record["scored"]["nll_per_byte"]["floor"] = record["floors"]["nll_per_byte"] = 2.1

    finished = collapsebench("calibrate", sound(moved), "--check", cwd=tmp_path)
    assert finished.code == 1
    assert "BROKEN  scored: nll_per_byte does not follow from the values of the record" in finished.out


@pytest.mark.parametrize("content", [None, "{}", '{"task": "tiny-based@1", "curves": []}'])
def test_check_needs_a_record(content: str | None, sound: Callable[..., Path], tmp_path: Path) -> None:
    task = sound()
    (tmp_path / "calibration.json").unlink()
    if content is not None:
        (tmp_path / "calibration.json").write_text(content, "utf-8")
    finished = collapsebench("calibrate", task, "--check", cwd=tmp_path)
    assert finished.code == 2
    assert "calibration.json" in finished.err
    assert "collapsebench calibrate" in finished.err


def test_comparison_on_a_task_that_breaks_a_rule_has_no_ranks_and_says_which(workplace: Path) -> None:
    finished = collapsebench(*with_methods(Path("task/task.yaml"), "ce", "runs"), cwd=workplace)
    assert finished.code == 0, finished.err
    assert "tiny-based@1, not ranked, generations 0–2" in finished.out
    assert "breaks rules of a ranked task (" in finished.out
    assert "seeds" in finished.out
    assert "it is not recorded" not in finished.out
    report = (workplace / "runs" / "tiny-based@1" / "report.html").read_text("utf-8")
    assert "tiny-based@1: comparison, not ranked" in report
    written = json.loads((workplace / "runs" / "tiny-based@1" / "comparison.json").read_text("utf-8"))
    assert "seeds" in written["broken_rules"]
    for command in ("score", "report"):
        assert "breaks rules of a ranked task (" in collapsebench(command, "runs", cwd=workplace).out


def test_references_of_which_nothing_is_known_are_noted_in_every_table(workplace: Path) -> None:
    task = workplace / "task"
    (task / "calibration.json").unlink()
    content = yaml.safe_load((task / "task.yaml").read_text("utf-8"))
    del content["calibrated_on"]
    (task / "task.yaml").write_text(yaml.safe_dump(content), "utf-8")
    finished = collapsebench(*with_methods(Path("task/task.yaml"), "ce", "runs"), cwd=workplace)
    assert finished.code == 0, finished.err
    assert (
        "Note: For tiny-based@1, it is not recorded what its references were measured on or whether it keeps the rules "
        "of a ranked task: `collapsebench calibrate"
    ) in " ".join(finished.out.split())


@pytest.mark.parametrize("name", ["vae-mnist-micro", "gmm-micro", "text-bytes-micro"])
def test_copy_of_a_task_is_refused_with_other_data_until_it_is_calibrated(name: str, tmp_path: Path) -> None:
    """As with the images of Fashion-MNIST on the scale of MNIST."""
    shutil.copytree(registered_tasks()[name].parent, tmp_path / "copy")
    other = {
        "vae-mnist-micro": {"data": {"source": "local-images", "path": "fashion"}},
        "gmm-micro": {"data.scales": [1.0, 2.0]},
        "text-bytes-micro": {"data": {"source": "local", "path": "shakespeare.txt", "documents": "paragraph"}},
    }[name]
    file = tmp_path / "copy" / "task.yaml"
    changed(file, **other)
    write_bars(tmp_path / "copy" / "fashion")
    (tmp_path / "copy" / "shakespeare.txt").write_text("All the world's a stage.\n\n" * 50)
    refused = collapsebench(*with_methods(file, "ce"), cwd=tmp_path)
    assert refused.code == 2
    assert f"the references of {load_task(name).id} were measured on other settings" in refused.err
    assert f"collapsebench calibrate {file} --write" in refused.err
    assert refused.err.count("\n") == 1


# The same elsewhere


@pytest.mark.slow  # five processes that import torch
def test_processor_test_compares_the_same_cells_and_resumes(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path, "gmm")
    compared = collapsebench(*with_methods(task, "ce,tce", "runs"), cwd=tmp_path)
    assert compared.code == 0, compared.err
    program = ("-m", "collapsebench.authoring.processor_test", task, "--methods", "ce,tce", "--here", "runs")
    finished = python(*program, "--out", "old", "--write", cwd=tmp_path)
    assert finished.returncode in (0, 1), finished.stderr
    assert "tiny-gmm@1: 2 seeds" in finished.stdout
    assert "tce        against ce" in finished.stdout
    written = json.loads((tmp_path / "processor.json").read_text("utf-8"))
    kept = [rule["kept"] for rule in written["rules"]]
    assert finished.returncode == (0 if all(kept) else 1)
    assert (tmp_path / "old/tiny-gmm@1/tce/seed-1/gen-3/complete.json").is_file()
    assert set(written["mfi"]["there"]) == {"ce", "tce"}
    metrics = tmp_path / "runs/tiny-gmm@1/ce/seed-0/gen-1/metrics.json"
    moved = json.loads(metrics.read_text("utf-8"))
    moved["metrics"]["kl_to_truth"]["value"] *= 1.5
    metrics.write_text(json.dumps(moved), "utf-8")
    marker = metrics.with_name("complete.json")
    marker.write_text(json.dumps(json.loads(marker.read_text("utf-8")) | {"files": {}}), "utf-8")
    for later in (2, 3):
        shutil.rmtree(metrics.parents[1] / f"gen-{later}")
    lacking = python(*program, "--out", "old", cwd=tmp_path)
    assert lacking.returncode == 2
    assert "runs lacks 1 cell(s) of tiny-gmm@1, such as ce seed 0" in lacking.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--methods", "tce"), "ce, whose mFI must not move, is needed"),
        (("--here", "old"), "--here and --out are both old"),
        (("--seeds", "a"), "--seeds a is not allowed"),
    ],
)
def test_processor_test_says_what_is_wrong_before_it_runs(more: tuple[str, ...], told: str, tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path, "gmm")
    refused = python("-m", "collapsebench.authoring.processor_test", task, "--out", "old", *more, cwd=tmp_path)
    assert refused.returncode == 2
    assert told in refused.stderr


@pytest.mark.parametrize("name", ["processor.json", "cheats.json"])
def test_a_test_on_other_settings_counts_as_broken(name: str, sound: Callable[..., Path], tmp_path: Path) -> None:
    task = sound()
    rule = {"rule": "tested", "kept": True, "told": "tested: yes"}
    (tmp_path / name).write_text(json.dumps({"sha256": load_task(task).sha256, "rules": [rule]}))
    assert load_task(task).broken_rules == {}
    (tmp_path / name).write_text(json.dumps({"sha256": "0" * 64, "rules": [rule]}))
    assert load_task(task).broken_rules == {name: f"{name} was measured on other settings"}
    assert load_task(task, budget=0.5).broken_rules == {}, "a part of the budget is other settings by intention"
