"""Settings of image tasks: model, training, sampling and evaluation. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.workloads.settings import Share, WorkloadSettings
from collapsebench.workloads.training_settings import Training

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy

Extractor = Literal["classifier", "inception", "efficientnet-lite0"]
Width = Annotated[int, Field(gt=0)]


class Classifier(Frozen):
    """A small classifier of the task's own classes, trained on its real training split alone.

    Made by ``collapsebench classifier TASK``, which also writes this section.

    Attributes:
        file: safetensors file next to the task file. sha256: digest of that file.
        accuracy: accuracy on the task's real test images, which were not used in training.
    """

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    accuracy: float = Field(ge=0, le=1)


class ImageEvaluation(Frozen):
    """How images are measured.

    Attributes:
        samples: number of a generation's samples that are measured; at most the policy's size.
        extractors: the features in which distances are computed; ``inception`` gives FID and KID.
        classifier: the task's own classifier, for the extractor of that name and for all metrics about classes.
    """

    samples: int = Field(ge=16)
    extractors: tuple[Extractor, ...] = Field(min_length=1)
    classifier: Classifier | None = None
    batch_size: int = Field(250, ge=1)


class ImageSettings(WorkloadSettings):
    """What VAE and diffusion tasks have in common.

    Attributes:
        image_size: side of the square images; the data's images are resized to it.
    """

    image_size: int = Field(ge=8, le=256, multiple_of=4)
    evaluation: ImageEvaluation
    training: Training

    def reduced(self, share: Share) -> Self:
        evaluation = self.evaluation.model_copy(update={"samples": share(self.evaluation.samples, 16)})
        return super().reduced(share).model_copy(update={"evaluation": evaluation})

    def check_policy(self, policy: Policy) -> None:
        if self.evaluation.samples > policy.size:
            raise ValueError("evaluation.samples must not exceed policy.size: measured are a generation's own samples")


class VaeModel(Frozen):
    """The layers of a VAE's encoder; the decoder mirrors them.

    Attributes:
        channels: channels of the convolutions, outermost first; each halves the image (4 × 4 kernels, stride 2).
        hidden: units of the fully connected layers between the convolutions (or the pixels) and the code.
        latent: dimensions of the code.
    """

    channels: tuple[Width, ...] = Field((), max_length=5)
    hidden: tuple[Width, ...] = Field((), max_length=5)
    latent: int = Field(gt=0)

    @model_validator(mode="after")
    def _has_layers(self) -> VaeModel:
        if not self.channels and not self.hidden:
            raise ValueError("a VAE needs layers: give channels, hidden, or both")
        return self


class VaeSampler(Frozen):
    """How a VAE makes the next generation's training images from codes drawn from the prior.

    Attributes:
        pixels: ``means``: the decoder's Bernoulli means, as grey values. ``draws``: a black or white pixel from each.
    """

    pixels: Literal["means", "draws"]
    batch_size: int = Field(250, ge=1)


class VaeSettings(ImageSettings):
    """The workload section of a VAE task.

    Attributes:
        pixels: pixels of the real images. ``grey``: the values of the data. ``drawn``: black or white, drawn once for
            every real image with the grey value as the probability of white, so that p is the probability of a symbol.
    """

    kind: Literal["vae"]
    model: VaeModel
    sampler: VaeSampler
    pixels: Literal["grey", "drawn"] = "grey"

    @model_validator(mode="after")
    def _layers_divide_the_image(self) -> VaeSettings:
        if self.image_size % 2 ** len(self.model.channels):
            raise ValueError(f"image_size must be a multiple of {2 ** len(self.model.channels)}: each layer halves it")
        return self

    @model_validator(mode="after")
    def _samples_are_like_the_data(self) -> VaeSettings:
        if self.pixels == "drawn" and self.sampler.pixels != "draws":
            raise ValueError("sampler.pixels: where real pixels are drawn, black or white, so are those of samples")
        return self


class UNet(Frozen):
    """A `diffusers` UNet2DModel.

    Attributes:
        channels: channels per resolution, finest first. layers: residual blocks per resolution.
        attention: resolutions (0 is the finest) with self-attention. mid_attention: self-attention in the middle block.
        groups: groups of the group normalisation.
        ddpm_convention: follow the original DDPM in the details where the defaults of `diffusers` differ.
    """

    channels: tuple[Width, ...] = Field(min_length=2, max_length=6)
    layers: int = Field(1, ge=1)
    attention: tuple[int, ...] = ()
    mid_attention: bool = False
    groups: int = Field(8, ge=1)
    ddpm_convention: bool = False


class NoiseSchedule(Frozen):
    """DDPM's forward process, and the number of steps that sampling takes.

    Attributes:
        beta_end: end of the linear schedule. If the last step is not pure noise, the first step of a sampler with few
            steps divides by a larger number and so has a smaller error.
    """

    train_steps: int = Field(1000, ge=10)
    beta_schedule: Literal["linear", "squaredcos_cap_v2"] = "linear"
    beta_end: float = Field(0.02, gt=0, lt=1)
    sample_steps: int = Field(ge=1)


class Normalisation(Frozen):
    """Normalisation of a pixel in [0, 1] before the network: (pixel - mean) / std. The default maps to [-1, 1].

    Sampling starts from noise around 0. If the mean of the data is far from 0, images start too bright or too dark.
    """

    mean: float = Field(0.5, ge=0, le=1)
    std: float = Field(0.5, gt=0, le=1)


class DiffusionSampler(Frozen):
    """How noise becomes an image.

    Attributes:
        process: ``ddim``: no noise is added (η = 0), so an image is a function of its initial noise, and steps can be
            left out, which costs quality. ``ancestral``: a draw from the model itself. Every step of the forward
            process is reversed, with fresh noise of the posterior's variance (arXiv 2006.11239, equation 7).
        batch_size: images per pass of the network.
    """

    process: Literal["ddim", "ancestral"] = "ddim"
    batch_size: int = Field(250, ge=1)


class DiffusionSettings(ImageSettings):
    """The workload section of a diffusion task.

    Attributes:
        sigma: frozen scale of the residuals in log p = -err² / (2σ²): the RMS error of CE's noise prediction at
            generation 0. None: not yet measured; `collapsebench calibrate` does it.
        ema_decay: decay of the exponential moving average of the weights, which is then the model; None: use the last
            weights.
    """

    kind: Literal["diffusion"]
    model: UNet
    schedule: NoiseSchedule
    normalisation: Normalisation = Normalisation(mean=0.5, std=0.5)
    sampler: DiffusionSampler = DiffusionSampler(batch_size=250)
    sigma: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _resolutions_divide_the_image(self) -> DiffusionSettings:
        if self.image_size % 2 ** (len(self.model.channels) - 1):
            raise ValueError(f"image_size must be a multiple of {2 ** (len(self.model.channels) - 1)}")
        return self

    @model_validator(mode="after")
    def _ancestral_sampling_takes_every_step(self) -> DiffusionSettings:
        if self.sampler.process == "ancestral" and self.schedule.sample_steps != self.schedule.train_steps:
            raise ValueError("schedule.sample_steps: ancestral sampling takes every step, so it equals train_steps")
        return self

    def reduced(self, share: Share) -> Self:
        if self.sampler.process == "ancestral":  # with fewer steps it would be another model
            return super().reduced(share)
        schedule = self.schedule.model_copy(update={"sample_steps": share(self.schedule.sample_steps, 4)})
        return super().reduced(share).model_copy(update={"schedule": schedule})
