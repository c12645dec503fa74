"""A table of letter pairs, fitted by gradient: the smallest language model there is."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigrams.settings import LETTERS, BigramSettings
from collapsebench.data.documents import listing_of, load_documents, split_documents
from collapsebench.files import write_json
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.objective import Alone, Observed, Schedule, initialised, stage_schedule
from collapsebench.workloads.work import Sizes, updates_of


class Table(nn.Module):
    """Logits of the next letter for every letter, (27, 27)."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(0.01 * torch.randn(len(LETTERS), len(LETTERS)))

    def forward(self, letters: Tensor) -> Tensor:
        """(n, T) letters to (n, T, 27) logits of the next letters."""
        return self.logits[letters]


class BigramWorkload:
    """See `collapsebench.workloads.Workload`."""

    processes = Alone()

    def __init__(self, task: Task, device: str, lines: dict[str, Tensor] | None = None):
        assert isinstance(task.spec.workload, BigramSettings)
        self.task, self.settings, self.policy = task, task.spec.workload, task.spec.policy
        self.device = torch.device(device)
        if lines is None:
            self.splits = split_documents(load_documents(task.spec.data, task.path.parent), task.spec.splits)
            lines = {name: self._lines(" ".join(d.text for d in found)) for name, found in self.splits.items()}
        self.real, self.test = TrainingSet.of(lines["train"], REAL), lines["test"][: self.settings.test_lines].long()
        self.data_sha256 = hashlib.sha256(lines["train"].numpy().tobytes()).hexdigest()

    def _lines(self, text: str) -> Tensor:
        letters = torch.tensor([LETTERS.index(c) for c in text.lower() if c in LETTERS], dtype=torch.int32)
        return letters[: len(letters) // self.settings.line * self.settings.line].view(-1, self.settings.line)

    def new_model(self, randomness: Randomness) -> Table:
        return initialised(Table, randomness, self.device)

    def save_model(self, model: Table, path: Path) -> None:
        save_file(model.state_dict(), path)

    def load_model(self, path: Path) -> Table:
        model = Table()
        model.load_state_dict(load_file(path))
        return model

    def schedule(self, generation: int, items: int) -> Schedule:
        updates, line = updates_of(self.settings, self.policy, generation, items), self.settings.line
        return stage_schedule(self.settings.training, generation, updates, line, line)

    def observe(self, model: Table, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        letters = items.long()
        logits, target = model(letters[:, :-1]), letters[:, 1:]
        log_p = logits.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)
        return Observed(log_p, target=target, prediction=logits, logits=logits)

    @torch.no_grad()
    def sample(
        self, model: Table, prompts: TrainingSet, generation: int, randomness: Randomness, on_elements: OnElements
    ) -> Tensor:
        generator = randomness.generator(generation, "sampling")
        written = [prompts.items[:, :1].long()]
        for _ in range(self.settings.line - 1):
            probabilities = model(written[-1]).squeeze(1).softmax(-1)
            written.append(torch.multinomial(probabilities, 1, generator=generator))
        on_elements(len(prompts) * self.settings.line)
        return torch.cat(written, 1).int()

    @torch.no_grad()
    def evaluate(self, model: Table, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        logits, target = model(self.test[:, :-1]), self.test[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).double(), target.flatten()).item()
        hits, n = int((logits.argmax(-1) == target).sum()), target.numel()
        on_elements(self.test.numel())
        return finite(
            {
                "perplexity": Measurement(math.exp(loss), n),
                "token_loss": Measurement(loss, n),
                "next_token_accuracy": Measurement(hits / n, n),
            }
        )

    def floors(self) -> dict[str, float]:
        """Metrics of a model that predicts letter frequencies regardless of context."""
        shares = torch.bincount(self.real.items.flatten(), minlength=len(LETTERS)).double() + 1
        target = self.test[:, 1:].flatten()
        loss = -(shares / shares.sum()).log()[target].mean()
        return {
            "perplexity": float(loss.exp()),
            "token_loss": float(loss),
            "next_token_accuracy": float((target == shares.argmax()).double().mean()),
        }

    def listing(self) -> dict[str, dict[str, str]]:
        return listing_of(self.splits)

    def show(self, folder: Path, model: Any, samples: Tensor, prompts: TrainingSet, _: Randomness) -> None:
        texts = ["".join(LETTERS[i] for i in line) for line in samples[:8].tolist()]
        write_json(folder / "samples.json", [{"prompt": text[0], "text": text[1:]} for text in texts])


def blank_bigrams(task: Task, sizes: Sizes) -> Blank:
    """The workload without text; its table is small enough to be used as it is."""
    line = task.spec.workload.line
    lines = {name: torch.zeros(n, line, dtype=torch.int32) for name, n in (("train", 1), ("test", sizes.test))}
    return Blank(BigramWorkload(task, "cpu", lines), {}, sizes.notes)
