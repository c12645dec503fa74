"""Estimates for causal language models of any size, and of memory, against real models and what autograd keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flop_counting import EXACT, Measured, flop_counter, measured
from tiny_task import write_tiny_task
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.estimates.causal_lm import CausalLm, LmPlan, causal_lm_flops, causal_lm_memory
from collapsebench.methods import load_method
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.token_log_probs import token_log_probs
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained.sampling import rewrite_stream
from collapsebench.workloads.pretrained.settings import StreamSampler
from collapsebench.workloads.text.sampling import sample_continuations

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def real(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What generation 0 of the short task spent, phase by phase."""
    return measured(short, tmp_path_factory.mktemp("gallery"))


# --- a causal language model of any size ---------------------------------------------------------------------------

LMS = {
    "grouped queries, tied": CausalLm(64, 2, 4, 2, 176, 300, tied_embeddings=True),
    "one key for all, untied": CausalLm(64, 2, 4, 1, 176, 300, tied_embeddings=False),
    "every head its key": CausalLm(48, 3, 3, 3, 96, 200, tied_embeddings=True),
    "wide heads": CausalLm(64, 1, 2, 1, 96, 200, tied_embeddings=False, head_dim=64),
}
PLAN = LmPlan(block=24, batch_size=2, prompt_tokens=5, new_tokens=12, sample_batch=3)


@pytest.fixture(params=LMS.values(), ids=LMS.keys())
def shape(request: pytest.FixtureRequest) -> CausalLm:
    return request.param


def llama(shape: CausalLm, checkpointing: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied_embeddings, head_dim=shape.head_dim, max_position_embeddings=64,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    assert CausalLm.of_config(model.config.to_dict() | {"head_dim": shape.head_dim}) == shape
    if checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def loss_of(model: LlamaForCausalLM, head: str = "recomputed") -> Tensor:
    tokens = torch.randint(model.config.vocab_size, (PLAN.batch_size, PLAN.block))
    hidden = model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
    weight = model.get_output_embeddings().weight
    if head == "recomputed":
        return -token_log_probs(hidden, weight, tokens[:, 1:]).mean()
    return torch.nn.functional.cross_entropy((hidden @ weight.T).flatten(0, 1), tokens[:, 1:].flatten())


def test_the_counter_sees_the_head_once_forward_and_three_times_backward() -> None:
    """`token_log_probs` is an autograd function of our own: its products must not escape the counter."""
    hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    with flop_counter() as forward:
        log_p = token_log_probs(hidden, weight, torch.arange(6))
    with flop_counter() as backward:
        log_p.sum().backward()
    assert forward.get_total_flops() == 2 * 6 * 8 * 11
    assert backward.get_total_flops() == 3 * 2 * 6 * 8 * 11


@pytest.mark.parametrize("head", ["recomputed", "stored"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_of_a_language_model_costs_what_is_counted(shape: CausalLm, checkpointing: bool, head: Any) -> None:
    model = llama(shape, checkpointing)
    with flop_counter() as counter:
        for _ in range(2):
            loss_of(model, head).backward()
    plan = dataclasses.replace(PLAN, accumulation=2, checkpointing=checkpointing, head=head)
    assert causal_lm_flops(shape, plan).update == pytest.approx(counter.get_total_flops(), rel=EXACT)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


PUBLISHED = {
    "SmolLM2-135M": (CausalLm(576, 30, 9, 3, 1536, 49_152), 134_515_008),
    "Llama-3.2-1B": (CausalLm(2048, 16, 32, 8, 8192, 128_256), 1_235_814_400),
}


@pytest.mark.parametrize(("model", "parameters"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_parameters_of_published_models_are_met(model: CausalLm, parameters: int) -> None:
    assert model.parameters == parameters


def test_writing_and_scoring_cost_what_is_counted(shape: CausalLm) -> None:
    model = llama(shape).eval()
    prompts = torch.randint(shape.vocab_size, (3, PLAN.prompt_tokens))
    noise = torch.rand(3, PLAN.new_tokens, dtype=torch.float64)
    expected = causal_lm_flops(shape, PLAN)
    with flop_counter() as counter:
        sample_continuations(model, prompts, noise)
    assert 3 * expected.sample == pytest.approx(counter.get_total_flops(), rel=EXACT)
    with flop_counter() as counter, torch.no_grad():
        loss_of(model)
    assert PLAN.batch_size * expected.window == pytest.approx(counter.get_total_flops(), rel=EXACT)


@pytest.mark.parametrize("prompt", [1, 2, 5])
@pytest.mark.parametrize("beams", [1, 3])
def test_beam_search_costs_what_is_counted(shape: CausalLm, beams: int, prompt: int) -> None:
    contexts = torch.randint(1, shape.vocab_size, (2, prompt))
    sampler = StreamSampler(method="beam", context=prompt, new_tokens=PLAN.new_tokens, beams=beams, batch_size=2)
    with flop_counter() as counter:
        rewrite_stream(llama(shape).eval(), contexts, None, sampler)
    plan = dataclasses.replace(PLAN, prompt_tokens=prompt, beams=beams)
    assert 2 * causal_lm_flops(shape, plan).sample == pytest.approx(counter.get_total_flops(), rel=EXACT)


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
    """Within a quarter with focal loss, which keeps most per element; the head's work is in the estimate alone."""
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
    assert 0.95 <= factor <= (1.4 if kind in ("text", "gmm") else 1.25)


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed", "bf16"])
@pytest.mark.parametrize("head", ["recomputed", "stored"])
def test_activations_of_a_language_model_are_what_autograd_keeps(shape: CausalLm, precision: Any, head: Any) -> None:
    model = llama(shape)
    model = model.bfloat16() if precision == "bf16" else model
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        with saved_bytes(model.parameters()) as found:
            hidden = model.base_model(torch.randint(200, (2, 24)), use_cache=False).last_hidden_state
    plan = dataclasses.replace(PLAN, precision=precision, head=head)
    memory = causal_lm_memory(shape, plan)
    assert (memory.weights, memory.gradients, memory.optimiser) == states(model)
    head_only = causal_lm_memory(dataclasses.replace(shape, layers=0), plan).activations
    last_norm = 3 * hidden.nbytes
    assert memory.activations - head_only + last_norm == pytest.approx(sum(found.values()), rel=0.05)


def test_checkpointing_keeps_one_layer_and_the_stream(shape: CausalLm) -> None:
    deep = dataclasses.replace(shape, layers=6)
    with saved_bytes((model := llama(deep, checkpointing=True)).parameters()) as found:
        model.base_model(torch.randint(200, (2, 24)), use_cache=False)
    plan = dataclasses.replace(PLAN, checkpointing=True)
    one_layer = causal_lm_memory(dataclasses.replace(shape, layers=1), PLAN).activations
    assert causal_lm_memory(deep, plan).activations <= sum(found.values()) + one_layer
    assert causal_lm_memory(deep, plan).activations < causal_lm_memory(deep, PLAN).activations
