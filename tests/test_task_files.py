"""Task files that extend others: what is merged, what is not taken over, what paths mean, what errors say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from command import collapsebench
from pydantic import BaseModel
from tiny_task import tiny_spec, write_classifier, write_tiny_task

from collapsebench.authoring.calibration import frozen_text
from collapsebench.authoring.calibration_record import Record
from collapsebench.errors import RunError, TaskError
from collapsebench.metrics.scored import Scored
from collapsebench.task import load_task
from collapsebench.task_files import RELATIVE_PATHS, as_yaml, read_task_file
from collapsebench.task_spec import CalibratedOn, TaskSpec
from collapsebench.workloads import load_workload
from collapsebench.workloads.kinds import KINDS as RECORDS
from collapsebench.workloads.pretrained.supplies import item_folders, knowledge_file, model_folder

OWN = "name: member\nversion: 1\ntitle: A member of a family\n"
BASE = "../family/base.yaml"


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A base file, which has no folder of its own among the tasks."""
    return put(tmp_path / "family" / "base.yaml", tiny_spec())


def put(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), "utf-8")
    return file


def member(tmp_path: Path, text: str = "", extends: str = BASE) -> Path:
    return put(tmp_path / "member" / "task.yaml", f"extends: {extends}\n{OWN}{text}")


def error_of(file: Path) -> str:
    with pytest.raises(TaskError) as caught:
        load_task(file)
    return str(caught.value)


# What is merged


def test_a_mapping_is_merged_and_anything_else_replaces(tmp_path: Path, family: Path) -> None:
    text = "seeds: [7]\nworkload:\n  model: {heads: 4}\n  training: {clip_norm: null, later: {updates: 5}}\n"
    spec = load_task(member(tmp_path, text)).spec
    assert (spec.name, spec.seeds, spec.horizon) == ("member", (7,), 3)
    assert (spec.workload.model.heads, spec.workload.model.hidden_size) == (4, 32)
    training = spec.workload.training
    assert training.clip_norm is None, "null is a value like any other"
    assert (training.later.updates, training.later.decay, training.first.updates) == (5, "linear", 30)


def test_digest_is_that_of_the_same_task_written_out(tmp_path: Path, family: Path) -> None:
    task = load_task(member(tmp_path, "policy: {size: 40}\n"))
    changes = {"name": "member", "policy.size": 40, "data.path": "../family/text.txt"}
    whole = load_task(put(tmp_path / "whole" / "task.yaml", tiny_spec(**changes)))
    assert task.sha256 == whole.sha256
    shown = put(tmp_path / "shown" / "task.yaml", as_yaml(read_task_file(task.path).content))
    assert load_task(shown).spec == task.spec


def test_files_extend_files_that_extend_files(tmp_path: Path, family: Path) -> None:
    put(tmp_path / "middle.yaml", "extends: family/base.yaml\nhorizon: 4\nthreads: 2\n")
    task = load_task(member(tmp_path, "threads: 3\n", "../middle.yaml"))
    assert (task.spec.horizon, task.spec.threads, task.spec.init) == (4, 3, "previous")
    assert task.extended == (tmp_path / "middle.yaml", family)


def test_a_section_marked_so_replaces_the_whole_one(tmp_path: Path, family: Path) -> None:
    data = "data: !replace {source: hub, dataset: a/b, revision: main}\nscored: !replace\n  perplexity: {}\n"
    spec = load_task(member(tmp_path, data)).spec
    assert spec.data.source == "hub"
    assert list(spec.scored) == ["perplexity"]
    message = error_of(member(tmp_path, "data: {source: hub, dataset: a/b, revision: main}\n"))
    assert f"  data.path: unknown key (given: '../family/text.txt') [in {family}]" in message


@pytest.mark.parametrize("text", ["data: !replace 3\n", "data: !other {}\n"])
def test_the_mark_is_for_mappings_and_the_only_one(tmp_path: Path, family: Path, text: str) -> None:
    assert "is not valid YAML" in error_of(member(tmp_path, text))


def test_what_is_of_one_task_alone_is_not_taken_over(tmp_path: Path, family: Path) -> None:
    file = put(tmp_path / "member" / "task.yaml", f"extends: {BASE}\n")
    assert [line.split(":")[0] for line in error_of(file).splitlines()[1:]] == ["  name", "  version", "  title"]
    task = load_task(member(tmp_path))
    assert list(task.spec.scored) == ["perplexity", "next_token_accuracy", "pair_accuracy"]
    assert not task.calibrated, "the scale was measured on the other task"
    assert (
        load_task(member(tmp_path, "scored: {perplexity: {reference: 50.0, floor: 90.0}}\n"))
        .spec.scored["perplexity"]
        .reference
        == 50.0
    )


