"""Text: a causal language model that is trained on token windows and continues prompts from its training data."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from collapsebench.data.documents import listing_of
from collapsebench.files import write_json
from collapsebench.metrics.language_model import continuation_log_probs, predict
from collapsebench.policies import REAL, Fractions, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.objective import Alone, Observed, Schedule, initialised, on_device, stage_schedule
from collapsebench.workloads.text.data import TextData, base_windows, evenly, prepared_text, task_splits
from collapsebench.workloads.text.measures import byte_measures, prediction_measures, sample_measures, unigram_floors
from collapsebench.workloads.text.observed import observe_tokens
from collapsebench.workloads.text.sampling import rows_at_once, sample_continuations
from collapsebench.workloads.text.settings import TextSettings
from collapsebench.workloads.work import updates_of

_EXCERPTS = 8


class TextWorkload:
    """See `collapsebench.workloads.Workload`."""

    processes = Alone()

    def __init__(self, task: Task, device: str, text: TextData | None = None):
        assert isinstance(task.spec.workload, TextSettings)
        self.task = task
        self.settings = task.spec.workload
        self.policy = task.spec.policy
        self.device = torch.device(device)
        self.text = prepared_text(task) if text is None else text
        self.real = TrainingSet.of(self.text.train.int(), REAL)
        self.data_sha256 = self.text.sha256

    def base_items(self) -> TrainingSet:
        return TrainingSet.of(base_windows(self.task, self.text.tokenizer).int(), REAL)

    def new_model(self, randomness: Randomness) -> PreTrainedModel:
        return initialised(self._bare_model, randomness, self.device)

    def _bare_model(self) -> PreTrainedModel:
        size = self.settings.model
        config = LlamaConfig(
            vocab_size=self.settings.vocab_size,
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=self.settings.block + self.settings.sampler.prompt_tokens,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
        return LlamaForCausalLM(config)

    def save_model(self, model: PreTrainedModel, path: Path) -> None:
        save_model(model, str(path))

    def load_model(self, path: Path) -> PreTrainedModel:
        model = self._bare_model()
        load_model(model, str(path))
        return model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        training, block = self.settings.training, self.settings.block
        return stage_schedule(
            training, generation, updates_of(self.settings, self.policy, generation, items), block, block
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
        generator = randomness.generator(generation, "sampling")
        noise = torch.rand(len(prompts), self.settings.block, generator=generator, dtype=torch.float64)
        starts = prompts.items[:, : sampler.prompt_tokens].long()
        model.eval()
        written = []
        rows = rows_at_once(model, starts.shape[1] + noise.shape[1], sampler.batch_size)
        for p, u in zip(starts.split(rows), noise.split(rows), strict=True):
            starts_there, noise_there = p.to(self.device), u.float().to(self.device)  # MPS has no float64
            batch = sample_continuations(
                model, starts_there, noise_there, sampler.temperature, sampler.top_k, sampler.top_p
            )
            written.append(batch.int().cpu())
            on_elements(batch.numel())
        return torch.cat(written)

    def evaluate(self, model: PreTrainedModel, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        size = self.settings.evaluation.batch_size
        model.eval()
        test = predict(model, self.text.test, size, on_elements)
        selection = predict(model, self.text.selection, size, on_elements)
        measured = {
            **prediction_measures(test, selection),
            **self._pair_accuracy(model, size),
            **sample_measures(samples.numpy(), self.text.train_counts.numpy()),
        }
        if self.text.test_entities is not None:
            entities, train = self.text.test_entities, self.text.train
            measured |= byte_measures(test, entities, samples.numpy(), train.flatten().numpy())
        return finite(measured)

    def evaluate_fractions(
        self, model: PreTrainedModel, known: Fractions, on_elements: OnElements
    ) -> dict[str, Measurement]:
        model.eval()
        limit, size = self.settings.evaluation.fraction_windows, self.settings.evaluation.batch_size
        assert limit is not None
        measured = {}
        for name, part in (("oldest", known.oldest), ("newest", known.newest)):
            loss = predict(model, evenly(part.items, limit).long(), size, on_elements).loss.double()
            measured[f"{name}_nll_per_byte"] = Measurement(float(loss.mean()), len(loss))
        return finite(measured)

    def _pair_accuracy(self, model: PreTrainedModel, size: int) -> dict[str, Measurement]:
        if not len(self.text.pair_tokens):
            return {}
        log_p = continuation_log_probs(model, self.text.pair_tokens, self.text.pair_spans, size)
        first_true, first_false, second_true, second_false = log_p.view(-1, 4).T
        right = first_true + second_true > first_false + second_false
        return {"pair_accuracy": Measurement(int(right.sum()) / len(right), len(right))}

    def floors(self) -> dict[str, float]:
        """Metrics of the real training text's unigram model; one half for pairs."""
        most_frequent = self.text.train_counts.argmax()
        return {
            **unigram_floors(
                self.text.train_counts, perplexity=self.text.test, selection_perplexity=self.text.selection
            ),
            "next_token_accuracy": float((self.text.test[:, 1:] == most_frequent).double().mean()),
            "pair_accuracy": 0.5,
        }

    def listing(self) -> dict[str, dict[str, str]]:
        return listing_of(task_splits(self.task))

    def show(self, folder: Path, model: PreTrainedModel, samples: Tensor, prompts: TrainingSet, _: Randomness) -> None:
        decode = self.text.tokenizer.decode
        starts = prompts.items[:_EXCERPTS, : self.settings.sampler.prompt_tokens].tolist()
        excerpts = [
            {"prompt": decode(start, skip_special_tokens=False), "text": decode(sample, skip_special_tokens=False)}
            for start, sample in zip(starts, samples[:_EXCERPTS].tolist(), strict=True)
        ]
        write_json(folder / "samples.json", excerpts)
