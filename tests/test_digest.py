"""The digest of a task does not move when the schema grows; defaults that are published never change."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tiny_task import KINDS, tiny_spec

from collapsebench import digest
from collapsebench.frozen import Frozen
from collapsebench.paths import bundled
from collapsebench.task import load_task, registered_tasks
from collapsebench.task_spec import TaskSpec
from collapsebench.workloads.kinds import KINDS as RECORDS
from collapsebench.workloads.training_settings import Training

TESTS = Path(__file__).resolve().parent
DEFAULTS = TESTS / "published_defaults.json"
TASK_FILES = [file for path in registered_tasks().values() for file in (path, *sorted(path.parent.glob("task@*.yaml")))]
# Tasks of a user's own, with the sections that no registered task has.
OWN = {kind: tiny_spec(kind) for kind in KINDS} | {
    "hub": tiny_spec(data={"source": "hub", "dataset": "a/b", "revision": "0" * 40})
}
NEVER = ("scored", "calibrated_on", "checks")  # sections that are not part of the digest

# What results and entries are published under: a new task adds its line, no line ever changes.
PUBLISHED = {
    "markov-micro@1": "a74a67be2dab9b70c10dc243242ffb5e07177639d6c58751856761ec19724de5",
    "markov-micro@2": "df25ffe6f658f4de60701366577b25778163957cfa4297ee75c3ee66cd74bb18",
    "text-bytes-micro@1": "45e722859be2e49d03a6a063cbe48472ed48b46dbb5c632788a43bda92fdfe20",
    "text-bytes-micro-accumulate@1": "c2f7652a42d143f52fade6160f60e6c6a4eb5e25c5eaaf8deaddc7cbdc9039d5",
    "text-bytes-micro-fresh@1": "0eb4f053d8447232e6688f33eaba277ec84927838e30fa4bf11875ff58a72760",
    "text-bytes-micro-mix@1": "2cf666930afd35543347b9edb4d11230cbacc5b879d227bae6294806ea79ad9b",
    "text-bytes-micro-sharp@1": "d148151f12d37d7311bf64b6e948b856ccd27277ae6776740ea0f9aaefa98e4b",
    "diffusion-cifar10@1": "2d79c55eb1b80b8c39aed978a398e6cc351da6bf22bc89a83ffbc5e3784ea6d0",
    "diffusion-mnist-micro@1": "111114babf005be9dc010bca34ef07a087da31c89b6cd419e5b08a96e59bf779",
    "diffusion-mnist-micro@2": "4dce2bf529ab2c0a6713cefc7cff5889b9a04a429dd8d6e69a1413159a8b297f",
    "gmm-micro@1": "7470f162c5795964265da9c65c9df196218a9a0760637e8ab8e0b8212bd6ebb9",
    "text-wiki-micro@1": "4927de88ce8d5a45b4833df89b44d120f98b852181a0aaa3b52e72977d256a4b",
    "text-wikitext2-gpt2@1": "c68558bef8b9c8af9a1d4b36b959fa9c0933cc0c7c7832e9b94b9159bfbcdd28",
    "text-wikitext2-gemma-3-1b@1": "04b3bb7fc8db069c9ac83d80492c0322fc50c34a8af85259e399630143985d4c",
    "text-wikitext2-gemma-3-1b@2": "c5f0938e3b98f870bde1f3a10c21680622823530fb27fb8cfa8c607e02b77c37",
    "text-wikitext2-llama-3.2-1b@1": "59b9b5cd0771fcf77d76b4e0ffd71bdc53294a5c9603662541e15bb71c00bac5",
    "text-wikitext2-llama-3.2-1b@2": "d9275da9caa04fe21c9fbc98b47b0e7a03073b2a3bf623252bd782c80377c33d",
    "text-wikitext2-smollm2@1": "86bcc81bb9e2d9bd0d5d7d998249337e3288013530d461f4662a6cb40adf0d86",
    "text-wikitext2-smollm2@2": "cef093d97095cfce3453250619cdd6d44f83bf5725a74c4597e6e77dcca50c2d",
    "vae-mnist@1": "69ad142859436d1bfdfc0d2854be84b14005ed2d3051e45292e5ff4a25a2a874",
    "vae-mnist@2": "444a38d7cc57f7d016c76de3c47476fda2cd00255c5bd87b28c680b2eb3dd5ff",
    "vae-mnist-micro@1": "fa5110b5234d9d8bd153ec206196f195422601a82166df757b6407ddc8b1092f",
    "vae-mnist-micro@2": "63a322aa4f29f7ea7042b46c5d2b50b18ebf9f3de57ce970950c0a78d265bf1c",
    "vae-mnist-micro-accumulate@1": "55cdb36039aeba093c7ce9333be042be00e103b136cf2b802d05eca37631f55a",
}


def sections() -> list[type[BaseModel]]:
    """Every section that a task file can have, as the schema has them."""
    found: list[type[BaseModel]] = []

    def look(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation in found:
                return
            found.append(annotation)
            for field in annotation.model_fields.values():
                look(field.annotation)
        for part in typing.get_args(annotation):
            look(part)

    look(TaskSpec)
    for kind in RECORDS.values():
        look(kind.settings)
    return found


def as_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else json.loads(json.dumps(value))


def defaults() -> dict[str, dict[str, Any]]:
    """The default of every optional field, by section."""
    return {
        section.__name__: {
            name: as_json(f.get_default(call_default_factory=True))
            for name, f in section.model_fields.items()
            if not f.is_required()
        }
        for section in sections()
    }


def changed_defaults() -> list[str]:
    """What differs from the defaults that are published."""
    now, published = defaults(), json.loads(DEFAULTS.read_text("utf-8"))
    names = {(section, name) for known in (now, published) for section in known for name in known[section]}
    absent = "not there"
    return [
        f"{section}.{name}: {was!r} is published, here it is {found!r}"
        for section, name in sorted(names)
        if (was := published.get(section, {}).get(name, absent)) != (found := now.get(section, {}).get(name, absent))
    ]


# What is published


@pytest.mark.parametrize("file", TASK_FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_digest_of_a_registered_task_is_the_published_one(file: Path) -> None:
    task = load_task(file)
    assert task.sha256 == PUBLISHED[task.id]


def test_every_published_entry_has_the_digest_of_its_task() -> None:
    contents = [json.loads(file.read_text("utf-8")) for file in bundled("submissions").glob("*@*/*.json")]
    tasks = [content["task"] for content in contents if "results" in content]  # the others are attestations
    assert len(tasks) >= 12
    assert [task["sha256"] for task in tasks] == [PUBLISHED[task["id"]] for task in tasks]


def test_published_defaults_are_what_they_were() -> None:
    advice = (
        f"A default never changes once it is published: give the field another name. A new one goes into {DEFAULTS}."
    )
    assert not changed_defaults(), advice


def test_another_default_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training.model_fields["weight_decay"], "default", 0.2)
    assert "Training.weight_decay: 0.1 is published, here it is 0.2" in changed_defaults()


def test_sections_have_names_of_their_own_as_the_digest_knows_them_by_name() -> None:
    names = [section.__name__ for section in sections()]
    assert len(set(names)) == len(names)
    fields = {section.__name__: set(section.model_fields) for section in sections()}
    for listing in (digest._FIRST, digest._NEVER):
        assert all(listing[section] <= fields[section] for section in listing)


# What comes later


@pytest.fixture(scope="module")
def grown() -> dict[str, Any]:
    """Digests under a schema in which every section has more optional fields."""
    program = [sys.executable, str(TESTS / "grown_schema.py")]
    done = subprocess.run(program, input=json.dumps(OWN), capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout)


def test_optional_fields_at_every_level_of_the_schema_move_no_digest(grown: dict[str, Any]) -> None:
    registered = {name: PUBLISHED[load_task(name).id] for name in registered_tasks()}
    own = {name: digest.digest_of(TaskSpec.model_validate(content)) for name, content in OWN.items()}
    assert grown["digests"] == registered | own


def test_an_optional_field_that_is_given_moves_the_digest_wherever_it_is(grown: dict[str, Any]) -> None:
    places = 0
    for name, found in grown["given"].items():
        outside = [place for place in found if place.startswith(NEVER)]
        inside = {place: value for place, value in found.items() if place not in outside}
        assert {found[place] for place in outside} == {grown["digests"][name]}
        assert grown["digests"][name] not in inside.values()
        assert len(set(inside.values())) == len(inside), "and no two of them are the same"
        places += len(inside)
    assert places > 500


def test_a_section_built_on_another_keeps_the_fields_that_it_has_from_it() -> None:
    class Longer(Training):
        warmup: int | None = None

    given = {"batch_size": 8, "first": {"updates": 1, "learning_rate": 0.1, "decay": "none"}}
    given["later"] = given["first"]
    assert digest.digest_of(Longer(**given)) == digest.digest_of(Training(**given))
    assert digest.digest_of(Longer(**given, warmup=3)) != digest.digest_of(Training(**given))


def test_a_new_section_is_covered_by_what_it_says() -> None:
    class Novel(Frozen):
        size: int
        depth: int = 1

    assert digest.digest_of(Novel(size=2)) == digest.digest_of(Novel(size=2, depth=1))
    assert len({digest.digest_of(Novel(size=s, depth=d)) for s in (1, 2) for d in (1, 2)}) == 4
