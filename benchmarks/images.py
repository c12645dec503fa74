"""Fréchet distance and diffusion sampling compared with the usual code: PNG folders for clean-fid, and a pipeline.

Run by hand from the checkout, with the micro extra installed (less than two minutes on one core):

    python benchmarks/images.py

Both sides get the same images, the same extractor or model, the same batch size and one thread. Ratios are other /
ours: above 1, collapsebench wins.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cleanfid.fid import compute_fid
from diffusers import DDIMPipeline, DDIMScheduler
from PIL import Image
from torch import Tensor

from collapsebench.metrics.extractors import ClassifierFeatures, cached_features
from collapsebench.metrics.frechet import frechet_distance
from collapsebench.seeding import Randomness
from collapsebench.task import load_task, registered_tasks
from collapsebench.workloads.images.diffusion import DiffusionWorkload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="samples per side")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = registered_tasks()["diffusion-mnist-micro"].with_name("task@1.yaml")  # which samples by DDIM
    workload = DiffusionWorkload(load_task(task), "cpu")
    compare_distance(workload, given.images, given.repeats)
    compare_sampling(workload, given.images, given.repeats)


def compare_distance(workload: DiffusionWorkload, n: int, repeats: int) -> None:
    """Distance of n samples to the real test images: two feature passes for clean-fid; ours caches the real one."""
    extractor = workload.metrics.extractors["classifier"]
    assert isinstance(extractor, ClassifierFeatures)
    real, samples = workload.data.test.pixels, workload.data.train.pixels[:n]

    def ours() -> float:
        features = cached_features(extractor, real, torch.device("cpu"))
        return frechet_distance(features.double().numpy(), extractor.features(samples).double().numpy())

    def on_folders() -> float:
        with tempfile.TemporaryDirectory() as name:
            folders = [write_png(Path(name) / part, images) for part, images in (("real", real), ("fake", samples))]
            return compute_fid(
                *map(str, folders),
                custom_feat_extractor=lambda batch: extractor.features(batch[:, :1].to(torch.uint8)),
                custom_fn_resize=lambda image: image.astype(np.float32),
                num_workers=0, use_dataparallel=False, device=torch.device("cpu"), verbose=False,
                batch_size=extractor.batch_size,
            )  # fmt: skip

    ours()  # fills the cache, as generation 0 does
    assert abs(ours() - on_folders()) < 1e-3 * ours()
    report(f"Fréchet distance of {n} samples to {len(real)} real images", ours, on_folders, repeats)


def write_png(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images[:, 0].numpy()):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    return folder


def compare_sampling(workload: DiffusionWorkload, n: int, repeats: int) -> None:
    """n images by DDIM with the task's steps, compared with the diffusers pipeline on the same model."""
    schedule = workload.settings.schedule
    model = workload.new_model(Randomness("benchmark", 0)).eval()
    scheduler = DDIMScheduler(schedule.train_steps, beta_schedule=schedule.beta_schedule, timestep_spacing="trailing")
    pipeline = DDIMPipeline(model, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    size = workload.settings.sampler.batch_size

    def ours() -> Tensor:
        return workload.sample(model, workload.real[:n], 0, Randomness("benchmark", 0), lambda _: None)

    def by_pipeline() -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(0)
        return [
            pipeline(
                batch_size=min(size, n - start), generator=generator, eta=0.0,
                num_inference_steps=schedule.sample_steps, output_type="np",
            ).images
            for start in range(0, n, size)
        ]  # fmt: skip

    report(f"sampling {n} images, {schedule.sample_steps} steps", ours, by_pipeline, repeats)


def report(what: str, ours: Callable[[], object], other: Callable[[], object], repeats: int) -> None:
    seconds = [min(timed(function) for _ in range(repeats)) for function in (ours, other)]
    print(f"{what}: {seconds[0]:.2f} s, otherwise {seconds[1]:.2f} s, ratio {seconds[1] / seconds[0]:.2f}x")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
