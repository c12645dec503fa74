"""Tasks whose generations all start from a base model: how it is made, what a seed knows, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import PATIENCE, collapsebench, start
from damage import flip_bit
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_task import BASED, results, tiny_spec, write_based_task, write_tiny_task
from torch import Tensor

from collapsebench.api import run
from collapsebench.errors import TaskError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_method
from collapsebench.policies import REAL
from collapsebench.running import training
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell
from collapsebench.running.loop import Chain
from collapsebench.task import load_task
from collapsebench.task_spec import TaskSpec
from collapsebench.workloads import load_workload

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = tuple(BASED)
LAST = 2
SIZE = {"text": 32, "markov": 64, "vae": 64, "diffusion": 64}  # items that a seed knows


@pytest.fixture(scope="module", params=KINDS)
def based_kind(request: pytest.FixtureRequest) -> str:
    """Every kind with base models in turn."""
    return request.param


@pytest.fixture(scope="module")
def task(based_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of a tiny task with its base model; not to be changed."""
    return write_based_task(tmp_path_factory.mktemp(f"based-{based_kind}"), based_kind)


@pytest.fixture(scope="module")
def uninterrupted(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain of that task; not to be changed."""
    return run(task, "ce", out=tmp_path_factory.mktemp("uninterrupted"), device="cpu")


@pytest.fixture
def markov(tmp_path: Path) -> Path:
    """A Markov task with its base model, to be changed."""
    return write_based_task(tmp_path / "task", "markov")


def chain(task: Path, method: str, seed: int, out: Path) -> Chain:
    cell = Cell(load_task(task), load_method(method), seed, out, LAST, "cpu")
    return Chain(cell.task, cell.method, seed, load_workload(cell.task, "cpu"), cell.directory)


def rows(items: Tensor) -> set[bytes]:
    return {item.numpy().tobytes() for item in items}


def values(path: Path, g: int) -> dict[str, float]:
    content = json.loads((path / f"gen-{g}" / "metrics.json").read_text())
    return {name: m["value"] for name, m in content["metrics"].items()}


# Every generation from the same weights


class Frozen(Loss):
    """Cross entropy in generation 0, and nothing to learn ever after."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * float(e.generation == 0)


def test_who_learns_nothing_has_what_the_base_model_has(based_kind: str, tmp_path: Path) -> None:
    weights = {"workload.training.weight_decay": 0.0}  # which alone would move the weights
    file = write_based_task(tmp_path / "task", based_kind, **weights)
    path = run(file, Frozen, out=tmp_path / "runs", device="cpu")
    workload = load_workload(load_task(file), "cpu")
    base = load_file(tmp_path / "task" / "base.safetensors")
    model = workload.load_model(tmp_path / "task" / "base.safetensors")
    for g in range(LAST + 1):
        weights_of = load_file(path / f"gen-{g}" / "model.safetensors")
        # The KL divergence of a VAE is its workload's, and trains the encoder whatever the loss says.
        learnt = [name for name in base if based_kind != "vae" or name.startswith(("expand", "hidden", "decoder"))]
        same = [torch.equal(weights_of[name], base[name]) for name in learnt]
        assert all(same) if g else not any(same)
        if g:
            samples = load_file(path / f"gen-{g}" / "samples.safetensors")["items"]
            measured = workload.evaluate(model, samples, lambda n: None)
            encoded = {"negative_elbo", "kl", "reconstruction", "selection_negative_elbo"} & measured.keys()
            alike = [name for name in measured if name not in encoded]
            assert [values(path, g)[name] for name in alike] == [measured[name].value for name in alike]
    metric = {
        "text": "nll_per_byte",
        "markov": "selection_nll",
        "vae": "selection_negative_elbo",
        "diffusion": "denoising_loss",
    }[based_kind]
    assert values(path, 0)[metric] < values(path, 1)[metric]
    assert based_kind == "vae" or values(path, 1)[metric] == values(path, 2)[metric]


def test_generation_that_learns_starts_from_the_base_model(
    task: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Tensor]] = []
    original = training.train

    def spy(workload: Any, model: Any, *rest: Any) -> Any:
        started.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        return original(workload, model, *rest)

    monkeypatch.setattr("collapsebench.running.loop.train", spy)
    assert results(run(task, "ce", out=tmp_path, device="cpu")) == results(uninterrupted)
    base = load_file(task.parent / "base.safetensors")
    assert len(started) == LAST + 1
    for weights in started:
        assert all(torch.equal(weights[name], base[name]) for name in base)


