"""The diffusion model: with cross entropy the usual objective; forward process, sampler and average of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from command import collapsebench
from objective_of import objective_of
from tiny_task import SIDE, write_tiny_task
from torch import Tensor

from collapsebench.api import run
from collapsebench.errors import Diverged, TaskError, UserError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_loss
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.images import diffusion
from collapsebench.workloads.images.diffusion import DiffusionWorkload
from collapsebench.workloads.images.settings import UNet

RANDOMNESS = Randomness("tiny-diffusion@1", 0)
TRAIN_STEPS, FIRST_UPDATES = 100, 6
SHORT: dict[str, Any] = {
    "horizon": 2,
    "workload.training.first.updates": FIRST_UPDATES,
    "workload.training.later.updates": 4,
    "workload.schedule.sample_steps": 3,
}
ANCESTRAL: dict[str, Any] = {
    "workload.sampler": {"process": "ancestral"},
    "workload.schedule.sample_steps": TRAIN_STEPS,
    "workload.schedule.beta_schedule": "squaredcos_cap_v2",
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of a short diffusion task; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp("diffusion"), "diffusion", **SHORT)


@pytest.fixture(scope="module")
def workload(task: Path) -> DiffusionWorkload:
    return workload_of(task)


@pytest.fixture(scope="module")
def model(workload: DiffusionWorkload) -> Any:
    """A model that has learned something; not to be changed."""
    return trained(workload)


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., DiffusionWorkload]:
    """The workload of the short task with changes."""
    return lambda **changes: workload_of(write_tiny_task(tmp_path / "variant", "diffusion", **(SHORT | changes)))


def workload_of(task: Path) -> DiffusionWorkload:
    made = load_workload(load_task(task), "cpu")
    assert isinstance(made, DiffusionWorkload)
    return made


def trained(workload: DiffusionWorkload, after_update: Callable[[Any], None] = lambda model: None) -> Any:
    """A new model trained for generation 0; `after_update` is called with it after every update."""
    model = workload.new_model(RANDOMNESS)
    train(workload, model, workload.real, load_loss("ce"), 0, RANDOMNESS, lambda n: after_update(model))
    return model


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predicted_and_true_noise(model: Any, pixels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """DDPM's forward process from its definition: x_t = √ᾱ x_0 + √(1 - ᾱ) ε, with β from 0.0001 to 0.02."""
    noise = torch.randn(pixels.shape, generator=draws)
    steps = torch.randint(TRAIN_STEPS, (len(pixels),), generator=draws)
    remaining = (1 - torch.linspace(1e-4, 0.02, TRAIN_STEPS)).cumprod(0)[steps].view(-1, 1, 1, 1)
    noisy = remaining.sqrt() * (pixels / 127.5 - 1) + (1 - remaining).sqrt() * noise
    return model(noisy, steps).sample, noise


def objective(workload: DiffusionWorkload, model: Any, loss: Loss) -> Tensor:
    return objective_of(workload, model, workload.real[:16], loss)


# The objective


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_objective_of_cross_entropy_is_the_mean_squared_error_whatever_sigma_is(
    model: Any, variant: Callable[..., DiffusionWorkload], sigma: float
) -> None:
    workload = variant(**{"workload.sigma": sigma})
    predicted, noise = predicted_and_true_noise(model, workload.real.items[:16], generator())
    expected = torch.nn.functional.mse_loss(predicted, noise)
    found = objective(workload, model, load_loss("ce"))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(value, list(model.parameters())) for value in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_other_losses_depend_on_sigma(model: Any, variant: Callable[..., DiffusionWorkload]) -> None:
    narrow, wide = (
        objective(variant(**{"workload.sigma": sigma}), model, load_loss("tce:gamma=0.5")).item() for sigma in (0.1, 3)
    )
    assert narrow > wide


