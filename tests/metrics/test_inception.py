"""Where the weights of FID come from, and that features of images in memory are those clean-fid finds in files."""

from __future__ import annotations

import hashlib
import io
import sys
import urllib.error
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from no_network import forbidden
from PIL import Image
from torch import Tensor, nn

from collapsebench.data import web_files
from collapsebench.errors import DataError
from collapsebench.metrics import inception_weights
from collapsebench.metrics.frechet import frechet_distance
from collapsebench.metrics.inception import InceptionFeatures
from collapsebench.metrics.inception_weights import FILE, inception_file

torch.set_num_threads(1)

CONTENT = b"weights of a network"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAPSEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLLAPSEBENCH_INCEPTION", raising=False)
    monkeypatch.setattr(web_files, "urlopen", forbidden)
    monkeypatch.setattr(inception_weights, "silence", lambda _: None)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected checksum is the one of CONTENT."""
    monkeypatch.setattr(inception_weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())


def saved(folder: Path, name: str = FILE, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.usefixtures("pinned")
def test_a_file_or_its_folder_may_be_given(tmp_path: Path) -> None:
    file = saved(tmp_path / "mine")
    assert inception_file(file) == inception_file(file.parent) == file


@pytest.mark.usefixtures("pinned")
def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "mine")
    monkeypatch.setenv("COLLAPSEBENCH_INCEPTION", str(file))
    assert inception_file() == file
    other = saved(tmp_path / "other")
    assert inception_file(other) == other


@pytest.mark.usefixtures("pinned")
def test_a_path_without_the_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", saved(tmp_path, "other.pt")):
        with pytest.raises(DataError, match=FILE):
            inception_file(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "mine")
    with pytest.raises(
        DataError, match=f"sha256 {hashlib.sha256(CONTENT).hexdigest()[:16]}.*expected f58cb9b6ec323ed6"
    ):
        inception_file(file)


@pytest.mark.usefixtures("pinned")
def test_a_damaged_copy_in_the_cache_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "cache/inception", content=CONTENT[:-1])
    with pytest.raises(DataError, match="Delete it"):
        inception_file()


@pytest.mark.usefixtures("pinned")
def test_the_file_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append((url, timeout))
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(web_files, "urlopen", answer)
    assert inception_file() == inception_file() == tmp_path / "cache/inception" / FILE
    assert len(asked) == 1
    assert asked[0][0] == inception_weights.URL
    assert asked[0][1] <= 10
    assert everything_in(tmp_path / "cache") == ["inception", f"inception/{FILE}"]


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError(OSError("Temporary failure in name resolution")),
        urllib.error.HTTPError(inception_weights.URL, 403, "Forbidden", None, None),  # type: ignore[arg-type]
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
    ],
)
def test_without_a_network_the_error_says_what_to_do(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*arguments: Any, **__: Any) -> Any:
        asked.append(arguments)
        raise failure

    monkeypatch.setattr(web_files, "urlopen", refuse)
    with pytest.raises(DataError) as caught:
        inception_file()
    assert len(asked) == 1, "who waits for nothing waits once"
    for part in (FILE, inception_weights.URL, "--inception PATH", "COLLAPSEBENCH_INCEPTION", str(failure)):
        assert part in str(caught.value)


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ConnectionResetError("reset")])
def test_an_interrupted_download_leaves_nothing(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise failure
            return super().read(3)

    monkeypatch.setattr(web_files, "urlopen", lambda url, timeout: Broken(CONTENT))
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DataError):
        inception_file()
    assert everything_in(tmp_path / "cache") == ["inception"]


@pytest.mark.usefixtures("pinned")
def test_a_download_of_something_else_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "urlopen", lambda url, timeout: io.BytesIO(b"<html>Sign in to the network</html>"))
    with pytest.raises(DataError, match="not the Inception network"):
        inception_file()
    assert everything_in(tmp_path / "cache") == ["inception"]


def test_the_address_is_the_one_of_clean_fid() -> None:
    downloads = pytest.importorskip("cleanfid.downloads_helper")
    assert downloads.inception_url == inception_weights.URL


def test_clean_fid_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanfid.inception_torchscript", None)
    with pytest.raises(DataError, match=r"collapsebench\[images\]"):
        InceptionFeatures()


class _Layers(nn.Module):
    """2,048 features, of which the first twelve are not 0: moments of the image's quarters."""

    def forward(self, x: Tensor) -> Tensor:
        cells = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * 10
        return nn.functional.pad(cells, (0, 2036))[:, :, None, None]


class _Network(nn.Module):
    """The parts of the TorchScript file that clean-fid calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network in place of Inception."""
    file = saved(tmp_path / "weights", content=b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(_Network()).save(str(file))
    monkeypatch.setattr(inception_weights, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    return file.parent


def random_images(n: int, channels: int, seed: int, side: int = 20) -> Tensor:
    """Images with structure, so that resizing matters."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(n, channels, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, (side, side + 3), mode="bicubic").clamp(0, 255).to(torch.uint8)


def as_pngs(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for index, image in enumerate(images):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels if len(image) == 3 else pixels[:, :, 0]).save(folder / f"{index:04}.png")
    return str(folder)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit.load, called by clean-fid
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_clean_fid_on_files(channels: int, folder: Path, tmp_path: Path) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    torchscript = pytest.importorskip("cleanfid.inception_torchscript")
    images = random_images(70, channels, 1)  # more than one batch
    expected = fid.get_folder_features(
        as_pngs(images, tmp_path / "png"),
        torchscript.InceptionV3W(str(folder), download=False),
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    extractor = InceptionFeatures(folder)
    found = extractor.features(images)
    assert found.shape == (70, 2048)
    assert found.dtype == torch.float32
    assert extractor.name == "inception"
    assert extractor.sha256 == inception_weights.SHA256
    assert np.ptp(expected[:, 0]) > 1
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit.load, called by clean-fid
@pytest.mark.parametrize("channels", [1, 3])
def test_distance_of_images_in_memory_is_the_fid_of_clean_fid_on_files(
    channels: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    torchscript = pytest.importorskip("cleanfid.inception_torchscript")
    from scipy import linalg

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> Any:
        """The root of a matrix that is 0 outside its first block; of all 2,048 columns it takes half a minute."""
        assert not matrix[12:].any()
        assert not matrix[:, 12:].any()
        root = np.zeros_like(matrix)
        root[:12, :12] = linalg.sqrtm(matrix[:12, :12]).real
        return root if disp else (root, 0.0)

    monkeypatch.setattr(fid, "linalg", SimpleNamespace(sqrtm=sqrtm))
    real, fake = random_images(50, channels, 1), (random_images(40, channels, 2) * 0.8).to(torch.uint8)
    expected = fid.compute_fid(
        as_pngs(real, tmp_path / "real"),
        as_pngs(fake, tmp_path / "fake"),
        mode="clean",
        custom_feat_extractor=torchscript.InceptionV3W(str(folder), download=False),
        num_workers=0,
        use_dataparallel=False,
        device=torch.device("cpu"),
        verbose=False,
    )
    extractor = InceptionFeatures(folder)
    found = frechet_distance(extractor.features(real).numpy(), extractor.features(fake).numpy())
    assert expected > 1
    assert found == pytest.approx(expected, rel=1e-3)


def test_other_images_are_refused(folder: Path) -> None:
    pytest.importorskip("cleanfid")
    extractor = InceptionFeatures(folder)
    for images in (torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(3, 8, 8).byte()):
        with pytest.raises(ValueError, match="wanted uint8"):
            extractor.features(images)
