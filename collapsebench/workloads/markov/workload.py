"""Sequences of a known Markov chain, and a table of logits fitted to them by gradient descent.

p is the probability of the next state. The distance of a model from the truth is known exactly, without a test set.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from collapsebench.data.markov import transition_weights
from collapsebench.data.sources import MarkovData
from collapsebench.files import write_json
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.markov.settings import MarkovSettings
from collapsebench.workloads.objective import Alone, Observed, Schedule, on_device, stage_schedule
from collapsebench.workloads.work import Sizes, updates_of

_SHOWN = 8
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class TransitionTable(nn.Module):
    """Logits (S, S) of the next state, one row per state; float64, initialised to 0."""

    def __init__(self, states: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states, states, dtype=torch.float64))

    def forward(self, states: Tensor) -> Tensor:
        """(…) states to (…, S) logits of the next states."""
        return self.logits[states]


class MarkovWorkload:
    """See `collapsebench.workloads.Workload`."""

    processes = Alone()

    def __init__(self, task: Task, device: str):
        spec = task.spec
        assert isinstance(spec.workload, MarkovSettings)
        assert isinstance(spec.data, MarkovData)
        self.task = task
        self.settings = spec.workload
        self.policy = spec.policy
        self.device = torch.device("cpu" if device == "mps" else device)  # MPS has no float64
        self.truth = transition_table(spec.data)
        self.stationary = stationary_distribution(self.truth)
        self.rare = (self.truth > 0) & (self.truth <= self.settings.rare)
        # Seeded by the table alone, so that the tasks of a family share the sequences.
        self.real = TrainingSet.of(self._drawn(spec.data, "train", spec.data.sequences), REAL)
        self.selection = self._drawn(spec.data, "selection", self.settings.selection_sequences)
        content = (self.truth, self.real.items, self.selection)
        self.data_sha256 = hashlib.sha256(b"".join(t.numpy().tobytes() for t in content)).hexdigest()

    def _drawn(self, data: MarkovData, split: str, n: int) -> Tensor:
        """Draw n sequences (n, T) int32 of the chain in its stationary distribution, independently for each split."""
        table = transition_table(data)
        generator = Randomness(f"markov {data.seed} {data.power}", 0).generator(0, split)
        uniform = torch.rand(n, self.settings.length, generator=generator, dtype=torch.float64)
        first = draw(stationary_distribution(table).expand(n, -1), uniform[:, 0])
        return continued(table, first, uniform[:, 1:]).int()

    def base_items(self) -> TrainingSet:
        assert self.task.spec.base is not None
        data = self.task.spec.base.data
        assert isinstance(data, MarkovData)
        return TrainingSet.of(self._drawn(data, "base", data.sequences), REAL)

    def listing(self) -> dict[str, dict[str, str]]:
        splits = {"train": self.real.items, "selection": self.selection}
        listed = {
            name: {hashlib.sha256(items.numpy().tobytes()).hexdigest(): f"{len(items)} sequences"}
            for name, items in splits.items()
        }
        return listed | {"test": {}}

    def new_model(self, randomness: Randomness) -> TransitionTable:
        return TransitionTable(len(self.truth)).to(self.device)

    def save_model(self, model: TransitionTable, path: Path) -> None:
        save_file(model.state_dict(), path)

    def load_model(self, path: Path) -> TransitionTable:
        model = TransitionTable(len(self.truth))
        model.load_state_dict(load_file(path))
        return model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        updates, length = updates_of(self.settings, self.policy, generation, items), self.settings.length
        return stage_schedule(self.settings.training, generation, updates, length, length)

    def observe(self, model: TransitionTable, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        states = on_device(items.long(), self.device)
        logits, target = model(states[:, :-1]), states[:, 1:]
        log_p = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return Observed(log_p, target=target, prediction=logits, logits=logits) if full else Observed(log_p)

    @torch.no_grad()
    def sample(
        self,
        model: TransitionTable,
        prompts: TrainingSet,
        generation: int,
        randomness: Randomness,
        on_elements: OnElements,
    ) -> Tensor:
        """Draw sequences that begin with the first state of each prompt, since real ones may begin with any state."""
        generator = randomness.generator(generation, "sampling")
        uniform = torch.rand(len(prompts), self.settings.length - 1, generator=generator, dtype=torch.float64)
        written = continued(model.logits.cpu().softmax(-1), prompts.items[:, 0].long(), uniform)
        on_elements(written.numel())
        return written.int()

    @torch.no_grad()
    def evaluate(self, model: TransitionTable, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        log_q, n = model.logits.cpu().log_softmax(-1), int((self.truth > 0).sum())
        q, states = log_q.exp(), self.selection.long()
        nll = -log_q[states[:, :-1], states[:, 1:]].mean()
        on_elements(states.numel())
        mass = self.stationary[:, None] * self.truth
        kept = self.stationary[:, None] * torch.minimum(q, self.truth)
        measured = {
            "transition_kl": Measurement(self._distance(log_q), n),
            "rare_mass": Measurement(float(kept[self.rare].sum() / mass[self.rare].sum()), int(self.rare.sum())),
            "selection_nll": Measurement(float(nll), states[:, 1:].numel()),
            "entropy_rate": Measurement(float(-(self.stationary @ (q * log_q).sum(1))), len(q)),
        }
        return finite(measured)

    def _distance(self, log_q: Tensor) -> float:
        """Σ_s π(s) KL(P_s ‖ Q_s) in nats per transition, at least 0."""
        log_truth = torch.where(self.truth > 0, self.truth, 1.0).log()
        divergence = (self.truth * (log_truth - log_q)).where(self.truth > 0, 0.0).sum(1)
        return max(float(self.stationary @ divergence), 0.0)

    def floors(self) -> dict[str, float]:
        """Metrics of a model that predicts the stationary distribution after every state."""
        log_q = self.stationary.log().expand_as(self.truth)
        states = self.selection.long()
        return {
            "transition_kl": self._distance(log_q),
            "rare_mass": 0.0,  # an even spread keeps rare transitions, but the divergence penalises it
            "selection_nll": float(-log_q[states[:, :-1], states[:, 1:]].mean()),
        }

    def show(self, folder: Path, model: Any, samples: Tensor, prompts: TrainingSet, _: Randomness) -> None:
        """Write one letter per state."""
        texts = ["".join(_LETTERS[state] for state in row) for row in samples[:_SHOWN].tolist()]
        write_json(folder / "samples.json", [{"prompt": text[0], "text": text[1:]} for text in texts])


def blank_markov(task: Task, sizes: Sizes) -> Blank:
    """The workload itself: its data are small and drawn from the task file."""
    note = "a table is fitted by elementwise operations; each counts as one FLOP per number"
    return Blank(MarkovWorkload(task, "cpu"), {}, (note, *sizes.notes))


def transition_table(data: MarkovData) -> Tensor:
    """P, (S, S) float64: transition probabilities between all states."""
    weights = torch.tensor(transition_weights(data), dtype=torch.float64)
    return weights / weights.sum(1, keepdim=True)


def stationary_distribution(table: Tensor) -> Tensor:
    """π, (S,) float64, with π P = π and Σ π = 1, of a chain in which every state can be reached from every other.

    Raises:
        torch.linalg.LinAlgError: the distribution is not unique.
    """
    states = len(table)
    equations = table.T - torch.eye(states, dtype=table.dtype)
    equations[-1] = 1.0  # one equation is redundant; replace it by Σ π = 1
    wanted = torch.zeros(states, dtype=table.dtype)
    wanted[-1] = 1.0
    return torch.linalg.solve(equations, wanted)


def continued(table: Tensor, first: Tensor, uniform: Tensor) -> Tensor:
    """Sequences (n, 1 + T) int64 that begin with `first`, (n,); `uniform`, (n, T), decides every step."""
    written = [first.long()]
    for numbers in uniform.unbind(1):
        written.append(draw(table[written[-1]], numbers))
    return torch.stack(written, 1)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw one state per row of (n, S), (n,) int64, by inverting the cumulative distribution.

    States of probability 0 are never drawn.
    """
    cumulative = probabilities.cumsum(1)
    last = (probabilities > 0).to(torch.int8).cumsum(1).argmax(1)
    found = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True).squeeze(1)
    return found.minimum(last)
