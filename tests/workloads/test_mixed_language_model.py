"""A pretrained model under `mix`, from its own weights in every generation: Drayson's loop, on a tiny GPT-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_task import results, write_tiny_task
from transformers import GPT2Config, GPT2LMHeadModel

from collapsebench.api import run
from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.floors import measured_floors
from collapsebench.errors import DataError, TaskError
from collapsebench.methods import load_method
from collapsebench.policies import REAL
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.loop import Chain
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.work import work_of

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK, CONTEXT, REAL_WINDOWS, POSITIONS = 16, 8, 20, 24
PARAMETERS = 23_776
SHAPE = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate_size": 128, "vocab_size": 320}
CHANGES: dict[str, Any] = {
    "name": "tiny-mix",
    "init": "base",
    "horizon": 2,
    "policy": {"name": "mix", "size": 2 * REAL_WINDOWS, "real_share": 0.5},
    "workload.model": {
        "path": "gpt2", "parameters": PARAMETERS, "architecture": SHAPE | {"family": "gpt2", "positions": POSITIONS}
    },
    "workload.sampler": {"method": "draw", "context": CONTEXT, "new_tokens": BLOCK, "batch_size": 7},
    "workload.evaluation": {"test_windows": 24, "selection_windows": 12},
    "scored": {"perplexity": {}, "next_token_accuracy": {}},
}  # fmt: skip


def write_gpt2(folder: Path, positions: int = POSITIONS) -> None:
    """Weights as the hub has those of GPT-2: without prefix, without the head, with the masks; no token for padding."""
    config = GPT2Config(
        vocab_size=320, n_positions=positions, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    tensors = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    tensors["h.0.attn.bias"] = torch.ones(positions, positions).tril()[None, None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_task(folder: Path, positions: int = POSITIONS, **changes: Any) -> Path:
    file = write_tiny_task(folder, "pretrained-lm", **(CHANGES | changes))
    (folder / "model").rename(folder / "gpt2")
    write_gpt2(folder / "gpt2", positions)
    return file


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file; not to be changed."""
    return write_task(tmp_path_factory.mktemp("mix"))


