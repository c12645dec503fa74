"""What `collapsebench estimate` counts without data against counted FLOPs, real runs, and what people see of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import collapsebench
from flop_counting import CLOSE, EXACT, Measured, agrees, flop_counter, measured
from tiny_task import write_tiny_task

from collapsebench.api import run
from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.estimates.sizes import known_sizes
from collapsebench.errors import UserError
from collapsebench.seeding import Randomness
from collapsebench.task import load_task, registered_tasks
from collapsebench.workloads import load_workload
from collapsebench.workloads.images.blank import NETWORKS
from collapsebench.workloads.work import Sizes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def real(kind: str, short: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What generation 0 of the short task spent, phase by phase; without what an estimate says it does not count."""
    if kind == "pretrained-lm":
        nothing = {"workload.evaluation.knowledge": None, "workload.evaluation.harness": []}
        changes = {"policy.size": 48, "horizon": 2, "scored": {"oldest_perplexity": {}}}
        short = write_tiny_task(tmp_path_factory.mktemp("lm"), kind, **changes, **nothing)
    return measured(short, tmp_path_factory.mktemp("gallery"))


def test_flops_of_every_phase_agree_with_counted_flops(kind: str, real: Measured) -> None:
    agrees(estimate(real.task), real, within=CLOSE if kind in ("gmm", "markov") else EXACT)


def test_parameters_are_those_of_the_model(real: Measured) -> None:
    model = real.workload.new_model(Randomness(real.task.id, 0))
    assert estimate(real.task).parameters == sum(p.numel() for p in model.parameters())


def test_sizes_of_the_data_are_known_without_it(kind: str, real: Measured) -> None:
    known = known_sizes(real.task)
    if kind == "text":
        assert known.train is None
        assert (known.test, known.selection) == (len(real.workload.text.test), len(real.workload.text.selection))
        return
    assert known.train == len(real.workload.real)
    if kind == "pretrained-lm":
        text = real.workload.text
        assert (known.test, known.selection) == (len(text.test), len(text.selection) + text.measured.oldest)
    elif kind == "markov":
        assert (known.test, known.selection) == (0, len(real.workload.selection))
    elif kind != "gmm":
        data = real.workload.data
        assert (known.test, known.selection, known.channels) == (len(data.test), len(data.selection), data.channels)


UNETS = {
    "attention everywhere": {"attention": [0, 1], "mid_attention": True, "layers": 2},
    "as in DDPM": {"attention": [1], "mid_attention": True, "ddpm_convention": True, "channels": [4, 8, 8]},
}


@pytest.mark.parametrize(
    "changes",
    [pytest.param(UNETS["attention everywhere"], marks=pytest.mark.slow), UNETS["as in DDPM"]],
    ids=UNETS.keys(),
)
def test_every_u_net_is_counted_as_it_is(changes: dict[str, Any], tmp_path: Path) -> None:
    model = {"channels": [4, 8], "groups": 2} | changes
    short = {"workload.training.first.updates": 1, "workload.ema_decay": 0.9}
    file = write_tiny_task(tmp_path, "diffusion", **short, **{"workload.model": model})
    found = measured(file, tmp_path)
    agrees(estimate(found.task), found, EXACT)
    net = found.workload.new_model(Randomness(found.task.id, 0))
    assert estimate(found.task).parameters == sum(p.numel() for p in net.parameters())


def test_flops_of_inception_are_those_of_its_architecture() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = models.inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
        image = torch.empty(1, 3, 299, 299)
    with flop_counter() as counter, torch.no_grad():
        network(image)
    _, flops, _ = NETWORKS["inception"]
    assert flops == pytest.approx(counter.get_total_flops(), rel=EXACT)


POLICIES: list[dict[str, Any]] = [
    {"policy.name": "replace"},
    {"policy.name": "accumulate"},
    {"policy.name": "accumulate-subsample"},
    {"policy": {"name": "mix", "size": 60, "real_share": 0.3}},
    {"policy": {"name": "fresh-mix", "size": 60, "real_share": 0.3}},
    {"policy.name": "regenerate-fresh"},
]


def recorded(folder: Path, g: int) -> tuple[int, int]:
    metrics = json.loads((folder / f"gen-{g}" / "metrics.json").read_text())
    return metrics["elements_trained"], metrics["elements_sampled"]


def test_elements_and_disk_are_what_the_loop_records(kind: str, short: Path, tmp_path: Path) -> None:
    folder = run(short, "ce", out=tmp_path, generations=1)
    found = estimate(load_task(short), 1)
    for g, spent in enumerate(found.generations):
        assert (spent.trained, spent.sampled) == recorded(folder, g)
        files = sum((folder / f"gen-{g}" / f"{name}.safetensors").stat().st_size for name in ("model", "samples"))
        names = 200 * (1 + len(list(load_workload(load_task(short), "cpu").new_model(Randomness("", 0)).state_dict())))
        assert spent.disk <= files <= spent.disk + names  # the headers hold a name and a shape per tensor


