"""One generation of text-wiki-micro, compared with the usual code: `Trainer` and `model.generate`.

    python benchmarks/text_generation.py [--updates 60] [--samples 512]

Trains the task's model for some updates and generates some windows, both ways and on the same data. Prints tokens per
second and their ratio in this run. Needs the micro and dev extras; takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch
from transformers import Trainer, TrainingArguments

from collapsebench.losses import Loss
from collapsebench.methods import load_loss
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads.text.workload import TextWorkload


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task("text-wiki-micro")
    workload = TextWorkload(task, "cpu")
    stage = workload.settings.training.later.model_copy(update={"updates": arguments.updates})
    training = workload.settings.training.model_copy(update={"later": stage})
    workload.settings = workload.settings.model_copy(update={"training": training})
    rows = {"train": [], "sample": []}
    for repeat in range(arguments.repeats):
        rows["train"].append(
            (train_here(workload, load_loss("ce"), repeat), train_with_trainer(workload, arguments.updates))
        )
        rows["sample"].append(
            (sample_here(workload, arguments.samples), sample_with_generate(workload, arguments.samples))
        )
    print(f"{'phase':<8} {'collapsebench':>14} {'transformers':>14} {'ratio':>7}  tokens/s (median)")
    for phase, pairs in rows.items():
        here, there = (sorted(column)[len(column) // 2] for column in zip(*pairs, strict=True))
        print(f"{phase:<8} {here:>14,.0f} {there:>14,.0f} {here / there:>6.2f}x")


def train_here(workload: TextWorkload, loss: Loss, repeat: int) -> float:
    """Tokens per second of the workload's own training."""
    model = workload.new_model(Randomness("benchmark", repeat))
    start = time.perf_counter()
    trained = train(workload, model, workload.real, loss, 1, Randomness("benchmark", repeat), lambda _: None)
    return trained.elements / (time.perf_counter() - start)


def train_with_trainer(workload: TextWorkload, updates: int) -> float:
    """Tokens per second of `transformers.Trainer` with the same batches and optimiser settings."""
    settings = workload.settings.training
    model = workload.new_model(Randomness("benchmark", 0))
    windows = workload.real.items.long()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            max_steps=updates,
            learning_rate=settings.later.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip_norm,
            lr_scheduler_type="constant_with_warmup",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        data = [{"input_ids": window, "labels": window} for window in windows]
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return updates * settings.batch_size * windows.shape[1] / seconds


def sample_here(workload: TextWorkload, samples: int) -> float:
    """Tokens per second of the workload's own sampling."""
    model = workload.new_model(Randomness("benchmark", 0))
    start = time.perf_counter()
    written = workload.sample(model, workload.real[:samples], 0, Randomness("benchmark", 0), lambda _: None)
    return written.numel() / (time.perf_counter() - start)


@torch.inference_mode()
def sample_with_generate(workload: TextWorkload, samples: int) -> float:
    """Tokens per second of `model.generate` with the same prompts, batch size and temperature."""
    sampler, block = workload.settings.sampler, workload.settings.block
    model = workload.new_model(Randomness("benchmark", 0)).eval()
    prompts = workload.real.items[:samples, : sampler.prompt_tokens].long()
    start = time.perf_counter()
    tokens = 0
    for batch in prompts.split(sampler.batch_size):
        written = model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            do_sample=True,
            temperature=sampler.temperature,
            top_k=0,
            max_new_tokens=block,
            min_new_tokens=block,
            pad_token_id=0,
        )
        tokens += written.numel() - batch.numel()
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
