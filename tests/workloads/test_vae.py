"""The VAE: its objective is the negative ELBO, its metric is the same number however it is computed; its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from objective_of import objective_of
from tiny_task import SIDE, write_tiny_task
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from collapsebench.api import run
from collapsebench.errors import Diverged, TaskError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_loss
from collapsebench.policies import REAL, TrainingSet
from collapsebench.running.training import Clock, method_loss, train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.images.settings import VaeModel
from collapsebench.workloads.images.vae import Vae, VaeWorkload
from collapsebench.workloads.pictures import SHOWN

LATENT = 3
RANDOMNESS = Randomness("tiny-vae@1", 0)
SHORT: dict[str, Any] = {"horizon": 2, "workload.training.first.updates": 6, "workload.training.later.updates": 4}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of a short VAE task; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp("vae"), "vae", **SHORT)


@pytest.fixture(scope="module")
def workload(task: Path) -> VaeWorkload:
    return workload_of(task)


@pytest.fixture(scope="module")
def model(workload: VaeWorkload) -> Vae:
    """A model that has learned something; not to be changed."""
    made = workload.new_model(RANDOMNESS)
    train(workload, made, workload.real, load_loss("ce"), 0, RANDOMNESS, lambda n: None)
    return made


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., VaeWorkload]:
    """The workload of the short task with changes."""
    return lambda **changes: workload_of(write_tiny_task(tmp_path / "variant", "vae", **(SHORT | changes)))


def workload_of(task: Path) -> VaeWorkload:
    made = load_workload(load_task(task), "cpu")
    assert isinstance(made, VaeWorkload)
    return made


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def likelihood_and_kl(model: Vae, images: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """Per image in nats, (n,) each: expected log-likelihood of black-and-white images, KL of the code to the prior."""
    mean, log_variance = model.encode(images)
    code = Normal(mean, (log_variance / 2).exp())
    kl = kl_divergence(code, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1)
    pixels = Bernoulli(logits=model.decode(code.mean + code.stddev * epsilon))
    white, black = pixels.log_prob(torch.ones_like(images)), pixels.log_prob(torch.zeros_like(images))
    return (images * white + (1 - images) * black).sum((1, 2, 3)), kl


def objective(workload: VaeWorkload, model: Vae, batch: TrainingSet, method: str = "ce") -> Tensor:
    return objective_of(workload, model, batch, load_loss(method))


# The objective


def test_objective_of_cross_entropy_is_the_negative_elbo(workload: VaeWorkload, model: Vae) -> None:
    batch = workload.real[:16]
    likelihood, kl = likelihood_and_kl(model, batch.items / 255, torch.randn(16, LATENT, generator=generator()))
    expected = (kl - likelihood).mean()
    assert objective(workload, model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_of_cross_entropy_is_that_of_the_usual_script(workload: VaeWorkload, model: Vae) -> None:
    batch = workload.real[:16]
    images = batch.items.float() / 255
    mean, log_variance = model.encode(images)
    code = mean + torch.exp(0.5 * log_variance) * torch.randn(16, LATENT, generator=generator())
    rebuilt = F.binary_cross_entropy(torch.sigmoid(model.decode(code)), images, reduction="sum")
    kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    expected = torch.autograd.grad((rebuilt + kl) / 16, list(model.parameters()))
    found = torch.autograd.grad(objective(workload, model, batch), list(model.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_other_losses_change_the_pixels_and_leave_the_kl_divergence(workload: VaeWorkload, model: Vae) -> None:
    batch = workload.real[:16]
    images = batch.items / 255
    epsilon = torch.randn(16, LATENT, generator=generator())
    _, kl = likelihood_and_kl(model, images, epsilon)
    logits = model.decode(_code(model, images, epsilon))
    log_p = images * F.logsigmoid(logits) + (1 - images) * F.logsigmoid(-logits)
    dropped = torch.where(log_p.exp() <= 0.5, -log_p, 0.0)
    expected = dropped.sum() / 16 + kl.mean()
    assert objective(workload, model, batch, "tce:gamma=0.5").item() == pytest.approx(expected.item(), rel=1e-4)
    assert 0 < float((dropped == 0).double().mean()) < 1


def _code(model: Vae, images: Tensor, epsilon: Tensor) -> Tensor:
    mean, log_variance = model.encode(images)
    return mean + (0.5 * log_variance).exp() * epsilon


# The metric


def negative_elbo(workload: VaeWorkload, model: Vae) -> float:
    samples = workload.sample(model, workload.real[:48], 0, RANDOMNESS, lambda n: None)
    measured = workload.evaluate(model, samples, lambda n: None)
    assert measured["negative_elbo"].n == len(workload.data.test)
    parts = measured["reconstruction"].value + measured["kl"].value
    assert measured["negative_elbo"].value == pytest.approx(parts, rel=1e-12)
    return measured["negative_elbo"].value


@torch.no_grad()
def test_negative_elbo_is_that_of_an_independent_computation(workload: VaeWorkload, model: Vae) -> None:
    images = workload.data.test.pixels / 255
    seed = Randomness(RANDOMNESS.task, 0).number(0, "elbo")
    likelihood, kl = likelihood_and_kl(model, images, torch.randn(len(images), LATENT, generator=generator(seed)))
    expected = float((kl.double() - likelihood.double()).mean())
    assert negative_elbo(workload, model) == pytest.approx(expected, rel=1e-5)


def test_negative_elbo_is_the_same_when_evaluated_twice(workload: VaeWorkload, model: Vae) -> None:
    assert negative_elbo(workload, model) == negative_elbo(workload, model)


def test_negative_elbo_does_not_depend_on_the_batch_size(
    workload: VaeWorkload, model: Vae, variant: Callable[..., VaeWorkload]
) -> None:
    in_sevens = variant(**{"workload.evaluation.batch_size": 7})
    assert negative_elbo(in_sevens, model) == pytest.approx(negative_elbo(workload, model), rel=1e-5)


def test_floor_of_the_negative_elbo_is_that_of_the_training_images_mean(workload: VaeWorkload) -> None:
    train, test, selection = (
        getattr(workload.data, name).pixels.numpy().astype(np.float64) / 255 for name in ("train", "test", "selection")
    )
    p = train.mean(0).clip(0.001, 0.999)
    floors = workload.floors()
    for name, split in (("negative_elbo", test), ("selection_negative_elbo", selection)):
        per_pixel = -(split * np.log(p) + (1 - split) * np.log1p(-p))
        assert floors[name] == pytest.approx(per_pixel.reshape(len(split), -1).sum(1).mean(), rel=1e-5)


# Pixels that are black or white

DRAWN: dict[str, Any] = {"workload.pixels": "drawn", "workload.sampler.pixels": "draws"}


def test_drawn_pixels_are_black_or_white_with_the_grey_value_as_their_chance(
    workload: VaeWorkload, variant: Callable[..., VaeWorkload]
) -> None:
    found = variant(**DRAWN).data
    for name in ("train", "selection", "test"):
        grey, drawn = getattr(workload.data, name).pixels, getattr(found, name).pixels
        assert set(drawn.unique().tolist()) == {0, 255}
        assert drawn.shape == grey.shape
        assert not drawn[grey == 0].any()
        for low, high in ((5, 30), (100, 130), (150, 220)):
            chosen = (grey >= low) & (grey < high)
            n = int(chosen.sum())
            error = float(drawn[chosen].double().mean() - grey[chosen].double().mean()) / 255
            assert n > 20
            assert abs(error) < 4 * 0.5 / n**0.5
    assert found.listing == workload.data.listing, "the images are the same ones"
    assert found.sha256 != workload.data.sha256, "what is trained on is not"


def test_drawn_pixels_are_the_same_in_every_task_with_the_same_images(variant: Callable[..., VaeWorkload]) -> None:
    one, other = variant(**DRAWN), variant(**DRAWN, name="another", **{"policy.size": 40})
    assert torch.equal(one.data.train.pixels, other.data.train.pixels)
    assert one.data_sha256 == other.data_sha256


def test_drawn_pixels_and_grey_samples_are_a_task_error(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "vae", **{"workload.pixels": "drawn"})
    with pytest.raises(TaskError, match=r"sampler.pixels: where real pixels are drawn, black or white"):
        load_task(file)


def test_p_of_a_drawn_pixel_is_the_decoders_probability_of_it(variant: Callable[..., VaeWorkload]) -> None:
    drawn = variant(**DRAWN)
    items = drawn.real.items[:8]
    observed = drawn.observe(drawn.new_model(RANDOMNESS), items, generator(), full=True)
    assert observed.prediction is not None
    white = observed.prediction.sigmoid()
    torch.testing.assert_close(observed.log_p.exp(), torch.where(items == 255, white, 1 - white))
    assert drawn.task.spec.symbols


def test_p_of_a_grey_pixel_is_no_probability(workload: VaeWorkload) -> None:
    assert not workload.task.spec.symbols


# The size of a loss


class Times(Loss):
    """Cross entropy times a number."""

    factor: float = 0.5

    def elementwise(self, e: Elements) -> Tensor:
        return -self.factor * e.log_p


class FromLogits(Loss):
    """Cross entropy written as a function of the prediction, times a number."""

    needs_logits: ClassVar = True
    factor: float = 3.0

    def elementwise(self, e: Elements) -> Tensor:
        return self.factor * F.binary_cross_entropy_with_logits(e.prediction, e.target, reduction="none")


class ForgetsSure(Loss):
    """Cross entropy without the elements that the model is surer of than a threshold."""

    gamma: float = 0.5

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (e.log_p.exp() <= self.gamma).detach()


SCALED: dict[str, Any] = DRAWN | {"workload.training.rescale": True, "workload.training.clip_norm": None}


def trained_with(workload: VaeWorkload, loss: Loss) -> dict[str, Tensor]:
    model = workload.new_model(RANDOMNESS)
    train(workload, model, workload.real, loss, 0, RANDOMNESS, lambda n: None)
    return model.state_dict()


def test_size_of_a_loss_is_no_method_where_the_task_says_so(variant: Callable[..., VaeWorkload]) -> None:
    scaled = variant(**SCALED)
    whole = trained_with(scaled, load_loss("ce"))
    for factor in (0.5, 2.0**-20):  # exact in binary, so to the last bit
        half = trained_with(scaled, Times(factor=factor))
        assert all(torch.equal(half[name], whole[name]) for name in whole)
    for loss in (Times(factor=1e-3), FromLogits()):
        other = trained_with(scaled, loss)
        assert all(torch.allclose(other[name], whole[name], atol=2e-4) for name in whole)


def test_size_of_a_loss_shifts_the_balance_with_the_kl_divergence_elsewhere(
    variant: Callable[..., VaeWorkload],
) -> None:
    own = variant(**SCALED | {"workload.training.rescale": False})
    whole, half = (trained_with(own, Times(factor=factor)) for factor in (1.0, 0.5))
    assert not all(torch.allclose(half[name], whole[name], atol=2e-3) for name in whole)


def test_cross_entropy_trains_as_it_would_unscaled(variant: Callable[..., VaeWorkload]) -> None:
    scaled, own = (variant(**SCALED | {"workload.training.rescale": rescale}) for rescale in (True, False))
    ours, theirs = (trained_with(workload, load_loss("ce")) for workload in (scaled, own))
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)


def test_loss_that_leaves_elements_out_has_cross_entropys_gradient_on_the_others(
    variant: Callable[..., VaeWorkload], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled = variant(**SCALED, **{"workload.training.first.updates": 1})
    passed: list[Tensor] = []
    seen: list[Tensor] = []
    monkeypatch.setattr(
        scaled.processes, "backward", lambda tensors, gradients: (seen.append(tensors[0]), passed.append(gradients[0]))
    )
    trained_with(scaled, ForgetsSure())
    (gradient,), (log_p,) = passed, seen
    p = log_p.detach().exp()
    kept = p <= 0.5
    assert 0 < float(kept.double().mean()) < 1
    assert torch.equal(gradient != 0, kept)
    at_prediction = float((gradient.abs() * (1 - p)).sum())
    cross_entropys = float((1 - p).sum()) / len(log_p)  # of the sum over pixels, in the mean over images
    assert at_prediction == pytest.approx(cross_entropys, rel=1e-5)


# Samples and pictures


def test_means_are_grey_and_draws_black_or_white(
    workload: VaeWorkload, model: Vae, variant: Callable[..., VaeWorkload]
) -> None:
    prompts = workload.real[:48]
    means = workload.sample(model, prompts, 0, RANDOMNESS, lambda n: None)
    draws = variant(**{"workload.sampler.pixels": "draws"}).sample(model, prompts, 0, RANDOMNESS, lambda n: None)
    assert means.shape == draws.shape == (48, 1, SIDE, SIDE)
    assert means.dtype == draws.dtype == torch.uint8
    assert len(set(means.flatten().tolist())) > 2
    assert set(draws.flatten().tolist()) == {0, 255}
    assert float(draws.double().mean()) == pytest.approx(float(means.double().mean()), abs=5)  # 10 standard errors


@pytest.mark.parametrize("pixels", ["means", "draws"])
def test_samples_are_as_many_and_different_in_small_batches(
    workload: VaeWorkload, model: Vae, variant: Callable[..., VaeWorkload], pixels: str
) -> None:
    counted: list[int] = []
    small = variant(**{"workload.sampler": {"pixels": pixels, "batch_size": 20}})
    samples = small.sample(model, workload.real[:48], 0, RANDOMNESS, counted.append)
    assert counted == [20, 20, 8]
    assert len(samples) == 48
    assert len({image.numpy().tobytes() for image in samples}) > 24


def test_picture_shows_the_same_codes_in_every_generation(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[Tensor] = []
    original = VaeWorkload._means

    def spy(self: VaeWorkload, model: Vae, batch: Tensor) -> Tensor:
        codes.append(batch.clone())
        return original(self, model, batch)

    monkeypatch.setattr(VaeWorkload, "_means", spy)
    run(task, "ce", out=tmp_path, device="cpu")
    run(task, "focal", out=tmp_path, generations=0, device="cpu")
    shown = [batch for batch in codes if len(batch) == SHOWN]
    assert len(shown) == 4
    assert all(torch.equal(shown[0], batch) for batch in shown)
    assert len({batch.numpy().tobytes() for batch in codes}) == 1 + 3  # every generation samples from other ones


def test_picture_depends_on_the_weights_alone(workload: VaeWorkload, model: Vae, tmp_path: Path) -> None:
    pictures = []
    for name, shift in (("one", 0), ("two", 10)):
        (tmp_path / name).mkdir()
        prompts = workload.real[shift : shift + 48]
        samples = workload.sample(model, prompts, shift, RANDOMNESS, lambda n: None)
        workload.show(tmp_path / name, model, samples, prompts, RANDOMNESS)
        pictures.append((tmp_path / name / "samples.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_methods_with_the_same_weights_have_the_same_picture(task: Path, tmp_path: Path) -> None:
    ce, control = (run(task, m, out=tmp_path, generations=0, device="cpu") / "gen-0" for m in ("ce", "control"))
    for name in ("model.safetensors", "samples.png"):
        assert (ce / name).read_bytes() == (control / name).read_bytes()


# The model


def test_architecture_of_the_paper_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        model = Vae(VaeModel(channels=(64, 128), latent=20), 1, 28)
    assert sum(p.numel() for p in model.parameters()) == 647_081


@pytest.mark.parametrize(
    ("channels", "hidden"), [((4, 6, 8), ()), ((), (30,)), ((), (30, 20)), ((4, 6), (30, 20))], ids=str
)
def test_decoder_gives_images_of_the_encoders_shape(channels: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    model = Vae(VaeModel(channels=channels, hidden=hidden, latent=5), 3, 16)
    images = torch.rand(2, 3, 16, 16)
    mean, log_variance = model.encode(images)
    assert mean.shape == log_variance.shape == (2, 5)
    assert model.decode(mean).shape == images.shape
    layers = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]
    coding = {name: [tuple(p.shape) for p in getattr(model, name).parameters() if p.dim() == 2]
              for name in ("encoder", "hidden")}  # fmt: skip
    assert coding["hidden"] == [shape[::-1] for shape in reversed(coding["encoder"])], "mirrored"
    assert len(layers) == 2 * (len(channels) + len(hidden)) + 3


def test_model_without_layers_is_a_task_error(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "vae", **{"workload.model": {"latent": 3}})
    with pytest.raises(TaskError, match=r"a VAE needs layers: give channels, hidden, or both"):
        load_task(file)


def test_saved_model_is_read_back(workload: VaeWorkload, model: Vae, tmp_path: Path) -> None:
    workload.save_model(model, tmp_path / "model.safetensors")
    again = workload.load_model(tmp_path / "model.safetensors").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_are_not_numbers_diverge_in_sampling(workload: VaeWorkload) -> None:
    model = workload.new_model(RANDOMNESS)
    torch.nn.init.constant_(model.expand.weight, torch.nan)
    with pytest.raises(Diverged, match=r"decoded images not finite"):
        workload.sample(model, workload.real[:16], 0, RANDOMNESS, lambda n: None)


def test_new_models_differ_by_seed_and_by_nothing_else(workload: VaeWorkload) -> None:
    torch.manual_seed(5)
    first, same, other = (workload.new_model(Randomness("tiny-vae@1", seed)) for seed in (0, 0, 1))
    assert torch.equal(first.mean.weight, same.mean.weight)
    assert not torch.equal(first.mean.weight, other.mean.weight)


def test_layers_that_do_not_divide_the_image_are_a_task_error(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "vae", **{"workload.model.channels": [4, 4, 4]})
    with pytest.raises(TaskError, match=r"image_size must be a multiple of 8"):
        load_task(file)


class KeepsProvenance(Loss):
    """Cross entropy that keeps what it is told about the origin of pixels."""

    track: ClassVar = "provenance"
    seen: ClassVar[list[Tensor]] = []

    def elementwise(self, e: Elements) -> Tensor:
        KeepsProvenance.seen.append(e.synthetic)
        return -e.log_p


def test_provenance_is_an_images_own(workload: VaeWorkload, model: Vae) -> None:
    mixed = TrainingSet(workload.real.items[:3], torch.tensor([REAL, 0, 1], dtype=torch.int16))
    log_p = workload.observe(model, mixed.items, generator(), full=False).log_p
    method_loss(KeepsProvenance(), {"log_p": log_p}, mixed, Clock(0, 0, 1))
    real, first, second = KeepsProvenance.seen[0]
    assert not bool(real.any())
    assert bool(first.all() and second.all())