class KeepsElements(Loss):
    """Cross entropy that keeps what it sees."""

    needs_logits: ClassVar = True
    seen: ClassVar[list[Elements]] = []

    def elementwise(self, e: Elements) -> Tensor:
        KeepsElements.seen.append(e)
        return -e.log_p


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_log_p_is_minus_the_squared_error_by_twice_the_variance(
    model: Any, variant: Callable[..., DiffusionWorkload], sigma: float
) -> None:
    workload = variant(**{"workload.sigma": sigma})
    objective(workload, model, KeepsElements())
    e = KeepsElements.seen[-1]
    assert torch.equal(e.log_p, -((e.prediction - e.target) ** 2) / (2 * sigma**2))
    predicted, noise = predicted_and_true_noise(model, workload.real.items[:16], generator())
    assert torch.equal(e.target, noise)
    torch.testing.assert_close(e.prediction, predicted, rtol=1e-5, atol=1e-6)


# Without sigma


@pytest.fixture
def without_sigma(tmp_path: Path) -> Path:
    return write_tiny_task(tmp_path / "task", "diffusion", **(SHORT | {"workload.sigma": None}))


def test_without_sigma_cross_entropy_and_the_control_run_with_the_same_results_as_with_it(
    task: Path, without_sigma: Path, tmp_path: Path
) -> None:
    for method in ("ce", "control"):
        path = run(without_sigma, method, out=tmp_path, generations=1, device="cpu")
        assert [RunDirectory(path).state(g) for g in (0, 1)] == ["ok", "ok"]
    found, known = (
        json.loads((p / "gen-0" / "metrics.json").read_text())["metrics"]["noise_rms"]["value"]
        for p in (tmp_path / "tiny-diffusion@1/ce/seed-0", run(task, "ce", out=tmp_path / "with", generations=0))
    )
    assert found == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("method", ["focal", "tce:gamma=0.5", KeepsElements])
def test_without_sigma_other_methods_are_refused_before_anything_is_computed(
    without_sigma: Path, tmp_path: Path, method: Any
) -> None:
    with pytest.raises(UserError, match=r"no sigma yet, so log p is undefined for .*calibrate"):
        run(without_sigma, method, out=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_without_sigma_the_command_line_says_how_to_measure_it(without_sigma: Path, tmp_path: Path) -> None:
    finished = collapsebench("run", without_sigma, "--method", "focal", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2
    told = " ".join(finished.err.split())
    assert "has no sigma yet" in told
    assert "focal" in told
    assert "collapsebench calibrate" in told
    assert "Traceback" not in finished.err


# Sampling


def images(workload: DiffusionWorkload, model: Any, generation: int = 0, n: int = 20) -> Tensor:
    return workload.sample(model, workload.real[:n], generation, RANDOMNESS, lambda _: None)


def test_samples_are_a_function_of_the_noise(workload: DiffusionWorkload, model: Any) -> None:
    first = images(workload, model)
    torch.rand(3)
    assert torch.equal(images(workload, model), first)
    assert not torch.equal(images(workload, model, generation=1), first)
    assert first.shape == (20, 1, SIDE, SIDE)
    assert first.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in first}) == 20


def test_samples_do_not_depend_on_the_batch_size(
    workload: DiffusionWorkload, model: Any, variant: Callable[..., DiffusionWorkload]
) -> None:
    in_sevens = images(variant(**{"workload.sampler": {"batch_size": 7}}), model).int()
    assert int((in_sevens - images(workload, model).int()).abs().max()) <= 1


