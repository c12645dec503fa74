"""Part ``trainer`` of `benchmarks/gpu.py`: compares with `transformers.Trainer` and `generate` on the same work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gpu_parts import Bench


def against_trainer(bench: Bench) -> Iterator[str]:
    """text-bytes-micro in float32: tokens per second of both, and their ratio."""
    from gpu_cases import Case

    from collapsebench.methods import load_method
    from collapsebench.running.training import train
    from collapsebench.seeding import Randomness
    from collapsebench.task import load_task
    from collapsebench.workloads import load_workload

    more = {} if bench.quick else {"policy.size": 320}
    task = load_task(Case("text", "text-bytes-micro").write(bench.folder / "trainer", **more))
    workload: Any = load_workload(task, bench.device)
    data, randomness = workload.real[: task.spec.policy.size], Randomness(task.id, 0)
    loss = load_method("ce", "text").make_loss()
    updates = workload.schedule(0, len(data)).updates
    trained = updates * task.spec.workload.training.batch_size * task.spec.workload.block
    written = len(data) * task.spec.workload.block
    model = workload.new_model(randomness)
    pairs: dict[str, tuple[int, Callable[[], Any], Callable[[], Any]]] = {
        "training": (
            trained,
            lambda: train(workload, workload.new_model(randomness), data, loss, 0, randomness, lambda _: None),
            lambda: _by_trainer(bench, workload, workload.new_model(randomness), updates),
        ),
        "sampling": (
            written,
            lambda: workload.sample(model, data, 0, randomness, lambda _: None),
            lambda: _by_generate(workload, model, data.items),
        ),
    }
    for name, (tokens, ours, theirs) in pairs.items():
        here, there = (bench.seconds(work, repeats=1) for work in (ours, theirs))
        yield (
            f"{name}: {tokens / here:,.0f} tokens/s here, {tokens / there:,.0f} with transformers, {there / here:.2f}x"
        )


def _by_trainer(bench: Bench, workload: Any, model: Any, updates: int) -> None:
    from transformers import Trainer, TrainingArguments

    settings = workload.settings.training
    data = [{"input_ids": window, "labels": window} for window in workload.real.items.long()]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            max_steps=updates,
            learning_rate=settings.first.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip_norm,
            lr_scheduler_type=settings.first.decay,
            use_cpu=not bench.on_cuda,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=data).train()
    torch.use_deterministic_algorithms(True, warn_only=not bench.on_cuda)


@torch.inference_mode()
def _by_generate(workload: Any, model: Any, items: torch.Tensor) -> None:
    sampler, block = workload.settings.sampler, workload.settings.block
    for batch in items[:, : sampler.prompt_tokens].long().split(sampler.batch_size):
        given = batch.to(workload.device)
        model.eval().generate(
            given, attention_mask=torch.ones_like(given), do_sample=True, temperature=sampler.temperature, top_k=0,
            max_new_tokens=block, min_new_tokens=block, pad_token_id=0,
        ).cpu()  # fmt: skip
