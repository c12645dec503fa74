"""Denoising diffusion: a small U-Net predicts the noise in an image (DDPM, arXiv 2006.11239)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from collapsebench.errors import Diverged
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads import Measurement, OnElements, finite
from collapsebench.workloads.images.data import ImageData, base_images
from collapsebench.workloads.images.kind import DIFFUSION, LOOKS
from collapsebench.workloads.images.metrics import ImageMetrics
from collapsebench.workloads.images.settings import DiffusionSettings
from collapsebench.workloads.objective import Alone, Observed, Schedule, initialised, on_device, stage_schedule
from collapsebench.workloads.pictures import SHOWN, grid, png
from collapsebench.workloads.work import updates_of


class DiffusionWorkload:
    """See `collapsebench.workloads.Workload`.

    The elements are the components of the noise, with log p = -err² / (2σ²). This is the density of a Gaussian around
    the prediction relative to its peak, so p is in (0, 1]. σ is frozen in the task; it is the RMS error of CE at
    generation 0. The objective is the mean loss times 2σ². With cross entropy it is the usual mean squared error for
    any σ.
    """

    processes = Alone()

    def __init__(self, task: Task, device: str, data: ImageData | None = None, metrics: ImageMetrics | None = None):
        assert isinstance(task.spec.workload, DiffusionSettings)
        self.task = task
        self.settings = task.spec.workload
        self.policy = task.spec.policy
        self.device = torch.device(device)
        self.data = ImageData.of(task) if data is None else data
        self.metrics = ImageMetrics(task, self.data, self.device) if metrics is None else metrics
        self.real = TrainingSet.of(self.data.train.pixels, REAL)
        self.data_sha256 = self.data.sha256
        noising = self.settings.schedule
        self._noising = DDPMScheduler(  # takes half a millisecond
            noising.train_steps, beta_schedule=noising.beta_schedule, beta_end=noising.beta_end
        )

    def base_items(self) -> TrainingSet:
        return TrainingSet.of(base_images(self.task), REAL)

    def listing(self) -> dict[str, dict[str, str]]:
        return self.data.listing

    def new_model(self, randomness: Randomness) -> UNet2DModel:
        return initialised(self._bare_model, randomness, self.device)

    def _bare_model(self) -> UNet2DModel:
        size = self.settings.model
        levels = range(len(size.channels))
        down = tuple("AttnDownBlock2D" if i in size.attention else "DownBlock2D" for i in levels)
        up = tuple("AttnUpBlock2D" if i in size.attention else "UpBlock2D" for i in reversed(levels))
        original = {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}
        return UNet2DModel(
            sample_size=self.settings.image_size,
            in_channels=self.data.channels,
            out_channels=self.data.channels,
            layers_per_block=size.layers,
            block_out_channels=size.channels,
            down_block_types=down,
            up_block_types=up,
            norm_num_groups=size.groups,
            add_attention=size.mid_attention,
            attention_head_dim=None,
            **(original if size.ddpm_convention else {}),
        )

    def save_model(self, model: UNet2DModel, path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)

    def load_model(self, path: Path) -> UNet2DModel:
        model = self._bare_model()
        model.load_state_dict(load_file(path))
        return model.to(self.device)

    def schedule(self, generation: int, items: int) -> Schedule:
        training, pixels = self.settings.training, self.real.items[0].numel()
        passes = DIFFUSION.passes(self.settings).trained
        updates = updates_of(self.settings, self.policy, generation, items)
        return stage_schedule(training, generation, updates, pixels, passes, self.settings.ema_decay)

    def observe(self, model: UNet2DModel, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        scale = 2 * (self.settings.sigma or 1.0) ** 2
        predicted, added = self._predict(model, items, noise)
        log_p = -(predicted - added).square() / scale
        return Observed(log_p, scale=scale, target=added, prediction=predicted, density=True)

    def _predict(self, model: UNet2DModel, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Add noise of random strength to images; return the model's prediction of it, and the noise itself."""
        scale = self.settings.normalisation
        images = (pixels.float() / 255 - scale.mean) / scale.std
        noise = torch.randn(images.shape, generator=generator)
        steps = torch.randint(self.settings.schedule.train_steps, (len(images),), generator=generator)
        noisy = self._noising.add_noise(images, noise, steps)
        noisy, steps, noise = (on_device(tensor, self.device) for tensor in (noisy, steps, noise))
        return model(noisy, steps).sample, noise

    def sample(
        self,
        model: UNet2DModel,
        prompts: TrainingSet,
        generation: int,
        randomness: Randomness,
        on_elements: OnElements,
    ) -> Tensor:
        return self._denoised(model, len(prompts), randomness.generator(generation, "sampling"), on_elements)

    @torch.inference_mode()
    def _denoised(self, model: UNet2DModel, n: int, draws: torch.Generator, on_elements: OnElements) -> Tensor:
        """Images, (n, C, S, S) uint8; all noise is drawn on the CPU, the same for any size of the batches."""
        scale, size = self.settings.normalisation, self.settings.image_size
        scheduler = self._sampler()
        scheduler.set_timesteps(self.settings.schedule.sample_steps)
        fresh = {"generator": draws} if self.settings.sampler.process == "ancestral" else {}
        model.eval()
        images = torch.randn((n, self.data.channels, size, size), generator=draws).to(self.device)
        for step in scheduler.timesteps:
            predicted = []
            for batch in images.split(self.settings.sampler.batch_size):
                predicted.append(model(batch, on_device(step, self.device)).sample)
                on_elements(len(batch))
            images = scheduler.step(torch.cat(predicted), step, images, **fresh).prev_sample
        images = images.cpu()
        if not bool(torch.isfinite(images).all()):
            raise Diverged("sampled images not finite")
        return ((images * scale.std + scale.mean).clamp(0, 1) * 255).round().to(torch.uint8)

    def _sampler(self) -> DDIMScheduler | DDPMScheduler:
        schedule, scale = self.settings.schedule, self.settings.normalisation
        kind = DDPMScheduler if self.settings.sampler.process == "ancestral" else DDIMScheduler
        return kind(
            schedule.train_steps,
            beta_schedule=schedule.beta_schedule,
            beta_end=schedule.beta_end,
            timestep_spacing="trailing",
            clip_sample_range=max(scale.mean, 1 - scale.mean) / scale.std,
        )

    def evaluate(self, model: UNet2DModel, samples: Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        looked_at = self.data.selection.pixels[: self.settings.evaluation.samples]
        selection = self._denoising_loss(model, looked_at, "noise_rms")
        measured = {
            "denoising_loss": self._denoising_loss(model, self.data.test.pixels, "denoising_loss"),
            "selection_denoising_loss": selection,
            "noise_rms": Measurement(selection.value**0.5, selection.n),
            **self.metrics.measure(samples),
        }
        on_elements(LOOKS * len(looked_at))
        return finite(measured)

    @torch.inference_mode()
    def _denoising_loss(self, model: UNet2DModel, pixels: Tensor, purpose: str) -> Measurement:
        """Mean squared error of the predicted noise; the noise depends on the purpose alone."""
        model.eval()
        generator = Randomness(self.task.id, 0).generator(0, purpose)
        squares, n = 0.0, 0
        for _ in range(LOOKS):
            for batch in pixels.split(self.settings.evaluation.batch_size):
                predicted, noise = self._predict(model, batch, generator)
                squares += float((predicted - noise).cpu().double().square().sum())
                n += noise.numel()
        return Measurement(squares / n, n)

    def floors(self) -> dict[str, float]:
        """Metrics of images with independent pixels."""
        return self.metrics.floors()

    def show(
        self, folder: Path, model: UNet2DModel, samples: Tensor, prompts: TrainingSet, randomness: Randomness
    ) -> None:
        """Write images from the same initial noise in every generation of every method, to make changes visible."""
        n = min(SHOWN, self.settings.evaluation.samples)
        images = self._denoised(model, n, randomness.generator(0, "gallery"), lambda _: None)
        (folder / "samples.png").write_bytes(png(grid(images.numpy())))
