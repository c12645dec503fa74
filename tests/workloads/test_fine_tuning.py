"""Full fine-tuning: the same losses as a loop written by hand, however the batch is cut and over how many processes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from command import collapsebench, python
from tiny_task import results, write_tiny_task
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from collapsebench.api import run
from collapsebench.errors import Diverged, RunError
from collapsebench.losses import Elements, Loss
from collapsebench.policies import REAL, TrainingSet
from collapsebench.running import engines
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell
from collapsebench.running.plan import plan
from collapsebench.running.progress import Event, Listener, silent
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads.objective import Observed, Schedule
from collapsebench.workloads.pretrained.accelerated import Accelerated, accelerator_for
from collapsebench.workloads.pretrained.settings import FineTuning
from collapsebench.workloads.pretrained.workload import PretrainedWorkload

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY, BLOCK, WINDOWS = 50, 12, 22
SETTINGS = FineTuning(
    epochs=3, batch_size=8, micro_batch=8, learning_rate=3e-3, betas=(0.8, 0.99), weight_decay=0.1, precision="float32"
)
RANDOMNESS = Randomness("tiny@1", 3)


class CrossEntropy(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p


class FromLogits(Loss):
    """Cross entropy, from what the model said."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        return F.cross_entropy(e.prediction.movedim(-1, 1), e.target, reduction="none")


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    tokens = torch.randint(VOCABULARY, (WINDOWS, BLOCK), generator=torch.Generator().manual_seed(1))
    return TrainingSet.of(tokens.int(), REAL)


def changed(**changes: object) -> FineTuning:
    return FineTuning.model_validate(SETTINGS.model_dump() | changes)


@dataclass(frozen=True)
class Trained:
    losses: list[float]
    weights: dict[str, Tensor]


class Bare:
    """As much of a workload as the training loop asks for."""

    def __init__(self, settings: FineTuning):
        updates = lambda policy, generation, items: settings.updates(items)  # noqa: E731
        self.settings = SimpleNamespace(training=settings, block=BLOCK, updates=updates)
        self.task = SimpleNamespace(spec=SimpleNamespace(policy=None))  # of which fine-tuning asks nothing
        self.device = torch.device("cpu")
        self.processes = Accelerated(accelerator_for(self.device, settings), settings.checkpointing)

    def schedule(self, generation: int, items: int) -> Schedule:
        return PretrainedWorkload.schedule(self, generation, items)

    def observe(self, *arguments: Any) -> Observed:
        return PretrainedWorkload.observe(self, *arguments)


def trained(data: TrainingSet, loss: Loss | None = None, model: PreTrainedModel | None = None, **changes) -> Trained:
    """Train in generation 1 a model that is, as loaded weights are, in evaluation mode."""
    model = (model or llama()).eval()
    found = train(Bare(changed(**changes)), model, data, loss or CrossEntropy(), 1, RANDOMNESS, lambda _: None)
    return Trained(found.losses, model.state_dict())


def plain_loop(data: TrainingSet, clip_norm: float | None = None) -> Trained:
    """The same as anybody would write it."""
    model = llama().train()
    s = SETTINGS
    optimiser = torch.optim.AdamW(model.parameters(), lr=s.learning_rate, betas=s.betas, weight_decay=s.weight_decay)
    generator = RANDOMNESS.generator(1, "order")
    order = torch.cat([torch.randperm(WINDOWS, generator=generator) for _ in range(s.epochs)])
    losses = []
    for batch in order[: len(order) // s.batch_size * s.batch_size].split(s.batch_size):
        tokens = data.items[batch].long()
        logits = model(tokens).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        if clip_norm is not None:
            clip_by_hand(model, clip_norm)
        optimiser.step()
        losses.append(loss.item())
    return Trained(losses, model.state_dict())


def clip_by_hand(model: nn.Module, limit: float) -> None:
    gradients = [p.grad for p in model.parameters()]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    for gradient in gradients:
        gradient *= min(1.0, limit / float(norm))


def assert_same(ours: Trained, theirs: Trained) -> None:
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    for name, tensor in ours.weights.items():
        torch.testing.assert_close(tensor, theirs.weights[name], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def expected(data: TrainingSet) -> Trained:
    return plain_loop(data)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 8])
