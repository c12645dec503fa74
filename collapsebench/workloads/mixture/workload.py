"""A one-dimensional Gaussian mixture, fitted by gradient descent; both truth and collapse are known exactly."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from collapsebench.data.sources import MixtureData
from collapsebench.errors import Diverged
from collapsebench.files import write_json
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.mixture.settings import GmmSettings, MixtureModel
from collapsebench.workloads.objective import Alone, Observed, Schedule, on_device, stage_schedule
from collapsebench.workloads.work import Sizes, updates_of

_NODES = 20_001  # nodes of the quadrature over the truth's support
_REACH = 12.0  # standard deviations around the outermost components
_CURVE = 241  # points of the density curve in reports


class Mixture(nn.Module):
    """A Gaussian mixture with float64 parameters.

    Attributes:
        weight_logits, means, log_scales: (K,) each; those not learned are buffers.
    """

    weight_logits: Tensor
    means: Tensor
    log_scales: Tensor

    def __init__(self, start: MixtureModel):
        super().__init__()
        values = {
            "weight_logits": torch.tensor(start.weights, dtype=torch.float64).log(),
            "means": torch.tensor(start.means, dtype=torch.float64),
            "log_scales": torch.tensor(start.scales, dtype=torch.float64).log(),
        }
        learned = {"weights": "weight_logits", "means": "means", "scales": "log_scales"}
        for name, value in values.items():
            if name in {learned[part] for part in start.learned}:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def joint_log_density(self, points: Tensor) -> Tensor:
        """log (weight · density) of every component at every point: (n,) to (n, K), in nats."""
        return self.weight_logits.log_softmax(0) - self.log_scales - 0.5 * (self._z(points).square() + _LOG_2PI)

    def log_density(self, points: Tensor) -> Tensor:
        """log q of every point, (n,), in nats."""
        return self.joint_log_density(points).logsumexp(1)

    def relative_log_p(self, points: Tensor, log_peaks: Tensor) -> Tensor:
        """log p of every point, (n,), as the method's loss sees it.

        Its gradient is that of the log-density. Its value is the density relative to a frozen peak, clipped to 1: the
        model is certain of a point if its density there is at least that of the centre of a true component. Such a
        point has p = 1 and, with cross entropy, a loss of exactly 0, so ``reduction=kept`` does not count it.

        Args:
            points: (n,). log_peaks: (n,) log-densities that count as certainty; see `log_peaks`.
        """
        log_density = self.log_density(points)
        value = (log_density.detach() - log_peaks).clamp(max=0.0)
        return log_density + (value - log_density.detach())

    def log_peaks(self, points: Tensor) -> Tensor:
        """Log-density at the centre of the component that each point belongs to, (n,): weight / (scale · √2π).

        Where components overlap, this is the mean of their peaks weighted by responsibility.
        """
        joint = self.joint_log_density(points)
        peaks = self.weight_logits.log_softmax(0) - self.log_scales - 0.5 * _LOG_2PI
        return (joint.log_softmax(1) + peaks).logsumexp(1)

    def _z(self, points: Tensor) -> Tensor:
        return (points[:, None] - self.means) / self.log_scales.exp()

    @property
    def weights(self) -> Tensor:
        """Component weights, (K,), which add up to 1."""
        return self.weight_logits.softmax(0)


_LOG_2PI = math.log(2 * math.pi)


class GmmWorkload:
    """See `collapsebench.workloads.Workload`.

    The elements are the points. A density is not a probability, so p is relative to a frozen scale, as in diffusion
    tasks: the peak of the true component that the point belongs to. The model's own peak would not work: p would be
    independent of how sharp the model is, and losses that weaken as p grows would have no optimum (any wider model
    makes every p larger).
    """

    processes = Alone()

    def __init__(self, task: Task, device: str):
        spec = task.spec
        assert isinstance(spec.workload, GmmSettings)
        assert isinstance(spec.data, MixtureData)
        self.settings = spec.workload
        self.policy = spec.policy
        self.device = torch.device("cpu" if device == "mps" else device)  # MPS has no float64
        truth = spec.data
        self.truth = Mixture(MixtureModel(weights=truth.weights, means=truth.means, scales=truth.scales))
        self.truth.requires_grad_(False)
        points = _draw(self.truth, truth.points, 1.0, Randomness(task.id, 0).generator(0, "real data"))
        self.real = TrainingSet.of(points, REAL)
        self.data_sha256 = hashlib.sha256(points.numpy().tobytes()).hexdigest()
        self._grid, self._step = _support(truth)
        self._true_log_density = self.truth.log_density(self._grid)
        joint = self.truth.joint_log_density(self._grid)
        self._minority = joint.argmax(1) == int(torch.tensor(truth.weights).argmin())

    def listing(self) -> dict[str, dict[str, str]]:
        return {"train": {self.data_sha256: f"{len(self.real)} points"}, "selection": {}, "test": {}}

    def new_model(self, randomness: Randomness) -> Mixture:
        return Mixture(self.settings.model).to(self.device)

    def save_model(self, model: Mixture, path: Path) -> None:
        save_file(model.state_dict(), path)

    def load_model(self, path: Path) -> Mixture:
        model = Mixture(self.settings.model)
        model.load_state_dict(load_file(path))
        return model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        training = self.settings.training
        return stage_schedule(training, generation, updates_of(self.settings, self.policy, generation, items), 1, 1)

    def observe(self, model: Mixture, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        points, peaks = on_device(items, self.device), on_device(self.truth.log_peaks(items), self.device)
        log_p = model.relative_log_p(points, peaks)
        return Observed(log_p, target=points, density=True)

    def sample(
        self, model: Mixture, prompts: TrainingSet, generation: int, randomness: Randomness, on_elements: OnElements
    ) -> Tensor:
        generator = randomness.generator(generation, "sampling")
        points = _draw(model.cpu(), len(prompts), self.settings.sampler.temperature, generator)
        model.to(self.device)
        if not bool(torch.isfinite(points).all()):
            raise Diverged("sampled points not finite")
        on_elements(len(points))
        return points

    @torch.no_grad()
    def evaluate(self, model: Mixture, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        """Compute integrals over the known truth, by quadrature on n nodes, and the moments of the n samples."""
        log_density = model.log_density(self._grid.to(self.device)).cpu()
        nodes, n = len(self._grid), len(samples)
        kl = (self._true_log_density.exp() * (self._true_log_density - log_density)).sum() * self._step
        weights, means, variances = model.weights.cpu(), model.means.cpu(), (2 * model.log_scales).exp().cpu()
        centre = (weights * means).sum()
        measured = {
            "kl_to_truth": Measurement(max(float(kl), 0.0), nodes),
            "minority_mass": Measurement(float(log_density[self._minority].exp().sum() * self._step), nodes),
            "model_variance": Measurement(float((weights * (variances + (means - centre).square())).sum()), nodes),
            "sample_mean": Measurement(float(samples.mean()), n),
            "sample_variance": Measurement(float(samples.var(correction=0)), n),
        }
        return finite(measured)

    def floors(self) -> dict[str, float]:
        """Metrics of one Gaussian with the mean and variance of the real points; no mass in the minority mode."""
        points = self.real.items
        z2 = (self._grid - points.mean()).square() / points.var(correction=0)
        log_density = -0.5 * (z2 + points.var(correction=0).log() + _LOG_2PI)
        kl = (self._true_log_density.exp() * (self._true_log_density - log_density)).sum() * self._step
        return {"kl_to_truth": float(kl), "minority_mass": 0.0}

    def show(self, folder: Path, model: Mixture, samples: Tensor, prompts: TrainingSet, _: Randomness) -> None:
        """Write the densities of the model and of the truth, which reports plot."""
        x = self._grid[:: len(self._grid) // (_CURVE - 1)]
        with torch.no_grad():
            density = model.log_density(x.to(self.device)).exp().cpu()
            truth = self.truth.log_density(x).exp()
        curves = {"x": x, "density": density, "truth": truth}
        rounded = {name: [float(f"{value:.6g}") for value in curve.tolist()] for name, curve in curves.items()}
        write_json(folder / "density.json", rounded)


def blank_mixture(task: Task, sizes: Sizes) -> Blank:
    """The workload itself: its data are small and drawn from the task file."""
    note = "a mixture is fitted by elementwise operations; each counts as one FLOP per number"
    return Blank(GmmWorkload(task, "cpu"), {}, (note, *sizes.notes))


def _draw(model: Mixture, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw n points, (n,) float64, from a mixture on the CPU; see `MixtureSampler` for the temperature."""
    with torch.no_grad():
        weights = (model.weight_logits.log_softmax(0) / temperature).softmax(0)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        component = torch.searchsorted(weights.cumsum(0), uniform).clamp(max=len(weights) - 1)
        normal = torch.randn(n, generator=generator, dtype=torch.float64)
        return model.means[component] + model.log_scales.exp()[component] * temperature**0.5 * normal


def _support(truth: MixtureData) -> tuple[Tensor, float]:
    """Nodes and step of the quadrature, over the whole range where the truth has mass in float64."""
    low = min(m - _REACH * s for m, s in zip(truth.means, truth.scales, strict=True))
    high = max(m + _REACH * s for m, s in zip(truth.means, truth.scales, strict=True))
    nodes = torch.linspace(low, high, _NODES, dtype=torch.float64)
    return nodes, float(nodes[1] - nodes[0])