# What paths mean


def fields_of_paths() -> set[str]:
    """Every place of the schema that holds the name of a file or a folder."""
    found = set()

    def look(annotation: Any, place: tuple[str, ...]) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                look(field.annotation, (*place, name))
        elif place[-1] in ("path", "file", "folder"):
            found.add(".".join(place))
        for part in get_args(annotation):
            look(part, place)

    look(TaskSpec, ())
    for kind in RECORDS.values():
        look(kind.settings, ("workload",))
    return found


def test_every_relative_path_of_the_schema_is_accounted_for() -> None:
    looked_for = {f"workload.evaluation.{name}" for name in ("knowledge.file", "harness.file", "harness.local.file")}
    assert fields_of_paths() == {".".join(place) for place in RELATIVE_PATHS} | looked_for


def test_data_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    write_tiny_task(tmp_path / "family", **{"workload.training.first.updates": 1})
    file = member(tmp_path, "", "../family/task.yaml")
    own = load_workload(load_task(tmp_path / "family" / "task.yaml"), "cpu")
    assert load_workload(load_task(file), "cpu").data_sha256 == own.data_sha256
    missing = member(tmp_path, "data: {path: text.txt}\n", "../family/task.yaml")
    assert load_task(missing).spec.data.path == "text.txt", "and one's own beside one's own"


def test_absolute_paths_and_those_of_the_same_folder_stay_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "base.yaml", tiny_spec())
    task = load_task(put(tmp_path / "task.yaml", f"extends: base.yaml\n{OWN}"))
    assert task.spec.data.path == "text.txt"
    put(tmp_path / "family" / "base.yaml", tiny_spec(**{"data.path": str(tmp_path / "text.txt")}))
    assert load_task(member(tmp_path)).spec.data.path == str(tmp_path / "text.txt")


def test_paths_go_through_a_chain_of_folders(tmp_path: Path) -> None:
    put(tmp_path / "a" / "deep" / "base.yaml", tiny_spec())
    put(tmp_path / "b" / "middle.yaml", "extends: ../a/deep/base.yaml\n")
    task = load_task(member(tmp_path, "", "../b/middle.yaml"))
    assert task.spec.data.path == "../a/deep/text.txt"


def test_weights_classifier_and_items_are_found_beside_the_file_that_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    put(folder / "base.yaml", tiny_spec("pretrained-lm"))
    for name in ("pairs.jsonl", "knowledge.json"):
        put(folder / name, "[]")
    task = load_task(member(tmp_path))
    assert model_folder(task) == tmp_path / "member" / "../family/model"
    settings = task.spec.workload.evaluation
    assert settings.harness[0].found_in(*item_folders(task)).file == str(folder / "pairs.jsonl")
    assert knowledge_file(settings.knowledge, *item_folders(task)) == folder / "knowledge.json"
    put(tmp_path / "member" / "knowledge.json", "[]")
    assert knowledge_file(settings.knowledge, *item_folders(task)).parent == tmp_path / "member", "one's own first"
    images = tiny_spec("vae", **{"workload.evaluation.classifier": write_classifier(folder)})
    put(folder / "base.yaml", images)
    evaluation = load_task(member(tmp_path)).spec.workload.evaluation
    assert evaluation.classifier.file == "../family/classifier.safetensors"


def test_a_link_to_a_task_file_means_the_file(tmp_path: Path, family: Path) -> None:
    file = member(tmp_path)
    link = tmp_path / "elsewhere" / "deep" / "task.yaml"
    link.parent.mkdir(parents=True)
    link.symlink_to(file)
    assert load_task(link).spec == load_task(file).spec


# What errors say


def test_an_error_in_what_is_taken_over_names_the_other_file(tmp_path: Path) -> None:
    base = put(tmp_path / "family" / "base.yaml", tiny_spec(**{"workload.block": 4, "horizon": 0, "tier": "nano"}))
    file = member(tmp_path, "horizon: -1\nworkload: {vocab_size: 3}\n")
    lines = error_of(file).splitlines()
    assert lines[0] == f"{file} has 4 error(s):"
    for place, ending in (("workload.block", f"[in {base}]"), ("tier", f"[in {base}]")):
        assert any(line.startswith(f"  {place}: ") and line.endswith(ending) for line in lines), place
    for place in ("horizon", "workload.vocab_size"):
        assert any(line.startswith(f"  {place}: ") and "[in" not in line for line in lines), place


