"""Train the classifier of an image task on its real training split, and write it next to the task file.

    collapsebench classifier tasks/vae-mnist-micro/task.yaml

The test split is used only once, at the end, for the accuracy given in the task file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from collapsebench.errors import UserError
from collapsebench.files import give_ordinary_mode, write_atomically
from collapsebench.metrics.extractors import SmallClassifier
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads.images.data import ImageData

_BATCH = 64
GOOD = 0.9  # accuracy below which a note is shown
_LINE = r"(?m)^(\s+)classifier: (?:\{[^}]*\}|null)"
_RATE = 4e-3


def untold(_done: int, _total: int) -> None:
    """Ignore the progress."""


def train_classifier(
    data: ImageData, epochs: int, randomness: Randomness, on_progress: Callable[[int, int], object] = untold
) -> SmallClassifier:
    """Train on the real training images, each epoch slightly rotated, scaled, sheared and shifted.

    Args:
        data: the task's images. epochs: passes over the training split. randomness: for weights, order and distortions.
        on_progress: called with the number of updates just made, and their total.
    """
    images, labels = data.train.pixels.float() / 255, data.train.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.number(0, "classifier init"))
        model = SmallClassifier(images.shape[1], int(labels.max()) + 1)
    generator = randomness.generator(0, "classifier")
    steps = epochs * -(-len(images) // _BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(_BATCH):
            logits = model(_distorted(images[batch], generator))
            F.cross_entropy(logits, labels[batch], label_smoothing=0.02).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            on_progress(1, steps)
    return model.eval()


def _distorted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply affine distortions: up to 12° of rotation, 12 % of scaling, 0.15 of shear, 7 % of shift."""
    n = len(images)
    angle, size, shear, x, y = (torch.rand(5, n, generator=generator) * 2 - 1).unbind()
    angle, size = angle * 0.21, 1 + size * 0.12
    rows = [
        torch.stack([size * angle.cos(), shear * 0.15 - angle.sin(), x * 0.15], 1),
        torch.stack([angle.sin(), size * angle.cos(), y * 0.15], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


@torch.inference_mode()
def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Share of images, (n, C, H, W) uint8, that the model classifies correctly."""
    hits = [model(p.float() / 255).argmax(1) == y for p, y in zip(pixels.split(500), labels.split(500), strict=True)]
    return float(torch.cat(hits).double().mean())


def write_classifier(task: Task, epochs: int, on_progress: Callable[[int, int], object] = untold) -> str:
    """Train, write the weights and the ``classifier`` line of the task file; return a message for the user."""
    before = task.path.read_text("utf-8")
    if len(re.findall(_LINE, before)) != 1:
        raise UserError(f"{task.path} needs exactly one line `classifier: null` in workload.evaluation.")
    data = ImageData.of(task)
    model = train_classifier(data, epochs, Randomness(task.id, 0), on_progress)
    path = task.path.parent / _file(task)
    save_file(model.state_dict(), path)
    give_ordinary_mode(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    reached = accuracy(model, data.test.pixels, data.test.labels)
    line = f"classifier: {{file: {path.name}, sha256: {sha256}, accuracy: {reached:.4f}}}"
    write_atomically(task.path, re.sub(_LINE, lambda found: found[1] + line, before))
    told = f"{path}: {path.stat().st_size:,} bytes, accuracy {reached:.4f} on {len(data.test)} real test images"
    if reached < GOOD:
        told += (
            f"\nnote: distances in the features of a network that gets only {reached:.0%} right mean little. Run the "
            "command again with more --epochs, or give it more images."
        )
    return told


def _file(task: Task) -> str:
    """File name of the weights; those of a task's first version are kept next to a later version's."""
    version = task.spec.version
    return "classifier.safetensors" if version == 1 else f"classifier@{version}.safetensors"
