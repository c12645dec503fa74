"""Campaigns: every standard task has one, it fits the task, and its hours are those of `collapsebench estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_task import write_tiny_task

from collapsebench.authoring.campaign import METHODS, campaign_of, text_of
from collapsebench.errors import TaskError
from collapsebench.running.campaign import CAMPAIGN_FILE, load_campaign
from collapsebench.task import load_task, registered_tasks

STANDARD = [name for name, path in registered_tasks().items() if load_task(path).spec.tier == "standard"]
QUICK = ("vae-mnist",)  # to estimate


@pytest.mark.parametrize("name", STANDARD)
def test_every_standard_task_has_a_campaign_that_fits_it(name: str) -> None:
    campaign, task = load_campaign(registered_tasks()[name].with_name(CAMPAIGN_FILE))
    assert (task.spec.name, campaign.methods) == (name, METHODS)
    assert campaign.cost.hours == pytest.approx(campaign.cost.hours_per_chain * campaign.chains, rel=0.01)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in STANDARD])
def test_its_cost_is_the_estimate(name: str) -> None:
    file = registered_tasks()[name].with_name(CAMPAIGN_FILE)
    campaign, task = load_campaign(file)
    assert text_of(campaign_of(task, campaign.cost.tflops)) == file.read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The campaign of a tiny task."""
    task = load_task(write_tiny_task(tmp_path, "markov"))
    file = tmp_path / CAMPAIGN_FILE
    file.write_text(text_of(campaign_of(task, 0.01)), "utf-8")
    return file


def test_what_is_written_is_read(file: Path) -> None:
    campaign, task = load_campaign(file)
    assert (campaign.task, campaign.seeds, campaign.chains) == ("tiny-markov@1", (0, 1), 8)
    assert campaign == campaign_of(task, 0.01)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "tiny-markov@2"}, "task: tiny-markov@2, the task has tiny-markov@1"),
        ({"settings": "0" * 16}, "settings: 0000000000000000, the task has "),
        ({"seeds": [0]}, "seeds: [0], the task has [0, 1]"),
        ({"methods": ["tce", "ce"]}, "methods, the first two: ['tce', 'ce'], the task has ['ce', 'control']"),
        ({"methods": ["ce", "control", "tce", "tce"]}, "methods: tce twice"),
        ({"machines": 3}, "machines: "),
        ({"methods": []}, "methods: "),
        ({"cost": {"tflops": 0, "hours_per_chain": 1, "hours": 1, "disk_gb": 1}}, "cost.tflops: "),
    ],
)
def test_a_campaign_that_does_not_fit_is_refused(file: Path, change: dict[str, Any], told: str) -> None:
    content = yaml.safe_load(file.read_text("utf-8")) | change
    file.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(TaskError) as caught:
        load_campaign(file)
    assert f"\n  {told}" in str(caught.value)


def test_settings_that_were_changed_since_are_noticed(file: Path) -> None:
    task = file.with_name("task.yaml")
    task.write_text(task.read_text("utf-8").replace("length: 9", "length: 8"), "utf-8")
    with pytest.raises(TaskError, match="settings: "):
        load_campaign(file)


def test_a_campaign_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"campaign\.yaml: no such campaign"):
        load_campaign(tmp_path / CAMPAIGN_FILE)