def test_ancestral_sampling_reverses_every_step_with_fresh_noise(
    model: Any, variant: Callable[..., DiffusionWorkload], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    original = diffusion.DDPMScheduler.step

    def spy(self: Any, predicted: Tensor, step: Tensor, *rest: Any, generator: torch.Generator) -> Any:
        steps.append(int(step))
        return original(self, predicted, step, *rest, generator=generator)

    monkeypatch.setattr(diffusion.DDPMScheduler, "step", spy)
    workload = variant(**ANCESTRAL)
    first = images(workload, model)
    assert steps == list(range(TRAIN_STEPS - 1, -1, -1))
    assert torch.equal(images(workload, model), first)
    in_sevens = images(
        variant(**ANCESTRAL | {"workload.sampler": {"process": "ancestral", "batch_size": 7}}), model
    ).int()
    assert int((in_sevens - first.int()).abs().max()) <= 1


def test_ancestral_samples_of_the_best_denoiser_have_the_distribution_of_equation_7(
    variant: Callable[..., DiffusionWorkload],
) -> None:
    """For pixels from N(m, s²) the best prediction is known, and so are mean and variance of every reverse step."""
    workload = variant(**ANCESTRAL | {"workload.normalisation": {"mean": 0.5, "std": 0.5}})
    mean, deviation = 0.2, 0.1  # in the units of the network

    class Best(torch.nn.Module):
        def forward(self, noisy: Tensor, step: Tensor) -> Any:
            left = kept[int(step)].float()
            away = noisy - left.sqrt() * mean
            return SimpleNamespace(sample=(1 - left).sqrt() * away / (left * deviation**2 + 1 - left))

    kept = workload._noising.alphas_cumprod.double()
    variance = 1.0
    for step in range(TRAIN_STEPS - 1, -1, -1):
        left, before = float(kept[step]), float(kept[step - 1]) if step else 1.0
        beta = 1 - left / before
        guess = left**0.5 * deviation**2 / (left * deviation**2 + 1 - left)  # of the image, per unit of its noisy form
        factor = before**0.5 * beta / (1 - left) * guess + (1 - beta) ** 0.5 * (1 - before) / (1 - left)
        variance = factor**2 * variance + (1 - before) / (1 - left) * beta
    pixels = (workload._denoised(Best(), 400, generator(), lambda _: None).double() / 255 - 0.5) / 0.5
    assert float(pixels.mean()) == pytest.approx(mean, abs=0.002)
    assert float(pixels.std()) == pytest.approx(variance**0.5, rel=0.01)
    assert 0.8 * deviation < variance**0.5 < deviation  # the posterior's variance is that for a known image


def test_ancestral_sampling_that_leaves_out_steps_is_a_task_error(variant: Callable[..., DiffusionWorkload]) -> None:
    with pytest.raises(TaskError, match="ancestral sampling takes every step, so it equals train_steps"):
        variant(**{"workload.sampler": {"process": "ancestral"}})


def test_ancestral_sampling_keeps_its_steps_in_a_try_out_with_a_smaller_budget(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "diffusion", **SHORT | ANCESTRAL)
    settings = load_task(file, budget=0.1).spec.workload
    assert settings.schedule.sample_steps == settings.schedule.train_steps == TRAIN_STEPS


def test_sampling_starts_from_pure_noise_and_ends_at_the_first_step(
    workload: DiffusionWorkload, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    original = diffusion.DDIMScheduler.step

    def spy(self: Any, predicted: Tensor, step: Tensor, *rest: Any) -> Any:
        steps.append(int(step))
        return original(self, predicted, step, *rest)

    monkeypatch.setattr(diffusion.DDIMScheduler, "step", spy)
    images(workload, model)
    assert steps == [99, 66, 32]


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("the other schedule")


def test_training_and_sampling_have_a_schedule_each(
    workload: DiffusionWorkload, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as only_training:
        only_training.setattr(diffusion, "DDIMScheduler", forbidden)
        before = objective(workload, model, load_loss("ce")).item()
    with monkeypatch.context() as only_sampling:
        only_sampling.setattr(diffusion, "DDPMScheduler", forbidden)
        images(workload, model)
    assert objective(workload, model, load_loss("ce")).item() == before


def test_picture_shows_the_same_noise_in_every_generation(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noises: list[Tensor] = []
    shown: list[Tensor] = []
    denoised, show = DiffusionWorkload._denoised, DiffusionWorkload.show

    def spy_denoised(
        self: DiffusionWorkload, model: Any, n: int, draws: torch.Generator, on_elements: Callable[[int], None]
    ) -> Tensor:
        noises.append(torch.randn(n, generator=draws.clone_state()))
        return denoised(self, model, n, draws, on_elements)

    def spy_show(self: DiffusionWorkload, *arguments: Any) -> None:
        show(self, *arguments)
        shown.append(noises.pop())

    monkeypatch.setattr(DiffusionWorkload, "_denoised", spy_denoised)
    monkeypatch.setattr(DiffusionWorkload, "show", spy_show)
    run(task, "ce", out=tmp_path, generations=1, device="cpu")
    run(task, "focal", out=tmp_path, generations=0, device="cpu")
    assert len(shown) == 3
    assert all(torch.equal(shown[0], noise) for noise in shown)
    assert len({noise.numpy().tobytes() for noise in noises}) == 2  # samples start elsewhere in every generation


def test_weights_that_are_not_numbers_diverge_in_sampling(workload: DiffusionWorkload) -> None:
    model = workload.new_model(RANDOMNESS)
    torch.nn.init.constant_(model.conv_out.bias, torch.nan)
    with pytest.raises(Diverged, match=r"sampled images not finite"):
        images(workload, model)


# The average of the weights


@pytest.mark.parametrize("decay", [0.2, 0.999])
def test_model_is_the_moving_average_of_its_weights(variant: Callable[..., DiffusionWorkload], decay: float) -> None:
    passed: list[list[Tensor]] = []

    def keep(model: Any) -> None:
        passed.append([p.detach().clone() for p in model.parameters()])

    found = list(trained(variant(**{"workload.ema_decay": decay}), keep).parameters())
    assert len(passed) == FIRST_UPDATES
    average = passed[0]
    for step, weights in enumerate(passed[1:], start=1):
        kept = min(decay, (1 + step) / (10 + step))  # the warm-up of diffusers' EMAModel
        average = [kept * a + (1 - kept) * w for a, w in zip(average, weights, strict=True)]
    for ours, theirs, last in zip(found, average, passed[-1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert not torch.equal(ours, last)


def test_average_changes_the_saved_weights_and_not_the_path_of_training(
    workload: DiffusionWorkload, variant: Callable[..., DiffusionWorkload], tmp_path: Path
) -> None:
    passed: list[list[Tensor]] = []
    model = trained(workload)  # not that of the module, which may have been trained under other settings of torch
    averaging = variant(**{"workload.ema_decay": 0.9})
    averaged = trained(averaging, lambda m: passed.append([p.detach().clone() for p in m.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(passed[-1], model.parameters(), strict=True))
    for name, one in (("averaged", averaged), ("last", model)):
        workload.save_model(one, tmp_path / name)
    assert (tmp_path / "averaged").read_bytes() != (tmp_path / "last").read_bytes()


# The metric


@torch.no_grad()
def test_noise_rms_is_that_of_an_independent_computation(workload: DiffusionWorkload, model: Any) -> None:
    measured = workload.evaluate(model, images(workload, model, n=48), lambda n: None)["noise_rms"]
    draws = Randomness(RANDOMNESS.task, 0).generator(0, "noise_rms")
    selection = workload.data.selection.pixels
    looks, rest = divmod(measured.n, selection.numel())
    assert looks > 0 == rest
    errors = []
    for _ in range(looks):
        predicted, noise = predicted_and_true_noise(model, selection, draws)
        errors.append((predicted - noise).double().square())
    assert measured.value == pytest.approx(torch.cat(errors).mean().sqrt().item(), rel=1e-5)


@torch.no_grad()
def test_denoising_loss_is_the_mean_squared_error_on_the_test_images(workload: DiffusionWorkload, model: Any) -> None:
    measured = workload.evaluate(model, images(workload, model, n=48), lambda n: None)
    draws = Randomness(RANDOMNESS.task, 0).generator(0, "denoising_loss")
    test = workload.data.test.pixels
    looks, rest = divmod(measured["denoising_loss"].n, test.numel())
    assert looks > 0 == rest
    pairs = [predicted_and_true_noise(model, test, draws) for _ in range(looks)]
    expected = torch.cat([(predicted - noise).double().square() for predicted, noise in pairs]).mean().item()
    assert measured["denoising_loss"].value == pytest.approx(expected, rel=1e-5)
    assert measured["selection_denoising_loss"].value == pytest.approx(measured["noise_rms"].value ** 2)


def test_noise_rms_is_the_same_when_evaluated_twice(workload: DiffusionWorkload, model: Any) -> None:
    samples = images(workload, model, n=48)
    first, second = (workload.evaluate(model, samples, lambda n: None) for _ in range(2))
    assert first == second


# The model


def test_saved_model_is_read_back(workload: DiffusionWorkload, model: Any, tmp_path: Path) -> None:
    workload.save_model(model, tmp_path / "model.safetensors")
    again = workload.load_model(tmp_path / "model.safetensors").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_resolutions_that_do_not_divide_the_image_are_a_task_error(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "diffusion", **{"workload.model.channels": [4, 4, 4, 4]})
    with pytest.raises(TaskError, match=r"image_size must be a multiple of 8"):
        load_task(file)


def test_image_size_that_is_not_a_multiple_of_4_is_a_task_error(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "diffusion", **{"workload.image_size": 14})
    with pytest.raises(TaskError, match=r"workload.image_size: .*multiple of 4"):
        load_task(file)


def unet(settings: UNet, channels: int, size: int) -> Any:
    """A network without data or memory."""
    bare = DiffusionWorkload.__new__(DiffusionWorkload)
    bare.settings = SimpleNamespace(model=settings, image_size=size)
    bare.data = SimpleNamespace(channels=channels)
    with torch.device("meta"):
        return bare._bare_model()


def test_ddpm_of_cifar10_has_its_number_of_parameters() -> None:
    settings = UNet(
        channels=(128, 256, 256, 256), layers=2, attention=(1,), mid_attention=True, groups=32, ddpm_convention=True
    )
    model = unet(settings, channels=3, size=32)
    assert sum(p.numel() for p in model.parameters()) == 35_746_307
    assert model.config.down_block_types == ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
    assert model.config.up_block_types == ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")


def test_attention_is_where_it_was_asked_for() -> None:
    plain = unet(UNet(channels=(8, 16)), channels=1, size=16)
    middle = unet(UNet(channels=(8, 16), mid_attention=True), channels=1, size=16)
    coarse = unet(UNet(channels=(8, 16), attention=(1,)), channels=1, size=16)
    attending = [{n.split(".")[0] for n, _ in m.named_modules() if "attentions." in n} for m in (plain, middle, coarse)]
    assert attending == [set(), {"mid_block"}, {"down_blocks", "up_blocks"}]


def test_new_models_differ_by_seed_and_by_nothing_else(workload: DiffusionWorkload) -> None:
    torch.manual_seed(5)
    first, same, other = (workload.new_model(Randomness("tiny-diffusion@1", seed)) for seed in (0, 0, 1))
    assert torch.equal(first.conv_in.weight, same.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


# What the network sees of a pixel


def test_network_sees_pixels_as_the_task_normalises_them(variant: Callable[..., DiffusionWorkload]) -> None:
    changed = {"workload.normalisation": {"mean": 0.2, "std": 0.25}, "workload.schedule.beta_end": 0.01}
    workload = variant(**changed)
    seen: list[tuple[Tensor, Tensor]] = []

    def network(noisy: Tensor, steps: Tensor) -> Any:
        seen.append((noisy, steps))
        return SimpleNamespace(sample=torch.zeros_like(noisy))

    _, noise = workload._predict(network, workload.real.items[:8], generator())
    betas = torch.linspace(0.0001, 0.01, TRAIN_STEPS, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)[seen[0][1]].view(-1, 1, 1, 1)
    pixels = (seen[0][0] - (1 - kept).sqrt() * noise) / kept.sqrt() * 0.25 + 0.2
    torch.testing.assert_close(pixels, workload.real.items[:8].double() / 255, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mean", [0.13, 0.5])
def test_sampler_returns_to_pixels(variant: Callable[..., DiffusionWorkload], mean: float) -> None:
    """A network that takes all of its input for noise leaves images of 0, which are pixels of the mean."""
    workload = variant(**{"workload.normalisation": {"mean": mean, "std": 0.3}})

    class AllNoise(torch.nn.Module):
        def forward(self, images: Tensor, step: Tensor) -> Any:
            return SimpleNamespace(sample=images / (1 - kept[int(step)]).sqrt().float())

    betas = torch.linspace(0.0001, 0.02, TRAIN_STEPS, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    images = workload._denoised(AllNoise(), 4, generator(), lambda _: None)
    assert float((images.float() - 255 * mean).abs().max()) <= 0.51