@pytest.mark.parametrize("changes", POLICIES, ids=lambda c: str(c.get("policy.name") or c["policy"]["name"]))
def test_every_policy_grows_as_in_the_loop(changes: dict[str, Any], tmp_path: Path) -> None:
    updates = {"workload.training.first.updates": 6, "workload.training.later.updates": 5, "horizon": 2}
    file = write_tiny_task(tmp_path / "task", "gmm", **changes, **updates)
    folder = run(file, "ce", out=tmp_path / "runs")
    found = estimate(load_task(file))
    assert [(s.trained, s.sampled) for s in found.generations] == [recorded(folder, g) for g in range(3)]


@pytest.mark.parametrize("policy", ["accumulate", "regenerate-fresh"])
def test_an_unknown_amount_of_data_is_said_and_gives_a_lower_bound(policy: str, tmp_path: Path) -> None:
    task = load_task(write_tiny_task(tmp_path, **{"policy.name": policy}))
    blind, informed = estimate(task), estimate(task, sizes=known_sizes(task, train=1780))
    assert any("lower bound" in line for line in blind.lines())
    assert not any("lower bound" in line for line in informed.lines())
    assert blind.total.flops < informed.total.flops
    assert sum(s.sampled for s in informed.generations) >= sum(s.sampled for s in blind.generations)


# --- what people and programs see -----------------------------------------------------------------------------------

_WITHOUT_DATA = """
import socket
import sys
from collapsebench.task import load_task
from collapsebench.authoring.estimate import estimate
socket.socket = None
for name in sys.argv[1:]:
    assert estimate(load_task(name)).lines()
"""


LARGE = ("text-wikitext2-llama-3.2-1b", "text-wikitext2-gemma-3-1b")  # counted like SmolLM2, and longer
PUBLISHED_SIZES = {"diffusion-cifar10": 35_746_307, "vae-mnist": 647_081}


@pytest.mark.parametrize(
    "names",
    [
        ("gmm-micro", "vae-mnist", "text-wikitext2-smollm2"),
        pytest.param(tuple(registered_tasks()), marks=pytest.mark.slow, id="all"),
    ],
)
def test_registered_tasks_are_estimated_without_network_data_or_weights(tmp_path: Path, names: tuple[str, ...]) -> None:
    nothing = os.environ | {"COLLAPSEBENCH_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_DATA, *names],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=nothing,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(registered_tasks())],
)
def test_a_registered_task_has_a_table_and_a_round_trip_through_json(name: str) -> None:
    found = estimate(load_task(name))
    assert found.parameters == PUBLISHED_SIZES.get(name, found.parameters)
    content = found.as_json(tflops=2.0)
    assert json.loads(json.dumps(content)) == content
    assert content["total"]["flops"] == sum(g["flops"] for g in content["generations"]) == found.total.flops
    assert content["hours"] == found.hours(2.0)
    lines = found.lines()
    assert lines[0].startswith(load_task(name).id)
    rows = [line for line in lines if line.startswith(("generation", "0", "1 to", "total"))]
    assert len({len(row) for row in rows}) == 1  # aligned
    assert f"{found.unit} trained" in rows[0]


def test_hours_are_flops_over_the_rate() -> None:
    found = estimate(load_task("text-wiki-micro"))
    assert found.hours(1.0) == pytest.approx(found.total.flops / 1e12 / 3600)
    assert found.hours(4.0) == pytest.approx(found.hours(1.0) / 4)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="--device-tflops"):
        estimate(load_task("gmm-micro")).hours(rate)


@pytest.mark.parametrize("generations", [-1, 11])
def test_generations_that_a_task_does_not_have_are_refused(generations: int) -> None:
    with pytest.raises(UserError, match="generations 0 to 10"):
        estimate(load_task("text-wiki-micro"), generations)


def test_a_smaller_budget_costs_less() -> None:
    in_updates = registered_tasks()["vae-mnist-micro"].with_name("task@1.yaml")  # in epochs it costs a rounded part
    whole, tenth = (estimate(load_task(in_updates, budget)).total for budget in (1.0, 0.1))
    assert tenth.training == pytest.approx(whole.training / 10, rel=EXACT)
    assert tenth.sampled == whole.sampled / 10


def test_images_that_are_not_there_are_said_to_be_assumed(tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path, "vae", **{"data.path": "nowhere"})
    known = known_sizes(load_task(file))
    assert known == Sizes(None, 20, 40, 3, known.notes)
    assert any("assumed" in line for line in estimate(load_task(file)).lines())


def test_the_command_prints_the_table_or_json(tmp_path: Path) -> None:
    finished = collapsebench("estimate", "vae-mnist", "--device-tflops", 40, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "647,081 parameters" in finished.out
    assert "at a sustained 40 TFLOP/s" in finished.out
    finished = collapsebench("estimate", "gmm-micro", "--generations", 2, "--json", cwd=tmp_path)
    assert len(json.loads(finished.out)["generations"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown task 'nothing'"),
        (["gmm-micro", "--generations", 99], "generations 0 to 15"),
        (["gmm-micro", "--device-tflops", 0], "--device-tflops 0 is not allowed"),
        (["gmm-micro", "--budget", 2], "--budget 2 is not allowed"),
    ],
)
def test_wrong_usage_of_the_command_is_one_message(tmp_path: Path, arguments: list[object], message: str) -> None:
    finished = collapsebench("estimate", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert message in finished.err
