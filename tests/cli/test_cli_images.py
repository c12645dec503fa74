"""The command line on tasks of images and mixtures: the same table, plot and report, and what is special about them."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import collapsebench, with_methods
from PIL import Image
from tiny_task import write_bars, write_tiny_task

from collapsebench.running.artifacts import RunDirectory
from collapsebench.task import load_task
from collapsebench.workloads.pictures import COLUMNS, ROWS

SHORT = {"workload.training.first.updates": 6, "workload.training.later.updates": 4, "horizon": 2}


def compared(folder: Path, kind: str) -> tuple[Path, str]:
    """A finished comparison of ce and tce: its folder, and what was printed."""
    task = write_tiny_task(folder / "task", kind, **SHORT)
    finished = collapsebench(*with_methods(task, "ce,tce:gamma=0.5", "runs", "--seeds", "0,1"), cwd=folder)
    assert finished.code == 0, finished.err
    return folder / "runs" / load_task(task).id, finished.out


@pytest.fixture(scope="module", params=["vae", "diffusion"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return compared(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return compared(tmp_path_factory.mktemp("gmm"), "gmm")


def test_images_are_compared_with_the_same_table_and_files_as_text(images) -> None:
    folder, printed = images
    for method in ("ce", "tce:gamma=0.5"):
        assert re.search(rf"^.*{method} .*\[.*\]", printed, re.MULTILINE), printed
    for name in ("comparison.csv", "comparison.json", "curves.png", "forest.png", "report.html"):
        assert (folder / name).stat().st_size > 100


def test_report_shows_the_same_noise_by_generation_and_method(images) -> None:
    folder, _ = images
    html = (folder / "report.html").read_text("utf-8")
    shown = re.findall(r'alt="(.*?), generation (\d)" src="data:image/png;base64,(.*?)"', html)
    assert [(method, int(g)) for method, g, _ in shown] == [(m, g) for g in range(3) for m in order_of(folder)]
    for method, g, content in shown:
        row = Image.open(io.BytesIO(b64decode(content)))
        (path,) = folder.glob(f"{directory_of(folder, method)}/seed-0/gen-{g}/samples.png")
        with Image.open(path) as grid:
            assert row.width == grid.width
            assert row.tobytes() == grid.crop((0, 0, row.width, row.height)).tobytes()
    assert "What the models draw" in html
    assert "What the models write" not in html


def order_of(folder: Path) -> list[str]:
    return [row["method"] for row in json.loads((folder / "comparison.json").read_text())["table"]]


def directory_of(folder: Path, method: str) -> str:
    runs = [json.loads(file.read_text()) for file in folder.glob("*/seed-0/run.json")]
    (found,) = [run["method"]["id"] for run in runs if run["method"]["name"] == method]
    return found


def test_every_method_has_an_animation_with_one_frame_per_generation(images) -> None:
    folder, printed = images
    for method in order_of(folder):
        file = folder / f"{directory_of(folder, method)}.webp"
        assert file.name in printed
        with Image.open(file) as film:
            assert film.n_frames == 3


def test_gallery_shows_one_generation_below_the_other_from_the_same_noise(images) -> None:
    """Somewhere in the picture is the first row of every method and generation; images of 12 pixels, enlarged."""
    folder, printed = images
    assert "gallery.png" in printed
    with Image.open(folder / "gallery.png") as gallery:
        picture = np.asarray(gallery.convert("L"))
    places = []
    for method in order_of(folder):
        for g in range(3):
            with Image.open(folder / directory_of(folder, method) / "seed-0" / f"gen-{g}" / "samples.png") as grid:
                row = np.asarray(grid.crop((0, 0, grid.width, 14 + 2)))
            places.append(place_of(row.repeat(7, 0).repeat(7, 1), picture))
    tops, lefts = zip(*places, strict=True)
    assert list(tops) == sorted(set(tops))
    assert len(set(lefts)) == 1


def place_of(part: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """Top and left of a part of a picture, both 2-D."""
    half = len(part) // 2
    line = part[half].tobytes()
    for y, row in enumerate(picture):
        left, top = row.tobytes().find(line), y - half
        if left >= 0 and np.array_equal(picture[top : top + len(part), left : left + part.shape[1]], part):
            return top, left
    raise AssertionError("the part is not in the picture")


def test_grid_of_a_generation_has_the_images_of_all_columns_and_rows(images) -> None:
    """Diffusion models draw no more of them than are measured, here 40: each takes many passes."""
    folder, _ = images
    rows = ROWS if "vae" in folder.name else 4
    with Image.open(folder / "ce" / "seed-0" / "gen-0" / "samples.png") as grid:
        assert grid.size == (COLUMNS * 14 + 2, rows * 14 + 2)
        assert grid.mode == "L"


def test_metrics_say_how_many_images_they_were_measured_on(images) -> None:
    folder, _ = images
    found = json.loads((folder / "ce" / "seed-0" / "gen-1" / "metrics.json").read_text())["metrics"]
    assert {name: found[name]["n"] for name in ("fd_classifier", "coverage", "class_entropy")} == {
        "fd_classifier": 40, "coverage": 40, "class_entropy": 40,
    }  # fmt: skip
    for metric in ("kd_classifier", "density", "precision", "recall", "class_coverage", "nearest_training_distance"):
        assert metric in found


def test_report_of_a_mixture_draws_its_densities(mixture) -> None:
    folder, _ = mixture
    html = (folder / "report.html").read_text("utf-8")
    assert "What the models believe" in html
    assert "What the models draw" not in html
    curve = RunDirectory(folder / "ce" / "seed-0").read(0, "density.json")
    assert len(curve["x"]) == len(curve["density"]) == len(curve["truth"]) > 100


# Calibration


@pytest.mark.slow
def test_calibration_of_a_diffusion_task_measures_sigma_first(tmp_path: Path) -> None:
    scored = {"fd_classifier": {}, "coverage": {}}
    task = write_tiny_task(tmp_path / "task", "diffusion", **SHORT, scored=scored)
    text = task.read_text().replace("sigma: 0.5", "sigma: null")
    task.write_text(text)
    asked = collapsebench("calibrate", task, "--device", "cpu", cwd=tmp_path)
    assert asked.code == 2
    assert "has no sigma yet; --write measures it" in asked.err
    refused = collapsebench("run", task, "--method", "focal", "--device", "cpu", cwd=tmp_path)
    assert refused.code == 2
    assert "tiny-diffusion@1 has no sigma yet, so log p is undefined for focal" in refused.err
    finished = collapsebench("calibrate", task, "--write", "--force", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 0, finished.err
    sigma = yaml.safe_load(task.read_text())["workload"]["sigma"]
    measured = [
        RunDirectory(tmp_path / f"runs/calibration/sigma/tiny-diffusion@1/ce/seed-{s}").read(0, "metrics.json")
        for s in (0, 1)
    ]
    mean = sum(m["metrics"]["noise_rms"]["value"] for m in measured) / 2
    assert sigma == pytest.approx(mean, rel=1e-3)
    with_sigma = RunDirectory(tmp_path / "runs/tiny-diffusion@1/ce/seed-0").read(0, "metrics.json")
    again = with_sigma["metrics"]["noise_rms"]["value"]
    assert again == pytest.approx(measured[0]["metrics"]["noise_rms"]["value"], rel=1e-2)
    assert load_task(task).calibrated
    listing = json.loads((task.parent / "splits.json").read_text())
    assert {name: len(images) for name, images in listing.items()} == {"test": 40, "selection": 20, "train": 140}
    compared = collapsebench(*with_methods(task, "ce,focal", "runs", "--seeds", "0"), cwd=tmp_path)
    assert compared.code == 0, compared.err
    assert "ce seed 0: generation 2/2 reused" in compared.err


def test_changed_image_is_not_the_data_that_the_task_lists(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "vae", **SHORT, scored={"fd_classifier": {}, "negative_elbo": {}})
    assert collapsebench("calibrate", task, "--write", "--force", "--device", "cpu", cwd=tmp_path).code == 0
    file = next((task.parent / "images" / "1").glob("*.png"))
    with Image.open(file) as image:
        other = image.rotate(180)
    other.save(file)
    finished = collapsebench("run", task, "--method", "ce", "--out", "other", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2
    assert "split is not the one this task lists" in finished.err


# Options


def test_part_of_the_budget_has_a_name_of_its_own_and_says_so(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "vae")
    finished = collapsebench(*with_methods(task, "ce", "runs", "--seeds", "0", "--budget", "0.5"), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "Only 0.5 of the task's budget" in finished.out
    run = RunDirectory(tmp_path / "runs" / "tiny-vae@1+budget-0.5" / "ce" / "seed-0")
    assert run.read(0, "metrics.json")["elements_trained"] == 15 * 16 * 144
    assert run.read(1, "metrics.json")["elements_trained"] == 6 * 16 * 144
    assert run.read(1, "metrics.json")["metrics"]["fd_classifier"]["n"] == 20
    scored = collapsebench("score", "runs", cwd=tmp_path)
    assert scored.code == 0, scored.err
    assert "Only 0.5 of the task's budget" in scored.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--budget", "0"], "--budget 0 is not allowed"),
        (["--budget", "2"], "--budget 2 is not allowed"),
        (["--data", "absent"], "--data absent: no such folder"),
        (["--data", "."], "--data cannot be given for tiny-vae@1"),
        (["--inception", "none"], "--inception cannot be given for tiny-vae@1"),
        (["--features", "resnet"], "'resnet' is not one of 'efficientnet-lite0'"),
    ],
)
def test_option_that_does_not_fit_is_one_message_and_exit_code_2(tmp_path: Path, options: list[str], told: str) -> None:
    task = write_tiny_task(tmp_path / "task", "vae")
    finished = collapsebench("run", task, "--method", "ce", "--device", "cpu", *options, cwd=tmp_path)
    assert finished.code == 2
    assert told in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "runs").exists()


def test_further_features_are_measured_and_never_mixed_with_runs_that_lack_them(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    changes = SHORT | {"policy.size": 16, "workload.evaluation.samples": 16, "splits.test_images": 16}
    task = write_tiny_task(tmp_path / "task", "vae", **changes)
    command = ["run", task, "--method", "ce", "--generations", "0", "--device", "cpu"]
    finished = collapsebench(*command, "--features", "efficientnet-lite0", cwd=tmp_path)
    assert finished.code == 0, finished.err
    run = RunDirectory(tmp_path / "runs" / "tiny-vae@1" / "ce" / "seed-0")
    assert run.read(0, "metrics.json")["metrics"]["fd_efficientnet_lite0"]["value"] > 0
    without = collapsebench(*command, cwd=tmp_path)
    assert without.code == 2
    assert "extractors differ(s)" in without.err


def standard_task(folder: Path) -> Path:
    """A tiny task of the form of the standard ones: data given with --data, FID by Inception."""
    task = write_tiny_task(folder / "task", "vae", **SHORT)
    spec = yaml.safe_load(task.read_text())
    spec["data"] = {"source": "torchvision", "dataset": "mnist"}
    spec["splits"] = {"test_images": None, "selection_images": 20}
    spec["workload"]["evaluation"]["extractors"] = ["inception", "classifier"]
    spec["scored"] = {"fid": {"reference": 1.0, "floor": 9.0}, "negative_elbo": {"reference": 50.0, "floor": 90.0}}
    task.write_text(yaml.safe_dump(spec))
    write_bars(folder / "data" / "train", 100)
    write_bars(folder / "data" / "test", 40, seed=8)
    return task


def test_images_in_folders_of_train_and_test_stand_in_for_a_download(tmp_path: Path) -> None:
    task = standard_task(tmp_path)
    command = ["run", task, "--method", "ce", "--data", "data", "--generations", "0", "--device", "cpu"]
    finished = collapsebench(*command, "--inception", "none", cwd=tmp_path)
    assert finished.code == 0, finished.err
    found = RunDirectory(tmp_path / "runs" / "tiny-vae@1" / "ce" / "seed-0").read(0, "metrics.json")["metrics"]
    assert "fid" not in found
    assert found["negative_elbo"]["n"] == 40
    scored = collapsebench("score", "runs", cwd=tmp_path)
    assert scored.code == 2
    assert "scored metrics are missing" in scored.err
    compared = collapsebench(*with_methods(task, "ce", "runs", "--data", "data", "--inception", "none"), cwd=tmp_path)
    assert compared.code == 2
    assert "tiny-vae@1 scores FID" in compared.err


def test_missing_inception_file_is_named_with_the_option_that_supplies_it(tmp_path: Path) -> None:
    task = standard_task(tmp_path)
    command = ["run", task, "--method", "ce", "--data", "data", "--device", "cpu"]
    finished = collapsebench(*command, "--inception", "absent.pt", cwd=tmp_path)
    assert finished.code == 2
    assert "absent.pt" in finished.err
    assert "--inception" in finished.err