@pytest.fixture(scope="module")
def finished(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of cross entropy over three generations; not to be changed."""
    return run(task, "ce", out=tmp_path_factory.mktemp("runs"), device="cpu")


def chain(task: Path, finished: Path, method: str = "ce") -> Chain:
    loaded = load_task(task)
    contestant = load_method(method, "pretrained-lm")
    return Chain(loaded, contestant, 0, load_workload(loaded, "cpu"), RunDirectory(finished))


def metrics(finished: Path, g: int) -> dict[str, Any]:
    return json.loads((finished / f"gen-{g}" / "metrics.json").read_text("utf-8"))


# The loop


def test_every_generation_has_all_real_windows_and_as_many_of_the_last_generations(task: Path, finished: Path) -> None:
    found = chain(task, finished)
    known = sorted(found.workload.real.items.tolist())
    assert len(known) == REAL_WINDOWS
    assert sorted(found.training_set(0).items.tolist()) == known
    for g in (1, 2):
        data = found.training_set(g)
        assert sorted(data.items[data.made_by == REAL].tolist()) == known
        written = load_file(finished / f"gen-{g - 1}" / "samples.safetensors")["items"].tolist()
        theirs = data.items[data.made_by == g - 1].tolist()
        assert len(theirs) == REAL_WINDOWS
        assert all(window in written for window in theirs)
        assert metrics(finished, g)["real_share"] == 0.5


def test_generation_0_and_the_control_have_the_budget_of_every_other_generation(task: Path, finished: Path) -> None:
    spec = load_task(task).spec
    assert {metrics(finished, g)["elements_trained"] for g in range(3)} == {2 * REAL_WINDOWS * BLOCK}
    assert [work_of(spec, g).items for g in range(3)] == [REAL_WINDOWS, 2 * REAL_WINDOWS, 2 * REAL_WINDOWS]
    assert len({work_of(spec, g).updates for g in range(3)}) == 1
    control = chain(task, finished, "control").training_set(1)
    assert control.made_by.tolist() == [REAL] * (2 * REAL_WINDOWS)
    assert len({tuple(window) for window in control.items.tolist()}) == REAL_WINDOWS


def test_every_generation_starts_from_the_pretrained_weights(task: Path, finished: Path) -> None:
    given = load_file(task.parent / "gpt2/model.safetensors")
    found = chain(task, finished)
    for g in (0, 1, 2):
        weights = found._initial_model(g).transformer.state_dict()
        assert all(torch.equal(tensor, given[name]) for name, tensor in weights.items())
        trained = load_file(finished / f"gen-{g}" / "model.safetensors")
        assert not torch.equal(trained["transformer.h.0.attn.c_attn.weight"], given["h.0.attn.c_attn.weight"])


def test_a_window_is_written_after_the_beginning_of_one_and_ends_nowhere(task: Path, finished: Path) -> None:
    samples = load_file(finished / "gen-0" / "samples.safetensors")["items"]
    assert samples.shape == (2 * REAL_WINDOWS, BLOCK)
    assert not bool((samples == 0).any()), "no end of text"
    shown = json.loads((finished / "gen-0" / "samples.json").read_text("utf-8"))
    workload: Any = load_workload(load_task(task), "cpu")
    beginnings = {workload.tokenizer.decode(window[:CONTEXT]) for window in workload.real.items.tolist()}
    assert {excerpt["prompt"] for excerpt in shown} <= beginnings


def test_what_there_is_no_fraction_of_is_not_measured(finished: Path) -> None:
    assert {"perplexity", "next_token_accuracy", "distinct_2"} <= metrics(finished, 1)["metrics"].keys()
    assert not [name for name in metrics(finished, 1)["metrics"] if "oldest" in name or "knowledge" in name]
    assert metrics(finished, 1)["metrics"]["distinct_2"]["n"] == 2 * REAL_WINDOWS * BLOCK


def test_the_same_command_gives_the_same_bytes(task: Path, finished: Path, tmp_path: Path) -> None:
    again = run(task, "ce", out=tmp_path, device="cpu", generations=1)
    assert results(again) == {name: content for name, content in results(finished).items() if "gen-2" not in name}


def test_floors_are_what_the_pretrained_weights_have(task: Path, tmp_path: Path) -> None:
    floors, base = measured_floors(load_task(task), "cpu", tmp_path)
    workload: Any = load_workload(load_task(task), "cpu")
    tokens = workload.text.test
    with torch.no_grad():
        log_p = GPT2LMHeadModel.from_pretrained(task.parent / "gpt2")(tokens).logits[:, :-1].log_softmax(-1)
    loss = -log_p.gather(-1, tokens[:, 1:, None]).double().mean()
    assert floors["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)
    assert len(base["perplexity"]) == 1, "which do not depend on the seed"
    assert floors["next_token_accuracy"] == max(
        base["next_token_accuracy"][0], workload.floors()["next_token_accuracy"]
    )


def test_a_base_model_of_its_own_is_refused(tmp_path: Path) -> None:
    base = {
        "file": "base.safetensors",
        "data": {"source": "local-splits", "path": "data"},
        "training": {"batch_size": 8, "first": {"epochs": 1, "learning_rate": 0.1, "decay": "none"}},
    }
    with pytest.raises(TaskError, match="the section base is required for init: base, and only there"):
        load_task(write_task(tmp_path, base=base))


# What is special about GPT-2


def test_log_p_is_that_of_the_logits_with_tied_weights_and_without_them_in_memory(task: Path) -> None:
    workload: Any = load_workload(load_task(task), "cpu")
    model = workload.new_model(None).eval()
    items = workload.real.items[:3]
    seen = workload.observe(model, items, torch.Generator(), full=False)
    logits = model(items.long()).logits[:, :-1]
    expected = logits.log_softmax(-1).gather(-1, items[:, 1:, None].long())[..., 0]
    torch.testing.assert_close(seen.log_p, expected, rtol=1e-5, atol=1e-5)
    assert seen.prediction is None
    (ours,) = torch.autograd.grad(seen.log_p.sum(), [model.transformer.wte.weight], retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.sum(), [model.transformer.wte.weight])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_model_of_too_few_positions_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    file = write_task(tmp_path, positions=23, **{"workload.model.parameters": PARAMETERS - 32})
    told = r"reads 23 tokens at once, the task needs 24 \(context and what is written after it\): use the task's own"
    with pytest.raises(DataError, match=told):
        run(file, "ce", out=tmp_path / "runs", device="cpu")


def test_padding_is_the_end_of_text_where_there_is_no_token_for_it(task: Path) -> None:
    workload: Any = load_workload(load_task(task), "cpu")
    assert workload.tokenizer.pad_token_id == workload.tokenizer.eos_token_id == 0


def test_the_estimate_counts_its_weights_and_what_it_saves(task: Path, finished: Path) -> None:
    found = estimate(load_task(task))
    assert found.parameters == PARAMETERS
    assert [g.sampled for g in found.generations] == [metrics(finished, g)["elements_sampled"] for g in range(3)]
    assert [g.trained for g in found.generations] == [metrics(finished, g)["elements_trained"] for g in range(3)]


def test_the_registered_task_is_gpt2_from_its_own_weights_with_half_real_text() -> None:
    spec = load_task("text-wikitext2-gpt2").spec
    assert (spec.init, spec.base, spec.horizon, spec.workload.block) == ("base", None, 10, 512)
    assert (spec.policy.name, spec.policy.real_share) == ("mix", 0.5)
    assert spec.kind.real_items(spec) == spec.policy.size // 2
    assert set(spec.scored) == {"perplexity", "next_token_accuracy"}
    assert estimate(load_task("text-wikitext2-gpt2"), 0).parameters == spec.workload.model.parameters == 124_439_808
