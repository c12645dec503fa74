"""What a run sets for the arithmetic of its process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from collapsebench.errors import UserError
from collapsebench.running.cells import fix_arithmetic


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_num_threads(threads)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))


def test_what_is_not_deterministic_is_warned_of_on_a_cpu_and_refused_on_a_gpu(a_gpu: None) -> None:
    fix_arithmetic(1)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    fix_arithmetic(1, "cuda:0")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(("precision", "rounded"), [("highest", False), ("high", True)])
def test_convolutions_round_to_tf32_where_matrix_products_do(a_gpu: None, precision: str, rounded: bool) -> None:
    torch.set_float32_matmul_precision(precision)
    fix_arithmetic(1, "cuda")
    assert torch.backends.cudnn.allow_tf32 is rounded


def test_a_process_whose_products_on_the_gpu_are_not_deterministic_is_told_so(
    a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("Deterministic behavior was enabled … CUBLAS_WORKSPACE_CONFIG=:4096:8 …")

    monkeypatch.setattr(torch, "mm", refused)
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts"):
        fix_arithmetic(1, "cuda")