# What a seed knows


def test_seed_draws_what_generation_0_is_trained_on(based_kind: str, task: Path, tmp_path: Path) -> None:
    size = SIZE[based_kind]
    known = [chain(task, "ce", seed, tmp_path) for seed in (0, 1)]
    real = rows(known[0].workload.real.items)
    assert len(real) > size
    drawn = []
    for found in known:
        data = found.training_set(0)
        assert len(data) == size
        assert set(data.made_by.tolist()) == {REAL}
        assert rows(data.items) <= real
        drawn.append(data.items)
    assert rows(drawn[0]) != rows(drawn[1])
    assert torch.equal(chain(task, "ce", 0, tmp_path).training_set(0).items, drawn[0])
    assert torch.equal(chain(task, "control", 0, tmp_path).training_set(0).items, drawn[0])


def test_seeds_of_a_task_with_shared_real_data_know_the_same_in_the_same_order(
    based_kind: str, task: Path, tmp_path: Path
) -> None:
    file = write_based_task(tmp_path / "task", based_kind, train=False, **{"policy.real_data": "shared"})
    known = [chain(file, "ce", seed, tmp_path) for seed in (0, 1)]
    assert torch.equal(known[0].training_set(0).items, known[1].training_set(0).items)
    assert len(known[0].real) == SIZE[based_kind] == len(chain(task, "ce", 0, tmp_path).real)
    assert rows(known[0].real.items) <= rows(known[0].workload.real.items)
    orders = [torch.randperm(8, generator=one.randomness.generator(0, "order")).tolist() for one in known]
    assert orders[0] != orders[1], "everything else is drawn by the seed"


def test_chain_from_scratch_knows_what_a_generation_is_trained_on(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path / "task", "markov", init="scratch")
    known = [chain(file, "ce", seed, tmp_path) for seed in (0, 1)]
    assert [len(one.real) for one in known] == [64, 64]
    assert len(known[0].workload.real) > 64
    assert rows(known[0].real.items) != rows(known[1].real.items)
    shared = write_tiny_task(tmp_path / "shared", "markov", init="scratch", **{"policy.real_data": "shared"})
    first, second = (chain(shared, "ce", seed, tmp_path) for seed in (0, 1))
    assert torch.equal(first.real.items, second.real.items)


def test_real_data_that_nothing_draws_cannot_be_shared() -> None:
    with pytest.raises(ValidationError, match=r"policy\.real_data: without base or init: scratch all seeds know"):
        TaskSpec.model_validate(tiny_spec("text", **{"policy.real_data": "shared"}))


