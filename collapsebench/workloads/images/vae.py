"""Variational autoencoder: images through a Gaussian code and a Bernoulli decoder (arXiv 1312.6114)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from collapsebench.errors import Diverged
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.images.data import ImageData, base_images
from collapsebench.workloads.images.metrics import ImageMetrics
from collapsebench.workloads.images.settings import VaeModel, VaeSettings
from collapsebench.workloads.objective import Alone, Observed, Schedule, initialised, on_device, stage_schedule
from collapsebench.workloads.pictures import SHOWN, grid, png
from collapsebench.workloads.work import updates_of


class Vae(nn.Module):
    """Encoder and decoder; each convolution halves or doubles the image.

    Args:
        settings: layers and size of the code. image_channels, image_size: channels and side of the images.
    """

    def __init__(self, settings: VaeModel, image_channels: int, image_size: int):
        super().__init__()
        widths = [image_channels, *settings.channels]
        side = image_size // 2 ** len(settings.channels)
        self.shape = (widths[-1], side, side)
        pairs = list(itertools.pairwise(widths))
        dense = [math.prod(self.shape), *settings.hidden]
        self.encoder = nn.Sequential(
            *(layer for a, b in pairs for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())),
            nn.Flatten(),
            *(layer for a, b in itertools.pairwise(dense) for layer in (nn.Linear(a, b), nn.ReLU())),
        )
        self.mean = nn.Linear(dense[-1], settings.latent)
        self.log_variance = nn.Linear(dense[-1], settings.latent)
        self.expand = nn.Linear(settings.latent, dense[-1])
        self.hidden = nn.Sequential(
            *(layer for b, a in itertools.pairwise(reversed(dense)) for layer in (nn.ReLU(), nn.Linear(b, a)))
        )
        layers = [layer for a, b in reversed(pairs) for layer in (nn.ConvTranspose2d(b, a, 4, 2, 1), nn.ReLU())]
        self.decoder = nn.Sequential(*layers[:-1])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, S, S) in [0, 1] to the code's means and log variances, (n, latent) each."""
        hidden = self.encoder(images)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, code: Tensor) -> Tensor:
        """Codes (n, latent) to the logits of the pixels' Bernoulli distributions, (n, C, S, S)."""
        return self.decoder(self.hidden(self.expand(code)).view(-1, *self.shape))