def test_losses_are_those_of_a_plain_loop_however_the_batch_is_cut(
    data: TrainingSet, expected: Trained, micro_batch: int
) -> None:
    found = trained(data, micro_batch=micro_batch)
    assert len(found.losses) == 3 * WINDOWS // 8
    assert_same(found, expected)
    assert found.losses[-1] < found.losses[0] - 0.1


def test_loss_from_logits_trains_like_the_same_loss_on_log_p(data: TrainingSet, expected: Trained) -> None:
    assert_same(trained(data, FromLogits(), micro_batch=4), expected)


def test_checkpointing_computes_layers_again_and_changes_nothing_else(data: TrainingSet) -> None:
    found, passes = [], []
    for checkpointing in (False, True):
        model = llama()
        calls: list[None] = []
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(None))
        found.append(trained(data, model=model, micro_batch=4, checkpointing=checkpointing))
        passes.append(len(calls))
        assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())  # sampling needs its cache
    plain, again = found
    assert again.losses == plain.losses
    assert all(torch.equal(tensor, plain.weights[name]) for name, tensor in again.weights.items())
    assert passes == [2 * len(plain.losses), 4 * len(plain.losses)]


@pytest.mark.parametrize("limit", [0.3, 1e9])
def test_gradients_are_clipped_to_a_norm(data: TrainingSet, expected: Trained, limit: float) -> None:
    found = trained(data, micro_batch=2, clip_norm=limit)
    assert_same(found, plain_loop(data, limit))
    is_far = max(abs(a - b) for a, b in zip(found.losses, expected.losses, strict=True)) > 1e-3
    assert is_far == (limit == 0.3)


def test_order_is_that_of_the_generation(data: TrainingSet) -> None:
    seen: list[Tensor] = []

    class Watching(Bare):
        def observe(self, model: Any, items: Tensor, *rest: Any) -> Observed:
            seen.append(items)
            return super().observe(model, items, *rest)

    told: list[int] = []
    train(Watching(SETTINGS), llama(), data, CrossEntropy(), 2, RANDOMNESS, told.append)
    first_epoch = torch.randperm(WINDOWS, generator=RANDOMNESS.generator(2, "order"))
    assert torch.equal(torch.cat(seen)[:WINDOWS], data.items[first_epoch])
    assert told == [8 * BLOCK] * 8


@pytest.mark.parametrize(
    ("epochs", "windows", "batch_size", "updates"),
    [(1, 8, 8, 1), (1, 15, 8, 1), (2, 15, 8, 3), (3, 22, 8, 8), (1, 3, 8, 1)],
)
def test_updates_are_whole_batches_of_all_epochs_and_at_least_one(
    data: TrainingSet, epochs: int, windows: int, batch_size: int, updates: int
) -> None:
    settings = {"epochs": epochs, "batch_size": batch_size}
    assert changed(**settings).updates(windows) == updates
    assert len(trained(data[:windows], **settings).losses) == updates


# What is not finite


