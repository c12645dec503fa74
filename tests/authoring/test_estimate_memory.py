"""Estimates for language models of many shapes, and of memory, against real models and what autograd keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flop_counting import EXACT, Measured, flop_counter, measured
from tiny_task import write_tiny_task
from torch import Tensor
from transformers import LlamaForCausalLM

from collapsebench.authoring.estimate import estimate
from collapsebench.methods import load_method
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import Task, load_task
from collapsebench.token_log_probs import token_log_probs
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained.blank import llama_config
from collapsebench.workloads.pretrained.sampling import rewrite_stream

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def real(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What generation 0 of the short task spent, phase by phase."""
    return measured(short, tmp_path_factory.mktemp("gallery"))


# --- a causal language model of any size ---------------------------------------------------------------------------

BLOCK, MICRO, CONTEXT = 24, 2, 5


def shape(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, **more: Any) -> dict[str, Any]:
    own = {"hidden_size": hidden, "layers": layers, "heads": heads, "kv_heads": kv_heads}
    return own | {"intermediate_size": inner, "vocab_size": vocab} | more


LMS = {
    "grouped queries, tied": shape(64, 2, 4, 2, 176, 300),
    "one key for all, untied": shape(64, 2, 4, 1, 176, 300, tied_embeddings=False),
    "every head its key": shape(48, 3, 3, 3, 96, 200),
    "wide heads": shape(64, 1, 2, 1, 96, 200, tied_embeddings=False, head_dim=64),
}


