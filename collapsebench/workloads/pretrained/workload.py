"""A pretrained causal language model, fine-tuned recursively on its own text.

There are two protocols. ForTIFAI (arXiv 2509.08972), policy ``regenerate-fresh``: each generation rewrites its training
stream, and the next one starts from its weights. Drayson et al. (arXiv 2502.15654), policy ``mix``: each generation
continues windows of its training set, and every generation starts from the pretrained weights. Both use full
fine-tuning.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import PreTrainedModel

from collapsebench.files import write_json
from collapsebench.metrics.harness import check_harness, evaluate_harness
from collapsebench.metrics.harness_settings import item_source
from collapsebench.metrics.knowledge_retention import answer
from collapsebench.metrics.language_model import predict
from collapsebench.policies import REAL, Fractions, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.objective import Observed, Processes, Schedule, on_device
from collapsebench.workloads.pretrained.accelerated import Accelerated, accelerator_for
from collapsebench.workloads.pretrained.data import stream_data
from collapsebench.workloads.pretrained.knowledge import Knowledge
from collapsebench.workloads.pretrained.model import (
    load_pretrained,
    require_length,
    require_plain_head,
    weights_digest,
)
from collapsebench.workloads.pretrained.sampling import beginnings_of, contexts_of, rewrite_stream
from collapsebench.workloads.pretrained.settings import PretrainedSettings
from collapsebench.workloads.pretrained.supplies import item_folders, knowledge_file, model_folder
from collapsebench.workloads.processes import my_share, world_size
from collapsebench.workloads.text.data import evenly
from collapsebench.workloads.text.measures import perplexity, prediction_measures, sample_measures, unigram_floors
from collapsebench.workloads.text.observed import observe_tokens
from collapsebench.workloads.work import updates_of

_EXCERPTS = 8
_GUESS = 0.5  # floor of a binary choice


class PretrainedWorkload:
    """See `collapsebench.workloads.Workload`."""

    def __init__(self, task: Task, device: str):
        assert isinstance(task.spec.workload, PretrainedSettings)
        self.task = task
        self.settings = task.spec.workload
        accelerator = accelerator_for(torch.device(device), self.settings.training)
        self.device = accelerator.device
        self.processes: Processes = Accelerated(accelerator, self.settings.training.checkpointing)
        self._model, self.tokenizer = load_pretrained(self.settings.model, model_folder(task))
        require_length(self._model, self.settings)
        require_plain_head(self._model)
        self._untouched = True
        self.text = stream_data(task, self.tokenizer)
        self.folders = item_folders(task)
        self.knowledge = self._knowledge_items()
        self.benchmarks = tuple(benchmark.found_in(*self.folders) for benchmark in self.settings.evaluation.harness)
        check_harness(self.benchmarks, self.folders[0])
        self.real = TrainingSet.of(self.text.train, REAL)
        self.data_sha256 = self._digest()

    def _digest(self) -> str:
        """Digest of all external inputs: a run can resume only with the same weights, text and items."""
        parts = [
            weights_digest(self._model),
            self.text.sha256,
            *(item_source(b, self.folders[0]) for b in self.benchmarks),
        ]
        if self.knowledge is not None:
            parts.append(repr(self.knowledge.items))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _knowledge_items(self) -> Knowledge | None:
        wanted = self.settings.evaluation.knowledge
        return None if wanted is None else Knowledge.of(knowledge_file(wanted, *self.folders), self.text)

    def new_model(self, randomness: Randomness) -> PreTrainedModel:
        """The pretrained weights; the seed has no effect."""
        if not self._untouched:
            self._model, _ = load_pretrained(self.settings.model, model_folder(self.task))
        self._untouched = False
        return self._model.to(self.device)

    def save_model(self, model: PreTrainedModel, path: Path) -> None:
        save_model(model, str(path))

    def load_model(self, path: Path) -> PreTrainedModel:
        load_model(self._model, str(path))
        self._untouched = False
        return self._model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        training, block = self.settings.training, self.settings.block
        return Schedule(
            updates=updates_of(self.settings, self.task.spec.policy, generation, items),
            rate=lambda _: training.learning_rate,
            batch_size=training.batch_size,
            micro_batch=training.micro_batch,
            betas=training.betas,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            elements=block,
            progress=block,
        )

    def observe(self, model: PreTrainedModel, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        return observe_tokens(model, on_device(items.long(), self.device), full)

    def sample(
        self,
        model: PreTrainedModel,
        prompts: TrainingSet,
        generation: int,
        randomness: Randomness,
        on_elements: OnElements,
    ) -> Tensor:
        sampler = self.settings.sampler
        contexts = self._contexts(prompts.items)
        mine = my_share(len(contexts))
        noise = None
        if sampler.method == "draw":
            generator = randomness.generator(generation, "sampling")
            noise = torch.rand(len(contexts), sampler.new_tokens, generator=generator, dtype=torch.float64)
        model.eval()
        part = slice(mine.start, mine.stop)
        written = rewrite_stream(model, contexts[part], None if noise is None else noise[part], sampler, on_elements)
        chunks = torch.cat(gather_object([written])) if world_size() > 1 else written
        return chunks.view(len(prompts), self.settings.block).int()

    def _contexts(self, windows: Tensor) -> Tensor:
        """The context of each chunk when these windows are rewritten or, under ``mix``, continued."""
        sampler = self.settings.sampler
        continued = self.task.spec.policy.name == "mix"
        return beginnings_of(windows, sampler) if continued else contexts_of(windows.flatten(), sampler)

    def evaluate(self, model: PreTrainedModel, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        size, text = self.settings.evaluation.batch_size, self.text
        model.eval()
        test, selection = (predict(model, windows, size, on_elements) for windows in (text.test, text.selection))
        measured = {
            **prediction_measures(test, selection),
            **sample_measures(text.compared(samples).numpy(), text.train_counts.numpy()),
            **self._harness(model, size, on_elements),
        }
        return finite(measured)

    def evaluate_fractions(
        self, model: PreTrainedModel, known: Fractions, on_elements: OnElements
    ) -> dict[str, Measurement]:
        model.eval()
        size, measured = self.settings.evaluation.batch_size, {}
        for name, part, n in (
            ("oldest_perplexity", known.oldest, self.text.measured.oldest),
            ("newest_perplexity", known.newest, self.text.measured.newest),
        ):
            if n:
                loss = predict(model, evenly(part.items, n).long(), size, on_elements).loss
                measured[name] = Measurement(perplexity(loss.double().mean()), len(loss))
        return finite(measured | self._knowledge(model, known.generation, on_elements))

    def _knowledge(self, model: PreTrainedModel, generation: int, on_elements: OnElements) -> dict[str, Measurement]:
        if self.knowledge is None:
            return {}
        settings = self.settings.evaluation
        size, length = settings.batch_size, settings.max_length
        answers = answer(model, self.tokenizer, self.knowledge.items, size, length, on_batch=on_elements)
        return self.knowledge.measured(answers.correct, generation)

    def _harness(self, model: PreTrainedModel, size: int, on_elements: OnElements) -> dict[str, Measurement]:
        if not self.benchmarks:
            return {}
        found = evaluate_harness(
            model,
            self.tokenizer,
            self.benchmarks,
            self.folders[0],
            batch_size=size,
            max_length=self.settings.evaluation.max_length,
            on_batch=on_elements,
        )
        return {name: Measurement(r.value, r.n, r.stderr) for name, r in found.items()}

    def floors(self) -> dict[str, float]:
        """Floors from the unigram model of the real text, the most frequent token, guessing and declared chance."""
        text = self.text
        most_frequent = text.train_counts.argmax()
        return {
            **unigram_floors(text.train_counts, perplexity=text.test, selection_perplexity=text.selection),
            "next_token_accuracy": float((text.test[:, 1:] == most_frequent).double().mean()),
            **dict.fromkeys(("knowledge_retention", "knowledge_newest"), _GUESS),
            **{t.metric_name: t.chance for t in self.settings.evaluation.harness if t.chance is not None},
        }

    def listing(self) -> dict[str, dict[str, str]]:
        """One digest per split, since the splits are the dataset's own."""
        return {name: {digest: f"the whole {name} split"} for name, digest in self.text.split_digests.items()}

    def show(self, folder: Path, model: PreTrainedModel, samples: Tensor, prompts: TrainingSet, _: Randomness) -> None:
        decode: Any = self.tokenizer.decode
        starts = prompts.items[:_EXCERPTS]
        if self.task.spec.policy.name == "mix":
            starts = beginnings_of(starts, self.settings.sampler)
        written = samples[:_EXCERPTS].tolist()
        excerpts = [{"prompt": decode(a), "text": decode(b)} for a, b in zip(starts.tolist(), written, strict=True)]
        write_json(folder / "samples.json", excerpts)