class NaNGradient(Loss):
    """A finite loss whose gradient is not, from update 2 on."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p + ((0 * e.log_p).abs().sqrt() if e.step >= 2 else 0)


class NaNLoss(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (float("nan") if e.step >= 2 else 1)


@pytest.mark.parametrize("loss", [NaNGradient, NaNLoss])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_what_is_not_finite_diverges(data: TrainingSet, loss: type[Loss], clip_norm: float | None) -> None:
    with pytest.raises(Diverged, match="generation 1 not finite by update 8"):
        trained(data, loss(), micro_batch=4, clip_norm=clip_norm)


# Dropout


def gpt2(dropout: float) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=320, n_positions=256, n_embd=32, n_layer=1, n_head=2, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def test_dropout_is_on_in_training(data: TrainingSet) -> None:
    without, with_ = (trained(data, model=gpt2(dropout)).losses for dropout in (0.0, 0.3))
    assert abs(without[0] - with_[0]) > 1e-3
    assert trained(data, model=gpt2(0.3)).losses == with_


def test_model_with_dropout_runs_to_the_same_bytes_and_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    model = gpt2(0.3)
    changes = {
        "workload.model.path": "gpt2",
        "workload.model.parameters": model.num_parameters(),
        "workload.evaluation.max_length": 256,
    }
    task = write_tiny_task(tmp_path, "pretrained-lm", **changes)
    (tmp_path / "model").rename(tmp_path / "gpt2")
    model.save_pretrained(tmp_path / "gpt2")
    runs = []
    for name in ("first", "second"):
        torch.manual_seed(len(runs))
        state = torch.get_rng_state()
        runs.append(results(run(task, "ce", out=tmp_path / name, generations=1, device="cpu")))
        assert torch.equal(torch.get_rng_state(), state)
    assert runs[0] == runs[1]
    first, second = (json.loads(runs[0][f"gen-{g}/training.json"])["loss"] for g in (0, 1))
    assert len(first) == 2
    assert len(second) == 4


# Several processes

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
ON_CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
# One of two processes dies in the middle of generation 1; alone, it trains to the end.
DIES = """
import os

from collapsebench import Loss


class Dies(Loss):
    def elementwise(self, e):
        if e.generation == 1 and e.step == 1 and os.environ.get("RANK") == "1":
            os._exit(9)
        return -e.log_p
"""


def command(task: Path, out: Path, *more: object) -> list[object]:
    return ["run", task, "--method", "ce", "--out", out, "--generations", 0, "--device", "cpu", *more]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generations, and a batch of an odd number of windows, so that two processes get different numbers."""
    training = {"workload.training.batch_size": 5, "workload.training.micro_batch": 1}
    changes = {"horizon": 1, "policy.size": 32, **training}
    return write_tiny_task(tmp_path_factory.mktemp("task"), "pretrained-lm", **changes)