def test_files_that_extend_each_other_are_named(tmp_path: Path, family: Path) -> None:
    file = member(tmp_path)
    family.write_text("extends: ../member/task.yaml\n")
    assert error_of(file) == f"{file} extends {family} extends {file}: a file cannot extend itself."
    itself = put(tmp_path / "itself.yaml", "extends: itself.yaml\n")
    assert error_of(itself) == f"{itself} extends {itself}: a file cannot extend itself."


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = member(tmp_path)
    message = error_of(file)
    assert message.startswith(f"{file}: extends '{BASE}', but there is no file {tmp_path / 'family' / 'base.yaml'}. ")
    assert "Give a path relative to this file" in error_of(member(tmp_path, "", "gmm-micro"))


@pytest.mark.parametrize("given", ["[a.yaml, b.yaml]", "null", "3", "''"])
def test_extends_is_one_path(tmp_path: Path, given: str) -> None:
    assert "extends must be the path of one other file" in error_of(member(tmp_path, "", given))


@pytest.mark.parametrize(("content", "told"), [("a: [", "is not valid YAML"), ("- a", "expected a mapping")])
def test_a_file_that_cannot_be_extended_is_named(tmp_path: Path, family: Path, content: str, told: str) -> None:
    family.write_text(content)
    message = error_of(member(tmp_path))
    assert message.startswith(str(family))
    assert told in message


def test_an_alias_within_itself_is_no_yaml(tmp_path: Path) -> None:
    assert "is not valid YAML" in error_of(put(tmp_path / "task.yaml", "a: &a {b: *a}"))


# The commands


def test_show_prints_the_file_and_everything_that_holds(tmp_path: Path, family: Path) -> None:
    file = member(tmp_path, "horizon: 2\n")
    done = collapsebench("show", str(file), cwd=tmp_path)
    assert done.code == 0
    text, resolved = done.out.split(f"--- with what it inherits from {family} ---")
    assert "extends: ../family/base.yaml" in text
    content = yaml.safe_load(resolved)
    assert content == read_task_file(file).content
    assert TaskSpec.model_validate(content) == load_task(file).spec
    assert "takes over" not in collapsebench("show", "gmm-micro", cwd=tmp_path).out


SCALES = {
    "perplexity": Scored(reference=30.5, floor=200.0),
    "next_token_accuracy": Scored(reference=1e-07, floor=0.0),
    "pair_accuracy": Scored(reference=0.65, floor=0.5),
}


def rewritten(file: Path) -> str:
    task = load_task(file)
    digests = {"sha256": task.sha256, "data_sha256": "5e" * 32}
    measured = {"circumstances": (), "floors": {}, "base": {}, "values": (), "seconds": ()}
    text = frozen_text(task, Record(task=task.id, scored=SCALES, **digests, **measured))
    file.write_text(text, "utf-8")
    return text


@pytest.mark.parametrize(
    "section",
    [
        "",
        "scored: # measured\n  perplexity: {}\n",
        "scored:\n  perplexity:\n    reference: null\n    floor: null\n# the end\n\nthreads: 1\n",
        "scored: !replace  # all\n  perplexity: {}\n  next_token_accuracy: {}\n  pair_accuracy: {}\n",
    ],
)
def test_calibration_writes_the_scale_into_the_tasks_own_file(tmp_path: Path, family: Path, section: str) -> None:
    before = family.read_text()
    file = member(tmp_path, section)
    text = rewritten(file)
    task = load_task(file)
    assert task.spec.scored == SCALES
    assert task.spec.calibrated_on == CalibratedOn(settings=task.sha256[:16], data="5e" * 8)
    assert text.startswith(f"extends: {BASE}\n{OWN}")
    assert rewritten(file) == text, "and again"
    assert family.read_text() == before


@pytest.mark.parametrize("section", ["scored: {perplexity: {}}\n", '"scored":\n  perplexity: {}\n', "...\n"])
def test_a_scale_that_cannot_be_written_is_told(tmp_path: Path, family: Path, section: str) -> None:
    file = member(tmp_path, section)
    before = file.read_text()
    with pytest.raises(RunError, match=r"task\.yaml: the section scored cannot be rewritten where it stands"):
        rewritten(file)
    assert file.read_text() == before


def test_registered_tasks_are_found_wherever_the_folder_of_tasks_is(tmp_path: Path) -> None:
    tasks = load_task("text-wikitext2-smollm2").path.parents[1]
    shutil.copytree(tasks, tmp_path / "tasks")
    name = "text-wikitext2-gemma-3-1b"
    assert load_task(tmp_path / "tasks" / name / "task.yaml").sha256 == load_task(name).sha256