def test_every_item_that_a_seed_knows_is_trained_on_as_often(
    based_kind: str, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    original = training.method_loss

    def spy(loss: Any, leaves: Any, batch: Any, clock: Any) -> Tensor:
        batches.append(batch.items.clone())
        return original(loss, leaves, batch, clock)

    monkeypatch.setattr(training, "method_loss", spy)
    run(task, "ce", out=tmp_path, generations=0, device="cpu")
    items = torch.cat(batches)
    expected = chain(task, "ce", 0, tmp_path).training_set(0).items
    assert len(items) == 4 * SIZE[based_kind]
    ours, counts = torch.unique(items, dim=0, return_counts=True)
    theirs, copies = torch.unique(expected, dim=0, return_counts=True)
    assert torch.equal(ours, theirs)
    assert torch.equal(counts, 4 * copies)


POLICIES: dict[str, dict[str, Any]] = {
    "accumulate": {},
    "accumulate-subsample": {},
    "mix": {"real_share": 0.25},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_real_items_of_later_generations_are_those_that_the_seed_knows(policy: str, tmp_path: Path) -> None:
    section = {"name": policy, "size": 64} | POLICIES[policy]
    file = write_based_task(tmp_path / "task", "markov", policy=section)
    path = run(file, "ce", seed=1, out=tmp_path / "runs", device="cpu")
    known = chain(file, "ce", 1, tmp_path / "runs")
    drawn = rows(known.training_set(0).items)
    assert len(known.training_set(0)) == 64
    for g in (1, 2):
        data = known.training_set(g)
        of_real = data.items[data.made_by == REAL]
        assert rows(of_real) <= drawn
        assert len(of_real) == {"accumulate": 64, "mix": 16}.get(policy, len(of_real)) > 0
        assert len(data) == (64 * (g + 1) if policy == "accumulate" else 64)
        trained = json.loads((path / f"gen-{g}" / "metrics.json").read_text())["elements_trained"]
        assert trained == 4 * len(data) * 9


def test_control_knows_no_more(based_kind: str, task: Path, tmp_path: Path) -> None:
    path = run(task, "control", out=tmp_path, device="cpu")
    known = chain(task, "control", 0, tmp_path)
    drawn = rows(known.training_set(0).items)
    for g in (1, 2):
        data = known.training_set(g)
        assert set(data.made_by.tolist()) == {REAL}
        assert rows(data.items) == drawn
        assert len(data) == SIZE[based_kind]
        assert json.loads((path / f"gen-{g}" / "metrics.json").read_text())["real_share"] == 1.0


def test_too_few_items_for_a_seed_are_a_users_mistake(tmp_path: Path) -> None:
    file = write_based_task(tmp_path, "markov", **{"policy.size": 121})
    finished = collapsebench("run", file, "--method", "ce", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2
    assert "the training split has 120 items, fewer than the 121 that a chain knows" in finished.err


# The same bytes


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_until(task: str, out: str, call: int) -> None:
    """Run the chain, and kill the process at the given call of the loss."""
    original, calls = training.method_loss, []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            die()
        return original(*arguments)

    training.method_loss = dying
    run(task, "ce", out=out, device="cpu")


@pytest.mark.parametrize("call", [3, 18, 35])  # 16 updates in each of three generations
def test_chain_killed_and_resumed_equals_uninterrupted_chain(
    task: Path, uninterrupted: Path, tmp_path: Path, call: int
) -> None:
    process = start(run_until, str(task), str(tmp_path), call)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    (path,) = tmp_path.glob("*/ce/seed-0")
    finished = (call - 1) // 16
    assert [RunDirectory(path).state(g) for g in range(LAST + 1)] == ["ok"] * finished + ["missing"] * (3 - finished)
    run(task, "ce", out=tmp_path, device="cpu")
    assert results(path) == results(uninterrupted)


# Weights that are not the task's


def refused(task: Path, cwd: Path) -> str:
    finished = collapsebench("run", task, "--method", "ce", "--device", "cpu", cwd=cwd)
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    assert not (cwd / "runs").exists(), "nothing is run in vain"
    return " ".join(finished.err.split())


def test_changed_weights_are_refused_before_anything_runs(markov: Path, tmp_path: Path) -> None:
    file = markov.parent / "base.safetensors"
    flip_bit(file, file.stat().st_size - 1, 0)
    message = refused(markov, tmp_path)
    assert "is not the base model of tiny-markov-based@1: sha256" in message
    assert "collapsebench base" in message


def test_missing_weights_are_refused_before_anything_runs(markov: Path, tmp_path: Path) -> None:
    (markov.parent / "base.safetensors").unlink()
    message = refused(markov, tmp_path)
    assert "tiny-markov-based@1 has no base model at" in message
    assert "train it: collapsebench base" in message


def test_task_whose_base_model_is_not_made_yet_is_refused(tmp_path: Path) -> None:
    message = refused(write_based_task(tmp_path / "task", "markov", train=False), tmp_path)
    assert "train it: collapsebench base" in message


# How they are made


def test_base_writes_the_weights_and_their_digest_once(based_kind: str, task: Path, tmp_path: Path) -> None:
    file = write_based_task(tmp_path / "task", based_kind, train=False)
    text = file.read_text("utf-8")
    made = collapsebench("base", file, "--device", "cpu", cwd=tmp_path)
    assert made.code == 0, made.err
    weights = tmp_path / "task" / "base.safetensors"
    content = weights.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert content == (task.parent / "base.safetensors").read_bytes(), "the same on every call"
    assert sha256 in made.out
    assert file.read_text("utf-8") == text.replace("sha256: null", f"sha256: {sha256}")
    assert sorted(f.name for f in weights.parent.glob("base.safetensors*")) == ["base.safetensors"]
    written = file.read_bytes(), weights.stat().st_mtime_ns
    again = collapsebench("base", file, "--device", "cpu", cwd=tmp_path)
    assert again.code == 2
    assert "has its base model" in again.err
    assert (file.read_bytes(), weights.stat().st_mtime_ns) == written
    other = collapsebench("base", file, "--out", "again.safetensors", "--device", "cpu", cwd=tmp_path)
    assert other.code == 0, other.err
    assert "as the task says" in " ".join(other.out.split())
    assert (tmp_path / "again.safetensors").read_bytes() == content
    assert (file.read_bytes(), weights.stat().st_mtime_ns) == written


def test_out_of_a_task_without_weights_leaves_the_task_as_it_is(tmp_path: Path) -> None:
    file = write_based_task(tmp_path / "task", "markov", train=False)
    before = file.read_bytes()
    made = collapsebench("base", file, "--out", "mine.safetensors", "--device", "cpu", cwd=tmp_path)
    assert made.code == 0, made.err
    assert (tmp_path / "mine.safetensors").is_file()
    assert not (tmp_path / "task" / "base.safetensors").exists()
    assert file.read_bytes() == before, "a digest of weights that are not beside it is of no use to it"


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: flip_bit(file, 200, 0)], ids=["lost", "changed"])
def test_lost_or_changed_weights_are_made_again(markov: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    weights, before = markov.parent / "base.safetensors", markov.read_bytes()
    content = weights.read_bytes()
    damage(weights)
    made = collapsebench("base", markov, "--device", "cpu", cwd=tmp_path)
    assert made.code == 0, made.err
    assert (weights.read_bytes(), markov.read_bytes()) == (content, before)


@pytest.mark.parametrize("out", [".", "nowhere/base.safetensors"])
def test_place_that_cannot_take_the_weights_is_refused(markov: Path, tmp_path: Path, out: str) -> None:
    finished = collapsebench("base", markov, "--out", out, "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    assert "--out" in finished.err


def test_task_without_a_base_model_has_none_to_train(tmp_path: Path) -> None:
    finished = collapsebench("base", write_tiny_task(tmp_path, "markov"), cwd=tmp_path)
    assert finished.code == 2
    assert "tiny-markov@1 starts from no base model" in finished.err


def test_documents_of_a_split_are_not_for_the_base_model(tmp_path: Path) -> None:
    file = write_based_task(tmp_path, "text", train=False)
    theirs = (tmp_path / "text.txt").read_text("utf-8").split("\n\n")
    ours = (tmp_path / "base.txt").read_text("utf-8")
    (tmp_path / "base.txt").write_text(f"{ours}\n\n{theirs[17]}", "utf-8")
    finished = collapsebench("base", file, "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2
    message = " ".join(finished.err.split())
    assert "1 document(s) of base.data are in the task's own splits" in message
    assert not (tmp_path / "base.safetensors").exists()
    assert "sha256: null" in file.read_text("utf-8")


# Task files that contradict themselves


STAGE = {"updates": 3, "learning_rate": 0.1, "decay": "none"}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("markov", lambda s: s["workload"]["training"].update(later=STAGE), "all generations have the budget of the"),
        ("markov", lambda s: s.update(init="scratch"), "the section base is required for init: base, and only there"),
        ("markov", lambda s: s.pop("base"), "the section base is required for init: base, and only there"),
        ("markov", lambda s: s["base"].update(sha256="12"), "sha256"),
        ("markov", lambda s: s["base"]["data"].update(sure=15), "sure: 15 of 14 states is more than all"),
        ("markov", lambda s: s["base"].update(data=BASED["text"]["base"]["data"]), "base.data: local cannot feed"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    file = write_based_task(tmp_path, kind, train=False)
    content = yaml.safe_load(file.read_text("utf-8"))
    change(content)
    file.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(TaskError) as error:
        load_task(file)
    assert message in " ".join(str(error.value).split())


def test_kind_without_base_models_is_refused(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "gmm")
    content = yaml.safe_load(file.read_text("utf-8"))
    base = BASED["markov"]["base"] | {"data": content["data"]}
    file.write_text(yaml.safe_dump(content | {"init": "base", "base": base}), "utf-8")
    with pytest.raises(TaskError, match="a gmm task cannot start from a base model"):
        load_task(file)