@pytest.fixture(scope="module")
def alone(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process; not to be changed."""
    out = tmp_path_factory.mktemp("alone")
    finished = collapsebench(*command(task, out), cwd=out)
    assert finished.code == 0, finished.err
    return RunDirectory.of(out, load_task(task).id, "ce", 0).path


def curve(path: Path, g: int = 0) -> list[float]:
    return json.loads((path / f"gen-{g}" / "training.json").read_text())["loss"]


def metrics(path: Path) -> dict[str, float]:
    found = json.loads((path / "gen-0" / "metrics.json").read_text())["metrics"]
    return {name: metric["value"] for name, metric in found.items()}


def engagement(path: Path) -> dict[str, float]:
    return json.loads((path / "gen-0" / "metrics.json").read_text())["engagement"]


def files_of(path: Path) -> list[str]:
    """All files of a run, below the directory of all runs."""
    out = path.parents[2]
    return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())


@pytest.mark.slow  # two processes that import torch, three times
def test_two_processes_give_the_losses_and_metrics_of_one_and_one_set_of_files(
    task: Path, alone: Path, tmp_path: Path
) -> None:
    finished = python(*TORCHRUN, "-m", "collapsebench", *command(task, tmp_path / "runs"), cwd=tmp_path, **ON_CPU)
    assert finished.returncode == 0, finished.stderr
    (together,) = tmp_path.glob("runs/*/*/seed-0")
    assert len(curve(together)) == 3
    assert curve(together) == pytest.approx(curve(alone), rel=1e-4)
    assert metrics(together) == pytest.approx(metrics(alone), rel=1e-4)
    assert engagement(together) == pytest.approx(engagement(alone), rel=1e-4, abs=1e-4)
    assert files_of(together) == files_of(alone)
    assert [line.split(":")[0] for line in finished.stdout.splitlines()] == ["generation 0", "Artefacts"]
    assert finished.stderr.count("preparing data") == finished.stderr.count("generation 0/0 complete") == 1


def test_accelerate_launch_gives_the_same_losses(task: Path, alone: Path, tmp_path: Path) -> None:
    # On CPUs, Accelerate 1.15 starts a single process where MPI is missing: only the losses are asserted.
    launch = ("-m", "accelerate.commands.launch", "--num_processes", 2, "--cpu", "--main_process_port", 0)
    finished = python(*launch, "-m", "collapsebench", *command(task, tmp_path / "runs"), cwd=tmp_path, **ON_CPU)
    assert finished.returncode == 0, finished.stderr
    (launched,) = tmp_path.glob("runs/*/*/seed-0")
    assert curve(launched) == pytest.approx(curve(alone), rel=1e-4)


@pytest.mark.slow
def test_run_of_two_processes_that_was_killed_goes_on_in_one(task: Path, alone: Path, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    method, out = f"{tmp_path / 'dies.py'}:Dies", tmp_path / "runs"
    arguments = ("run", task, "--method", method, "--out", out, "--device", "cpu")
    finished = python(*TORCHRUN, "-m", "collapsebench", *arguments, cwd=tmp_path, **ON_CPU)
    assert finished.returncode != 0
    (path,) = out.glob("*/*/seed-0")
    store = RunDirectory(path)
    assert [store.state(g) for g in (0, 1)] == ["ok", "missing"]
    assert curve(path) == pytest.approx(curve(alone), rel=1e-4)
    finished_earlier = (path / "gen-0" / "model.safetensors").stat().st_mtime_ns
    events: list[Event] = []
    run(task, method, out=out, device="cpu", listener=events.append)
    ends = [(e.generation, e.phase) for e in events if e.phase in ("reused", "complete", "diverged")]
    assert ends == [(0, "reused"), (1, "complete")]
    assert (path / "gen-0" / "model.safetensors").stat().st_mtime_ns == finished_earlier
    assert len(curve(path, 1)) == 6
    assert json.loads((path / "run.json").read_text())["resumed"] == []  # the same machine


def two_processes() -> None:
    os.environ["WORLD_SIZE"] = "2"


def test_cell_of_another_kind_cannot_be_shared(tiny: Path, tmp_path: Path) -> None:
    finished = collapsebench(*command(tiny, tmp_path / "runs"), cwd=tmp_path, before=two_processes)
    assert finished.code == 2
    assert "error: tiny@1 cannot use 2 processes for one cell" in finished.err
    assert not (tmp_path / "runs").exists()


def test_engines_with_workers_of_their_own_exclude_several_processes(task: Path, tmp_path: Path) -> None:
    for engine in ("local", "ray"):
        finished = collapsebench(
            "compare", task, "--methods", "ce", "--engine", engine, cwd=tmp_path, before=two_processes
        )
        assert finished.code == 2
        assert f"error: --engine {engine} and `accelerate launch` exclude one another" in finished.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("failure", [RunError("locked"), ValueError("broken")])
def test_failure_of_one_process_ends_its_work_on_all_cells(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Else it would train the next cell together with processes that are still at this one."""
    begun: list[int] = []

    def fails(cell: Cell, _: Listener) -> None:
        begun.append(cell.seed)
        raise failure

    monkeypatch.setattr(engines, "run_cell", fails)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match=str(failure)):
        engines.run_cells(plan(load_task(task), ["ce"], [0, 1], tmp_path, 0, "cpu"), "inline", None, silent)
    assert begun == [0]


def test_batch_smaller_than_the_number_of_processes_is_a_users_mistake(tmp_path: Path) -> None:
    training = {"workload.training.batch_size": 1, "workload.training.micro_batch": 1}
    task = write_tiny_task(tmp_path, "pretrained-lm", **training)
    finished = collapsebench(*command(task, tmp_path / "runs"), cwd=tmp_path, before=two_processes)
    assert finished.code == 2
    assert "trains on 1 windows per update, too few for 2 processes" in finished.err
    assert not (tmp_path / "runs").exists()
