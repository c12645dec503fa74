"""Losses in `transformers.Trainer`: the same loss and weights as its own, also under gradient accumulation."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from collapsebench.losses import (
    Elements,
    Loss,
)
from collapsebench.methods import load_loss, registered_methods

torch.set_num_threads(1)

METHODS = list(registered_methods())


def tiny_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            initializer_range=0.3,
        )
    )


def texts_with_unequal_numbers_of_labels() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(12):
        ids = torch.randint(32, (8,), generator=generator)
        labels = ids.clone()
        labels[: i % 6] = -100
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def train(tmp_path: Path, loss: Loss | None, accumulate: int) -> tuple[list[float], dict[str, Tensor]]:
    """Three updates; returns the logged losses and the weights."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulate,
        learning_rate=0.5,
        optim="sgd",
        max_grad_norm=1e9,
        lr_scheduler_type="constant",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    model = tiny_llama()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=texts_with_unequal_numbers_of_labels(),
        compute_loss_func=loss.compute_loss_func if loss else None,
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], model.state_dict()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "kept"])
def test_trainer_with_ce_equals_trainer_with_its_own_loss(tmp_path: Path, reduction: str, accumulate: int) -> None:
    # ce keeps every element, so its `kept` is its `mean`, over an accumulated update too.
    ours, our_weights = train(tmp_path, load_loss(f"ce:reduction={reduction}"), accumulate)
    theirs, their_weights = train(tmp_path, None, accumulate)
    assert len(ours) == 3
    assert ours == pytest.approx(theirs, abs=2e-4)
    start = tiny_llama().state_dict()
    assert max((our_weights[k] - start[k]).abs().max() for k in start) > 1e-2  # it did train
    for key, weight in their_weights.items():
        torch.testing.assert_close(our_weights[key], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_trainer_trains_with_every_registered_method(tmp_path: Path, name: str) -> None:
    losses, weights = train(tmp_path, load_loss(name), 2)
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    start = tiny_llama().state_dict()
    assert max((weights[k] - start[k]).abs().max() for k in start) > 1e-3


def test_accumulated_micro_batches_see_one_loss_object() -> None:
    class Counting(Loss):
        calls: ClassVar[int] = 0

        def elementwise(self, e: Elements) -> Tensor:
            self.calls += 1
            return -e.log_p

    loss = Counting()
    logits, labels = torch.zeros(2, 5, 11), torch.ones(2, 5, dtype=torch.int64)
    for _ in range(3):
        loss.compute_loss_func({"logits": logits}, labels, num_items_in_batch=torch.tensor(24))
    assert loss.calls == 3