class VaeWorkload:
    """See `collapsebench.workloads.Workload`.

    The pixels are the elements that the method's loss sees. A pixel x in [0, 1] is the probability of white. Its
    log-likelihood x log p + (1 - x) log(1 - p) is the expectation over black-and-white images drawn from it; for
    black-and-white images it is the log-probability of the pixel. The objective is the mean loss times the number of
    pixels plus the KL divergence of the code. With cross entropy this is the negative ELBO.
    """

    processes = Alone()

    def __init__(self, task: Task, device: str, data: ImageData | None = None, metrics: ImageMetrics | None = None):
        assert isinstance(task.spec.workload, VaeSettings)
        self.task = task
        self.settings = task.spec.workload
        self.policy = task.spec.policy
        self.device = torch.device(device)
        self.data = ImageData.of(task) if data is None else data
        self.metrics = ImageMetrics(task, self.data, self.device) if metrics is None else metrics
        self.real = TrainingSet.of(self.data.train.pixels, REAL)
        self.data_sha256 = self.data.sha256
        self._elbo_seed = Randomness(task.id, 0).number(0, "elbo")

    def base_items(self) -> TrainingSet:
        return TrainingSet.of(base_images(self.task), REAL)

    def listing(self) -> dict[str, dict[str, str]]:
        return self.data.listing

    def new_model(self, randomness: Randomness) -> Vae:
        return initialised(self._bare_model, randomness, self.device)

    def _bare_model(self) -> Vae:
        return Vae(self.settings.model, self.data.channels, self.settings.image_size)

    def save_model(self, model: Vae, path: Path) -> None:
        save_file(model.state_dict(), path)

    def load_model(self, path: Path) -> Vae:
        model = self._bare_model()
        model.load_state_dict(load_file(path))
        return model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        training, pixels = self.settings.training, self.real.items[0].numel()
        return stage_schedule(
            training, generation, updates_of(self.settings, self.policy, generation, items), pixels, 1
        )

    def observe(self, model: Vae, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        images = _unit(items, self.device)
        epsilon = on_device(torch.randn(len(images), self.settings.model.latent, generator=noise), self.device)
        logits, kl = _forward(model, images, epsilon)
        log_p = _pixel_log_p(logits, images)
        return Observed(log_p, scale=images[0].numel(), term=kl.mean(), target=images, prediction=logits)

    def sample(
        self, model: Vae, prompts: TrainingSet, generation: int, randomness: Randomness, on_elements: OnElements
    ) -> Tensor:
        generator = randomness.generator(generation, "sampling")
        codes = torch.randn(len(prompts), self.settings.model.latent, generator=generator)
        made = []
        for batch in codes.split(self.settings.sampler.batch_size):
            means = self._means(model, batch)
            if self.settings.sampler.pixels == "draws":
                means = (torch.rand(means.shape, generator=generator) < means).float()
            made.append((means * 255).round().to(torch.uint8))
            on_elements(len(batch))
        return torch.cat(made)

    @torch.inference_mode()
    def _means(self, model: Vae, codes: Tensor) -> Tensor:
        model.eval()
        means = model.decode(codes.to(self.device)).sigmoid().cpu()
        if not bool(torch.isfinite(means).all()):
            raise Diverged("decoded images not finite")
        return means

    def evaluate(self, model: Vae, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        rebuilt, kl = self._negative_elbo(model, self.data.test.pixels)
        selection = sum(self._negative_elbo(model, self.data.selection.pixels))
        n = len(self.data.test)
        measured = {
            "negative_elbo": Measurement(rebuilt + kl, n),
            "reconstruction": Measurement(rebuilt, n),
            "kl": Measurement(kl, n),
            "selection_negative_elbo": Measurement(selection, len(self.data.selection)),
            **self.metrics.measure(samples),
        }
        on_elements(self.settings.evaluation.samples)
        return finite(measured)

    @torch.inference_mode()
    def _negative_elbo(self, model: Vae, pixels: Tensor) -> tuple[float, float]:
        """Reconstruction and KL terms in nats per image of (n, C, S, S) uint8; the noise is the same every time."""
        model.eval()
        size = self.settings.evaluation.batch_size
        generator = torch.Generator().manual_seed(self._elbo_seed)
        noise = torch.randn(len(pixels), self.settings.model.latent, generator=generator)
        parts = []
        for batch, epsilon in zip(pixels.split(size), noise.split(size), strict=True):
            images = _unit(batch, self.device)
            logits, kl = _forward(model, images, epsilon.to(self.device))
            rebuilt = -_pixel_log_p(logits, images).cpu().double().flatten(1).sum(1)
            parts.append(torch.stack([rebuilt, kl.cpu().double()]))
        means = torch.cat(parts, 1).mean(1)
        return float(means[0]), float(means[1])

    def floors(self) -> dict[str, float]:
        """Metrics of images with independent pixels; for the ELBO, the likelihood under each pixel's mean."""
        means = (self.data.train.pixels.double() / 255).mean(0).clamp(1e-3, 1 - 1e-3)
        logits = means.log() - (-means).log1p()
        found = self.metrics.floors()
        for name, split in (("negative_elbo", self.data.test), ("selection_negative_elbo", self.data.selection)):
            images = split.pixels.double() / 255
            found[name] = float(-_pixel_log_p(logits.expand_as(images), images).flatten(1).sum(1).mean())
        return found

    def show(self, folder: Path, model: Vae, samples: Tensor, prompts: TrainingSet, randomness: Randomness) -> None:
        """Write images from the same codes in every generation of every method, to make changes visible."""
        codes = torch.randn(SHOWN, self.settings.model.latent, generator=randomness.generator(0, "gallery"))
        images = (self._means(model, codes) * 255).round().to(torch.uint8)
        (folder / "samples.png").write_bytes(png(grid(images.numpy())))


def _forward(model: Vae, images: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the pixels, and the KL divergence of each image's code from the prior in nats, (n,)."""
    mean, log_variance = model.encode(images)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return model.decode(mean + (0.5 * log_variance).exp() * epsilon), kl


def _pixel_log_p(logits: Tensor, images: Tensor) -> Tensor:
    """Expected log-likelihood of each pixel, in nats, ≤ 0, in the shape of the images."""
    return -F.binary_cross_entropy_with_logits(logits, images, reduction="none")


def _unit(pixels: Tensor, device: torch.device) -> Tensor:
    return on_device(pixels, device).float() / 255
