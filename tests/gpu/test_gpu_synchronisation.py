"""The host runs ahead of the GPU: in an update it waits for nothing but the number of tokens that have a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import needed  # noqa: F401  it skips this module where a package is missing
import pytest
import torch
from gpu_cases import CASES, Case
from host_reads import HostRead, Watch
from torch import Tensor
from torch.optim import adam

from collapsebench import token_log_probs
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_method
from collapsebench.policies import first_training_set
from collapsebench.running import training
from collapsebench.running.cells import fix_arithmetic
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload

pytestmark = pytest.mark.gpu


class SeesPredictions(Loss):
    """A loss that requests everything a loss may see."""

    needs_logits: ClassVar[bool] = True

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p + 0 * e.target.to(e.log_p.dtype)


class Reads(Loss):
    """A loss that makes the host wait in every update."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p if float(e.log_p.detach().mean()) < 0 else -2 * e.log_p


def trained(task_file: Path, loss: Loss, device: str, patch: pytest.MonkeyPatch) -> Watch:
    """Train generation 0 with a loss, every update watched."""
    task = load_task(task_file)
    fix_arithmetic(1, device)
    workload, randomness = load_workload(task, device), Randomness(task.id, 0)
    model = workload.new_model(randomness)
    data = first_training_set(task.spec.policy, workload.real, task.spec.horizon)
    watch = Watch(device)
    patch.setattr(training._Update, "__call__", watch.forbid(training._Update.__call__))
    patch.setattr(training, "_by_item", watch.forbid(training._by_item))
    patch.setattr(token_log_probs, "_with_gradient", watch.exempt(token_log_probs._with_gradient))
    if device == "cpu":  # where the number of the step, on the host everywhere, cannot be told from what is not
        patch.setattr(adam, "_get_value", watch.exempt(adam._get_value))
    average = training._average
    patch.setattr(training, "_average", lambda *given: _watched(average(*given), watch))
    training.train(workload, model, data, loss, 0, randomness, lambda _: None)
    assert watch.blocks
    return watch


def _watched(average: Any, watch: Watch) -> Any:
    if average is not None:
        average.step = watch.forbid(average.step)
    return average


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if found.missing:
        pytest.skip(f"{found} needs {', '.join(found.missing)}")
    return found


@pytest.fixture
def task(case: Case, tmp_path: Path) -> Path:
    return case.write(tmp_path)


@pytest.mark.parametrize("method", ["tce:gamma=0.5", "sees predictions"])
def test_an_update_waits_for_nothing_but_the_tokens_that_have_a_gradient(
    case: Case, task: Path, method: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = method == "sees predictions"
    loss = SeesPredictions() if own else load_method(method, case.kind).make_loss()
    waited = trained(task, loss, device, monkeypatch).exempted
    if device != "cpu":
        assert bool(waited) == (not own and case.kind in ("text", "pretrained-lm"))


def test_a_loss_that_reads_is_noticed(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch detects a loss that makes the host wait."""
    case = next(case for case in CASES if case.kind == "markov")
    with pytest.raises((HostRead, RuntimeError, training.LossError)) as caught:
        trained(case.write(tmp_path), Reads(), device, monkeypatch)
    assert any(word in str(caught.value) for word in ("content of a tensor", "synchroniz"))
    assert torch.cuda.get_sync_debug_mode() == 0 if device != "cpu" else True