@pytest.fixture(params=LMS.values(), ids=LMS.keys())
def architecture(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def lm_task(folder: Path, architecture: dict[str, Any], **changes: Any) -> Task:
    """A task with a model of this shape, two micro-batches an update, and two chunks a window."""
    own = {
        "policy.size": 48,
        "workload.block": BLOCK,
        "workload.model.architecture": architecture,
        "workload.training.batch_size": 2 * MICRO,
        "workload.training.micro_batch": MICRO,
        "workload.sampler.context": CONTEXT,
        "workload.sampler.new_tokens": BLOCK // 2,
    }
    file = write_tiny_task(folder, "pretrained-lm", **(own | changes))
    return load_task(file)


def llama(task: Task, checkpointing: bool = False) -> LlamaForCausalLM:
    model = LlamaForCausalLM(llama_config(task.spec.workload.model.architecture))
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def log_p_of(model: LlamaForCausalLM) -> Tensor:
    tokens = torch.randint(model.config.vocab_size, (MICRO, BLOCK))
    hidden = model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
    return token_log_probs(hidden, model.get_output_embeddings().weight, tokens[:, 1:])


def test_the_counter_sees_the_head_once_forward_and_three_times_backward() -> None:
    """`token_log_probs` is an autograd function of our own: its products must not escape the counter."""
    hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    with flop_counter() as forward:
        log_p = token_log_probs(hidden, weight, torch.arange(6))
    with flop_counter() as backward:
        log_p.sum().backward()
    assert forward.get_total_flops() == 2 * 6 * 8 * 11
    assert backward.get_total_flops() == 3 * 2 * 6 * 8 * 11


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_update_of_a_language_model_costs_what_is_counted(
    architecture: dict[str, Any], checkpointing: bool, precision: str, tmp_path: Path
) -> None:
    changes = {"workload.training.checkpointing": checkpointing, "workload.training.precision": precision}
    task = lm_task(tmp_path, architecture, **changes)
    model = llama(task, checkpointing)
    with flop_counter() as counter:
        for _ in range(2):
            (-log_p_of(model).mean()).backward()
    found = estimate(task, 0)
    updates = found.generations[0].trained // (2 * MICRO * BLOCK)
    assert found.generations[0].training == pytest.approx(updates * counter.get_total_flops(), rel=EXACT)
    assert found.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("context", [1, 2, 5])
@pytest.mark.parametrize("beams", [1, 3])
def test_beam_search_costs_what_is_counted(
    architecture: dict[str, Any], beams: int, context: int, tmp_path: Path
) -> None:
    task = lm_task(tmp_path, architecture, **{"workload.sampler.beams": beams, "workload.sampler.context": context})
    contexts = torch.randint(1, architecture["vocab_size"], (2, context))
    with flop_counter() as counter:
        rewrite_stream(llama(task).eval(), contexts, None, task.spec.workload.sampler)
    spent = estimate(task, 0).generations[0]
    windows = spent.sampled // BLOCK
    assert spent.sampling == pytest.approx(windows * counter.get_total_flops(), rel=EXACT)  # two chunks each


# --- memory ---------------------------------------------------------------------------------------------------------


@contextmanager
def saved_bytes(own: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes that autograd keeps for the backward pass, by storage; the model's own weights not counted."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    found: dict[int, int] = {}
    kept = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


def states(model: torch.nn.Module) -> tuple[int, int, int]:
    """Bytes of weights, gradients and AdamW's moments after a step."""
    optimiser = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    moments = [v for state in optimiser.state.values() for name, v in state.items() if name != "step"]
    parameters = list(model.parameters())
    return tuple(sum(t.nbytes for t in group) for group in (parameters, [p.grad for p in parameters], moments))


def test_memory_of_weights_gradients_and_optimiser_is_exact(kind: str, real: Measured) -> None:
    memory = estimate(real.task).memory
    model = real.workload.new_model(Randomness(real.task.id, 0))
    assert (memory.weights, memory.gradients, memory.optimiser) == states(model)


def test_activations_are_what_autograd_keeps(kind: str, tmp_path: Path) -> None:
    """At least that with focal loss, which keeps most per element; the first steps backward come on top."""
    if kind == "pretrained-lm":
        pytest.skip("a language model by itself, below: the tiny one from a folder is little more than its head")
    deep = {"workload.model.layers": 6} if kind == "text" else {}  # so that the head is a small part
    task = load_task(write_tiny_task(tmp_path, kind, **{"workload.training.first.updates": 1}, **deep))
    workload, randomness = load_workload(task, "cpu"), Randomness(task.id, 0)
    model = workload.new_model(randomness)
    loss = load_method("focal", kind).make_loss()
    with saved_bytes(model.parameters()) as found:
        train(workload, model, workload.real, loss, 0, randomness, lambda _: None)
    factor = estimate(task).memory.activations / sum(found.values())
    # Of little models, the loss is a large part, and of a table nearly all.
    assert 0.95 <= factor <= {"diffusion": 1.25, "gmm": 1.6, "markov": 2.6}.get(kind, 1.4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_activations_of_a_language_model_are_what_autograd_keeps(
    architecture: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    """Within a quarter for a deep one, of which the head is a small part."""
    task = lm_task(tmp_path, architecture | {"layers": 8}, **{"workload.training.precision": precision})
    model = llama(task)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        with saved_bytes(model.parameters()) as found:
            model.base_model(torch.randint(200, (MICRO, BLOCK)), use_cache=False)
    memory = estimate(task, 0).memory
    assert (memory.weights, memory.gradients, memory.optimiser) == states(model)
    assert memory.activations == pytest.approx(sum(found.values()), rel=0.25)


def test_checkpointing_keeps_one_layer_and_the_stream(architecture: dict[str, Any], tmp_path: Path) -> None:
    def activations(layers: int, checkpointing: bool) -> int:
        changes = {"workload.training.checkpointing": checkpointing}
        folder = tmp_path / f"{layers}-{checkpointing}"
        return estimate(lm_task(folder, architecture | {"layers": layers}, **changes), 0).memory.activations

    stream = 4 * MICRO * BLOCK * architecture["hidden_size"]
    assert activations(8, True) - activations(6, True) == pytest.approx(2 * stream, rel=0.1)
    assert activations(6, True) < activations(6, False) / 2
