"""What the tests on a GPU share: the device, and a run of every case on the processor and on the device.

They stand by themselves (`make test-gpu` loads no other conftest), so that a machine with a GPU needs few packages:
torch, transformers, numpy, scipy, safetensors for `token_log_probs`; pydantic, PyYAML, pandas, filelock and pillow for
all the rest; and what a kind of workload needs of its own. What cannot be run without one of these is skipped, and the
end of the output says so.
``COLLAPSEBENCH_TEST_DEVICE=cpu`` puts the processor in the GPU's place.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS.parent), str(_TESTS)]
# For the processes that are started, too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(_TESTS.parent), str(_TESTS), os.environ.get("PYTHONPATH", "")])
_CACHE = tempfile.TemporaryDirectory(prefix="collapsebench-gpu-cache-")
os.environ.setdefault("COLLAPSEBENCH_CACHE", _CACHE.name)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product of this process


@pytest.fixture(scope="session")
def device() -> str:
    """Where the models run that are compared with the processor's."""
    name = os.environ.get("COLLAPSEBENCH_TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.exit("no CUDA device here; COLLAPSEBENCH_TEST_DEVICE=cpu puts the processor in its place", returncode=2)
    return name


@pytest.fixture(autouse=True)
def _arithmetic_as_before() -> Iterator[None]:
    """A run sets threads, determinism and rounding for its whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
