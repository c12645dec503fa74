"""The recursion: a generation trains on data from earlier ones, is evaluated, and generates data itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from collapsebench.errors import Diverged
from collapsebench.files import write_json
from collapsebench.hooks import Method, View, checked_weights
from collapsebench.methods import Contestant
from collapsebench.policies import (
    TrainingSet,
    control_training_set,
    first_training_set,
    known_fractions,
    known_real,
    next_training_set,
    prompts,
)
from collapsebench.running.artifacts import RunDirectory, State
from collapsebench.running.progress import Event, Listener, Phase, Throttle, silent
from collapsebench.running.tracking import Log, untracked
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import FractionWorkload, Measurement, OnElements, Workload
from collapsebench.workloads.work import known_items

_STATE = "method.safetensors"


class Chain:
    """One cell: a task, a method and a seed, run generation by generation.

    Every generation starts from files, even if the previous one was just computed in the same process. So a resumed
    chain takes the same path as an uninterrupted one.
    """

    def __init__(
        self,
        task: Task,
        method: Contestant,
        seed: int,
        workload: Workload,
        store: RunDirectory,
        listener: Listener = silent,
        log: Log = untracked,
    ):
        self.task = task
        self.method = method
        self.seed = seed
        self.workload = workload
        self.store = store
        self.listener = listener
        self.log = log
        self.randomness = Randomness(task.id, seed)
        self.real = workload.real
        n = known_items(task.spec, len(self.real))
        if n is not None and n != len(self.real):
            shared, draw = task.spec.policy.real_data == "shared", "real data"
            generator = self.randomness.common(draw) if shared else self.randomness.generator(0, draw)
            self.real = known_real(self.real, n, generator)

    def run(self, generations: int, first: int = 0) -> None:
        """Compute the missing generations from `first` to `generations`; stop after a diverged one."""
        self.listener(Event(self.method.name, self.seed, 0, "prepared", real_items=len(self.workload.real)))
        for g in range(first, generations + 1):
            state = self.store.state(g)
            if state == "missing":
                with self.store.writing(g) as folder:
                    state = self._generation(g, folder)
            else:
                self._tell(g, "reused", self._read_metrics(g) if state == "ok" else None)
            if state == "diverged":
                self._tell(g, "diverged")
                return

    def _generation(self, g: int, folder: Path) -> State:
        """Compute a generation into a folder. This defines the order in which a method's hooks are called."""
        clock = Clock()
        with clock.measuring("other"):
            method, see = self._method(g), View(g, self.randomness.generator(g, "method"))
            model = self._initial_model(g)
            data = self.training_set(g)
            starts = prompts(self.task.spec.policy, data, self.randomness.generator(g, "prompts"))
        try:
            with clock.measuring("train"), self._progress(g, "train") as on_elements:
                trained = train(self.workload, model, data, method.make_loss(), g, self.randomness, on_elements)
                _after_training(method, model, see)
            with clock.measuring("sample"), self._progress(g, "sample") as on_elements:
                samples = self.workload.sample(model, starts, g, self.randomness, on_elements)
            with clock.measuring("evaluate"), self._progress(g, "evaluate") as on_elements:
                measured = self.measured(g, model, samples, on_elements)
        except Diverged as reason:
            write_json(folder / "diverged.json", {"generation": g, "reason": str(reason)})
            return "diverged"
        with clock.measuring("other"):
            self._save(folder, model, samples, method)
            self.workload.show(folder, model, samples, starts, self.randomness)
            write_json(folder / "training.json", {"loss": trained.losses})
            metrics = {
                "generation": g,
                "metrics": {name: _written(m) for name, m in measured.items()},
                "engagement": trained.engagement,
                "elements_trained": trained.elements,
                "elements_sampled": samples.numel(),
                "real_share": float((data.made_by < 0).double().mean()),
            }
            write_json(folder / "metrics.json", metrics)
        write_json(folder / "timing.json", clock.seconds)
        beside = _prefixed("engagement", trained.engagement) | _prefixed("seconds", clock.seconds)
        self.log({name: m.value for name, m in measured.items()} | beside, g)
        self._tell(g, "complete", {name: m.value for name, m in measured.items()})
        return "ok"

    def _method(self, g: int) -> Method:
        """A new method object with the state that the previous generation's object saved."""
        method = self.method.make()
        file = self.store.generation(g - 1) / _STATE
        if g > 0 and file.is_file():
            method.restore(load_file(file))
        return method

    def _save(self, folder: Path, model: Any, samples: Tensor, method: Method) -> None:
        self.workload.save_model(model, folder / "model.safetensors")
        save_file({"items": samples.contiguous()}, folder / "samples.safetensors")
        if state := method.state():
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / _STATE)

    def _initial_model(self, g: int) -> Any:
        if self.task.spec.init == "base":
            return self.base_model()
        if g == 0 or self.task.spec.init == "scratch":
            return self.workload.new_model(self.randomness)
        return self.workload.load_model(self.store.generation(g - 1) / "model.safetensors")

    def base_model(self) -> Any:
        """The untouched base model: the one shipped with the task, or the given pretrained weights."""
        if self.task.spec.base is None:
            return self.workload.new_model(self.randomness)
        return self.workload.load_model(self.task.base_weights())

    def training_set(self, g: int) -> TrainingSet:
        """The training set of generation g, from the task's data and the samples on disk."""
        policy, horizon, real = self.task.spec.policy, self.task.spec.horizon, self.real
        if g == 0:
            return first_training_set(policy, real, horizon)
        generator = self.randomness.generator(g, "composition")
        if self.method.real_data:
            return control_training_set(policy, g, horizon, real, generator)
        return next_training_set(policy, g, horizon, real, self._samples, generator)

    def measured(self, g: int, model: Any, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        """All metrics of a model and its samples, computed as for generation g."""
        found = self.workload.evaluate(model, samples, on_elements)
        return found | self.measured_fractions(g, model, on_elements)

    def measured_fractions(self, g: int, model: Any, on_elements: OnElements) -> dict[str, Measurement]:
        """Metrics on the real data that generation g was trained on; empty if the task does not measure them."""
        if not self.task.spec.workload.measures_fractions:
            return {}
        workload = cast("FractionWorkload", self.workload)
        return workload.evaluate_fractions(model, known_fractions(self.real, g, self.task.spec.horizon), on_elements)

    def _samples(self, g: int) -> TrainingSet:
        return TrainingSet.of(load_file(self.store.generation(g) / "samples.safetensors")["items"], g)

    @contextmanager
    def _progress(self, g: int, phase: Phase) -> Iterator[Throttle]:
        throttle = Throttle(self.listener, self.method.name, self.seed, g, phase)
        yield throttle
        throttle.flush()

    def _read_metrics(self, g: int) -> dict[str, float]:
        return {name: m["value"] for name, m in self.store.read(g, "metrics.json")["metrics"].items()}

    def _tell(self, g: int, phase: Phase, metrics: dict[str, float] | None = None) -> None:
        self.listener(Event(self.method.name, self.seed, g, phase, metrics=metrics))


def _after_training(method: Method, model: nn.Module, see: View) -> None:
    """Let the method replace the weights; if it does not have this hook, they are not copied."""
    if type(method).after_training is Method.after_training:
        return
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        changed = method.after_training({name: tensor.clone() for name, tensor in weights.items()}, see)
    model.load_state_dict(checked_weights(method, weights, changed))


def _written(measured: Measurement) -> dict[str, float]:
    written = {"value": measured.value, "n": measured.n}
    return written if measured.stderr is None else written | {"stderr": measured.stderr}


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


class Clock:
    """Seconds spent per phase of a generation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measuring(self, phase: str) -> Iterator[None]:
        """Add the block's wall time to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.perf_counter() - start, 4)
