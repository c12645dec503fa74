"""What a submission is refused for: every check, broken alone in a file that is otherwise valid and has its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from submission_files import (
    at,
    content_of,
    drop,
    engaged,
    problems_of,
    put,
    sha256,
    tiny_task,
    valid_submission,
    write,
    write_bytes,
    write_content,
)
from tiny_task import KINDS

from collapsebench.methods import registered_methods
from collapsebench.publishing.registered_defaults import registered_defaults
from collapsebench.publishing.submission import Excerpt, canonical_bytes, plain_text
from collapsebench.publishing.validation import validate_files
from collapsebench.task import Task

Edits = dict[str, Any]

DROP = object()
SHARES = {"masked_gradient": 0.1, "masked_elements": 0.3, "confident_elements": 0.2}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """A tiny task of every kind."""
    return {kind: tiny_task(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture
def text(tasks) -> Task:
    return tasks["text"]


def edited(content: Any, edits: Edits) -> Any:
    """A copy with changes by path; a function changes what is there, `DROP` removes it."""
    for path, value in edits.items():
        if value is DROP:
            content = drop(content, path)
        else:
            content = put(content, path, value(at(content, path)) if callable(value) else value)
    return content


def broken(task: Task, folder: Path, edits: Edits) -> list[tuple[str, str]]:
    """Codes and paths of the problems of a submission with changes."""
    content = edited(content_of(valid_submission(task)), edits)
    problems = problems_of(write_content(content, folder), task)
    assert all(part.isprintable() and part for p in problems for part in (p.code, p.path, p.given, p.allowed))
    return [(problem.code, problem.path) for problem in problems]


# what is valid


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_submission_of_every_kind_passes(tasks, kind, tmp_path):
    submission = valid_submission(tasks[kind])
    path = write(submission, tmp_path)
    (verdict,) = validate_files([path], {task.id: task for task in tasks.values()})
    assert verdict.problems == []
    assert verdict.entry is not None
    assert verdict.entry.submission == submission  # read again from the file
    assert verdict.entry.digest in path.name


def test_engagement_may_be_there_in_every_generation_in_some_or_in_none(text, tmp_path):
    plain, measured = valid_submission(text), engaged(valid_submission(text), 0.03)
    some = drop(content_of(measured), "results.0.generations.0.engagement")
    found = []
    for path in (write(plain, tmp_path), write(measured, tmp_path), write_content(some, tmp_path)):
        (verdict,) = validate_files([path], {text.id: text})
        assert verdict.problems == []
        found.append(verdict.entry.masked_gradient)
    assert found == [None, pytest.approx(0.03), pytest.approx(0.03)]
    assert b"engagement" not in canonical_bytes(plain)


def test_samples_may_grow_where_a_generation_rewrites_all_it_knows(tmp_path):
    task = tiny_task(tmp_path, "text", **{"policy.name": "regenerate-fresh"})
    content, place = content_of(valid_submission(task)), "generations.1.metrics.repetition.n"
    for seed in range(len(task.spec.seeds)):
        content = put(content, f"results.{seed}.{place}", 2 * at(content, f"results.{seed}.{place}"))
    assert problems_of(write_content(content, tmp_path), task) == []
    other = put(content, f"results.1.{place}", 361)
    assert [p.code for p in problems_of(write_content(other, tmp_path), task)] == ["metric-n"]
    fewer = content
    for seed in range(len(task.spec.seeds)):
        fewer = drop(fewer, f"results.{seed}.generations.1.metrics.repetition")
    assert {p.code for p in problems_of(write_content(fewer, tmp_path), task)} == {"metric-n"}


GENERATION_1 = "results.0.generations.1."
METRICS = GENERATION_1 + "metrics."
DIVERGED: Edits = {
    "results.0.generations": lambda old: old[:2],
    GENERATION_1 + "status": "diverged",
    GENERATION_1 + "metrics": {},
    GENERATION_1 + "elements_sampled": 0,
    "samples": None,
}
OTHER_DEVICE: Edits = {
    "provenance": lambda old: [old[0], old[0] | {"seeds": [1], "device": "cuda", "threads": 8, "gpu": "A GPU"}]
}


@pytest.mark.parametrize(
    "edits", [DIVERGED, OTHER_DEVICE, {"samples": None}, {"method.url": None}, {"authors": ["李"]}]
)
def test_what_may_differ_may_differ(text, edits, tmp_path):
    assert broken(text, tmp_path, edits) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_and_of_three_channels_have_their_counts(tasks, channels, tmp_path):
    path = "results.0.generations.2.elements_sampled"
    assert broken(tasks["vae"], tmp_path, {path: lambda old: channels * old}) == []


@pytest.mark.parametrize("name", ["accumulate", "accumulate-subsample", "mix", "fresh-mix", "regenerate-fresh"])
def test_every_data_policy_has_valid_submissions(name, tmp_path):
    policy = {"name": name, "size": 32, "real_share": 0.3 if "mix" in name else None}
    assert broken(tiny_task(tmp_path, "gmm", policy=policy), tmp_path, {}) == []


# every check


def registered(name: str) -> Edits:
    digest = hashlib.sha256(registered_methods()[name].read_bytes()).hexdigest()
    parameters = registered_defaults()[name]
    return {
        "method.name": name,
        "method.loss": name,
        "method.source_sha256": digest,
        "method.parameters": parameters,
    }


def everywhere(metric: str, value: Any) -> Edits:
    return {f"results.{i}.generations.{g}.metrics.{metric}": value for i in (0, 1) for g in range(4)}


PLACE = "results[0].generations[1].metrics"
FIRST = "results[0].generations[0].metrics"
ACCURATE = {f"results.{i}.generations.0.metrics.next_token_accuracy.value": (170 + i) / 360 for i in (0, 1)}
UNKNOWN = {"value": 0.5, "n": 2}

AGAINST_TASK: list[tuple[str, Edits, str, str]] = [
    ("text", {"task.id": "tiny@2"}, "unknown-task", "task.id"),
    ("text", {"task.sha256": sha256("other")}, "task-digest", "task.sha256"),
    ("text", {"task.scored.perplexity.floor": 200.0000001}, "references", "task.scored.perplexity"),
    ("text", {"task.scored.perplexity.reference": 59.0}, "references", "task.scored.perplexity"),
    ("text", {"task.scored.pair_accuracy": DROP}, "references", "task.scored.pair_accuracy"),
    ("text", {"task.scored.repetition": {"reference": 0.0, "floor": 1.0}}, "references", "task.scored.repetition"),
    ("text", {"date": "9999-12-31"}, "date", "date"),
    ("text", {"method.name": "control"}, "method", "method.name"),
    ("text", {"method.loss": "control"}, "method", "method.name"),
    ("text", {"method.name": "tce:gamma=0.5"}, "baseline-digest", "method.source_sha256"),
    ("text", {"method.loss": "tce:TCE"}, "baseline-digest", "method.source_sha256"),
    ("text", {"method.name": "focal", "method.loss": "focal"}, "baseline-digest", "method.source_sha256"),
    ("text", registered("tce") | {"method.loss": "tce.py:TCE"}, "baseline-digest", "method.source_sha256"),
    ("text", registered("tce") | {"method.parameters.gamma": 0.5}, "baseline-parameters", "method.name"),
    ("text", registered("tce") | {"method.name": "tce:reduction=mean", "method.parameters.gamma": 0.5},
     "baseline-parameters", "method.name"),
    ("text", registered("tce") | {"method.parameters.note": 1}, "baseline-parameters", "method.parameters"),
    ("text", registered("tce") | {"method.parameters.reduction": DROP}, "baseline-parameters", "method.parameters"),
    ("text", {"method.parameters": {f"p{i}": 1.0 for i in range(9)}}, "parameters", "method.parameters"),
    ("text", {"method.parameters.reduction": "sum"}, "parameters", "method.parameters.reduction"),
    ("text", registered("tce") | {"method.name": "tce:gamma=0.7", "method.parameters.gamma": 0.5},
     "baseline-parameters", "method.name"),
    ("text", registered("tce") | {"method.name": "tce:beta=1"}, "baseline-parameters", "method.name"),
    ("text", registered("ce"), "first-generation", "results[*].generations[0].metrics.perplexity.value"),
    ("text", ACCURATE, "first-generation", "results[*].generations[0].metrics.next_token_accuracy.value"),
    ("text", {"results": lambda old: old[::-1]}, "seeds-order", "results"),
    ("text", {"results.1": DROP, "provenance.0.seeds": [0]}, "seeds-missing", "results"),
    ("text", {"provenance.0.seeds": [0]}, "provenance", "provenance"),
    ("text", {"provenance.0.seeds": [0, 1, 2]}, "provenance", "provenance"),
    ("text", {"provenance.0.threads": 2}, "provenance", "provenance[0].threads"),
    ("text", {"results.1.generations": lambda old: [old[0], *old[2:]]}, "generations-order", "results[1].generations"),
    ("text", {"results.1.generations": lambda old: old[::-1]}, "generations-order", "results[1].generations"),
    ("text", {"results.1.generations.2.generation": 1}, "generations-order", "results[1].generations"),
    ("text", {"results.1.generations": lambda old: old[1:]}, "generations-order", "results[1].generations"),
    ("text", {"results.1.generations.3": DROP}, "generations-missing", "results[1].generations"),
    (
        "text", {"results.1.generations": lambda old: [*old, old[3] | {"generation": 4}]},
        "generations-missing", "results[1].generations",
    ),
    (
        "text", {"results.1.generations.2.status": "diverged", "results.1.generations.2.metrics": {}},
        "after-divergence", "results[1].generations",
    ),
    ("text", {"results.1.generations.3.status": "diverged"}, "after-divergence", "results[1].generations[3].metrics"),
    (
        "text", DIVERGED | {GENERATION_1 + "engagement": SHARES},
        "after-divergence", "results[0].generations[1].engagement",
    ),
    ("text", everywhere("pair_accuracy", DROP), "metric-missing", f"{FIRST}.pair_accuracy"),
    ("gmm", everywhere("coverage", UNKNOWN), "metric-unknown", f"{FIRST}.coverage"),
    ("text", everywhere("nonsense", UNKNOWN), "metric-unknown", f"{FIRST}.nonsense"),
    ("text", {METRICS + "prediction_entropy.value": -0.1}, "metric-bounds", f"{PLACE}.prediction_entropy.value"),
    ("text", {METRICS + "distinct_2.value": 1.1}, "metric-bounds", f"{PLACE}.distinct_2.value"),
    ("text", {METRICS + "pair_accuracy.value": 0.51}, "not-a-multiple", f"{PLACE}.pair_accuracy.value"),
    ("text", {METRICS + "repetition.n": 361}, "metric-n", PLACE),
    ("text", {METRICS + "repetition": DROP}, "metric-n", PLACE),
    ("text", {METRICS + "perplexity.value": lambda old: old * 1.00001}, "inconsistent", f"{PLACE}.perplexity"),
    ("text", {METRICS + "token_loss.value": 1e300}, "inconsistent", f"{PLACE}.perplexity"),
    ("text", {METRICS + "token_loss_p50.value": 7.9}, "inconsistent", f"{PLACE}.token_loss_p90"),
    ("text", {METRICS + "token_loss_p90.value": 99.0}, "inconsistent", f"{PLACE}.token_loss_p99"),
    ("vae", {METRICS + "negative_elbo.value": lambda old: old - 0.01}, "inconsistent", f"{PLACE}.negative_elbo"),
    ("text", {GENERATION_1 + "elements_trained": 10}, "counters", "results[0].generations[1].elements_trained"),
    ("vae", {GENERATION_1 + "elements_sampled": 48}, "counters", "results[0].generations[1].elements_sampled"),
    ("gmm", {GENERATION_1 + "real_share": 0.5}, "counters", "results[0].generations[1].real_share"),
    ("gmm", {"results.1.generations.0.real_share": 0.0}, "counters", "results[1].generations[0].real_share"),
    ("gmm", {"results.1.generations": lambda old: old[:1] * 4}, "generations-order", "results[1].generations"),
    ("text", {"samples.generations": lambda old: old | {"4": old["3"]}}, "samples", "samples.generations.4"),
    ("text", {"samples.seed": 2}, "samples", "samples.seed"),
    ("gmm", {"samples.truth": lambda old: old[1:]}, "samples", "samples.truth"),
    ("gmm", {"samples.generations.2": [0.5, 0.5]}, "samples", "samples.generations.2"),
    ("gmm", {"samples.x": lambda old: [*old, 9.0]}, "samples", "samples.truth"),
    ("vae", {"samples.generations.2": "AAAA"}, "samples", "samples.generations.2"),
    ("vae", {"samples.generations.2": "AAAAA"}, "samples", "samples.generations.2"),
    ("diffusion", {"samples.generations.0": lambda old: old[:-8]}, "samples", "samples.generations.0"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "edits", "code", "path"), AGAINST_TASK)
def test_a_disagreement_with_the_task_is_found_alone(tasks, kind, edits, code, path, tmp_path):
    found = broken(tasks[kind], tmp_path, edits)
    assert found[0] == (code, path)
    assert {code for code, _ in found} == {code}


@pytest.mark.parametrize(("kind", "other"), [("text", "gmm"), ("gmm", "vae"), ("vae", "text"), ("diffusion", "gmm")])
def test_samples_of_another_kind_are_refused(tasks, kind, other, tmp_path):
    samples = content_of(valid_submission(tasks[other]))["samples"]
    assert broken(tasks[kind], tmp_path, {"samples": samples}) == [("samples", "samples.kind")]


def test_seeds_that_are_foreign_doubled_or_the_same_are_told_apart(text, tmp_path):
    other = content_of(valid_submission(text, name="Other"))["results"][1]
    foreign: Edits = {"results": lambda old: [*old, other | {"seed": 2}], "provenance.0.seeds": [0, 1, 2]}
    assert broken(text, tmp_path, foreign) == [("seeds-foreign", "results")]
    assert broken(text, tmp_path, {"results": lambda old: [*old, other]}) == [("seeds-doubled", "results")]
    same: Edits = {"results.1.generations": content_of(valid_submission(text))["results"][0]["generations"]}
    assert broken(text, tmp_path, same) == [("identical-seeds", "results[1]")]


def test_the_order_of_seeds_counts_also_where_it_is_not_ascending(tmp_path):
    task = tiny_task(tmp_path, "gmm", seeds=[1, 0])
    assert broken(task, tmp_path, {}) == []
    assert broken(task, tmp_path, {"results": lambda old: old[::-1]}) == [("seeds-order", "results")]


@pytest.mark.parametrize("name", ["accumulate", "mix", "regenerate-fresh"])
def test_counters_follow_the_data_policy(name, tmp_path):
    policy = {"name": name, "size": 32, "real_share": 0.3 if "mix" in name else None}
    task = tiny_task(tmp_path, "gmm", policy=policy)
    wrong = {"accumulate": "elements_sampled", "mix": "real_share", "regenerate-fresh": "elements_trained"}[name]
    found = broken(task, tmp_path, {GENERATION_1 + wrong: lambda old: old / 2 if name == "mix" else old + 1})
    assert found == [("counters", f"results[0].generations[1].{wrong}")]


# the schema

WRONG: list[tuple[str, Any]] = [
    ("schema_version", 2), ("task", DROP), ("task.scored", {}), ("task.sha256", "A" * 64), ("task.id", "tiny@01"),
    ("task.id", "../tiny@1"), ("method.track", "best"), ("method.parameters", {"a-b": 1}), ("method.card", ""),
    ("method.card", "x" * 2001), ("method.url", "http://example.org"), ("method.url", "https://a@evil.example"),
    ("method.url", 'https://example.org/"onclick="'), ("method.url", "javascript:alert(1)"), ("method.name", "-MyLoss"),
    ("method.name", "a/../../b"), ("method.name", "a\\b"), ("method.name", "MyLoss\n"), ("method.name", ".."),
    ("method.name", "Ⅿy"), ("method.name", "a\u202eb"), ("method.loss", "../my_loss.py:MyLoss"),
    ("method.loss", "/etc/passwd:MyLoss"), ("method.loss", "a.py:My Loss"), ("authors", []), ("authors.0", ""),
    ("authors.0", " A"), ("authors.0", "A\nB"), ("authors", ["A"] * 51), ("licence", "CC BY"), ("date", "2026-02-30"),
    ("date", "２０２６-０１-０１"), ("date", "2026-01-31T00:00"), ("supersedes", "../0123456789ab"), ("results", []),
    ("results.0.generations", []), ("results.0.seed", 0.0), ("results.0.seed", False), ("results.0.seed", -1),
    ("results.0.seed", 2**31), ("results.0.seed", "0"), ("results.0.generations.0.seconds", True),
    ("results.0.generations.0.seconds", -1.0), ("results.0.generations.0.status", "OK"),
    ("results.0.generations.0.generation", 1001), ("results.0.generations.0.generation", None),
    ("results.0.generations.0.real_share", 1.1), ("results.0.generations.0.elements_trained", 10**18 + 1),
    ("results.0.generations.0.metrics.repetition.n", 0), ("results.0.generations.0.metrics.repetition.n", 360.0),
    ("results.0.generations.0.metrics.repetition", 0.5), ("results.0.generations.0.metrics.repetition.value", "0.5"),
    ("provenance", []), ("provenance.0.git.commit", "0"), ("provenance.0.device", "tpu"),
    ("provenance.0.packages.numpy", 2.1), ("samples.generations.0", []), ("samples.generations.0.0.text", "x" * 601),
    ("samples.seed", None),
    *(("results.0.generations.0.engagement", wrong) for wrong in (
        {}, [], 0.5, SHARES | {"masked_elements": 1.01}, SHARES | {"masked_elements": -0.01},
        SHARES | {"masked_elements": True}, SHARES | {"masked_elements": None}, SHARES | {"masked": 0.5},
        {"masked_gradient": 0.1},
    )),
]  # fmt: skip


def stands_at(problem_path: str, path: str) -> bool:
    """Whether a problem is reported at this place or below; pydantic also names the kind of samples."""
    place = problem_path.replace("[", ".").replace("]", "").replace("samples.text.", "samples.")
    return f"{place}.".startswith(f"{path}.")


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_what_the_schema_does_not_allow_is_named(text, path, value, tmp_path):
    found = broken(text, tmp_path, {path: value})
    assert {code for code, _ in found} == {"schema"}
    assert all(stands_at(place, path) for _, place in found)


@pytest.mark.parametrize("path", ["", "task.", "method.", "results.1.", GENERATION_1, "provenance.0.", "samples."])
def test_an_unknown_key_is_named_anywhere(text, path, tmp_path):
    ((code, place),) = broken(text, tmp_path, {f"{path}Score\u202e": {"value": 1}})
    assert code == "unknown-key"
    assert "Score\\u202e" in place


@pytest.mark.parametrize("path", ["results.0.generations.1.metrics", "method.parameters", "provenance.0.packages"])
@pytest.mark.parametrize("key", ["", "a b", "\u202e", "../a", "x" * 200, "<b>", "a\n", "ａ"])
def test_keys_that_are_no_names_are_refused(text, path, key, tmp_path):
    def with_key(old: dict[str, Any]) -> dict[str, Any]:
        return old | {key: next(iter(old.values()))}

    assert {code for code, _ in broken(text, tmp_path, {path: with_key})} == {"schema"}


# one spelling

RESPELT = [  # part of a valid file, and another way to write its value
    ('"schema_version": 1', "1.0"), ('"schema_version": 1', "true"), ('"schema_version": 1', "1e0"),
    ('"seed": 0', "-0"), ('"generation": 1', "1.0"), ('"generation": 1', "10e-1"), ('"real_share": 1.0', "1"),
    ('"real_share": 1.0', "1.00"), ('"real_share": 1.0', "1e0"), ('"beta": 0.5', "5e-1"), ('"n": 360', "true"),
    ('"beta": 0.5', "0.50000000000000000001"), ('"threads": 1', "1.0"), ('"dirty": false', "0"),
    ('"licence": "CC-BY-4.0"', '"CC-BY-4\\u002e0"'), ('"schema_version": 1', " 1"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "other"), RESPELT)
def test_one_value_has_one_spelling(text, part, other, tmp_path):
    content = canonical_bytes(valid_submission(text)).decode()
    assert part in content
    respelt = content.replace(part, f"{part.split(':')[0]}: {other}", 1)
    codes = {problem.code for problem in problems_of(write_bytes(respelt.encode(), tmp_path), text)}
    assert codes in ({"not-canonical"}, {"schema"})


# all at once


def test_all_problems_are_listed_at_once(text, tmp_path):
    faults: Edits = {
        "task.sha256": sha256("other"),
        "date": "9999-12-31",
        "provenance.0.threads": 3,
        METRICS + "pair_accuracy.value": 0.51,
        "samples.seed": 9,
    }
    codes = {code for code, _ in broken(text, tmp_path, faults)}
    assert codes == {"task-digest", "date", "provenance", "not-a-multiple", "samples"}


def test_all_mistakes_of_the_schema_are_listed_at_once(text, tmp_path):
    faults: Edits = {"licence": 1, "method.name": "a/b", "date": DROP, "results.1.seed": "1", "samples.score": 0.9}
    found = dict(reversed(pair) for pair in broken(text, tmp_path, faults))
    assert {path: found.get(path) for path in ("licence", "method.name", "date", "results[1].seed")} == {
        "licence": "schema", "method.name": "schema", "date": "schema", "results[1].seed": "schema",
    }  # fmt: skip
    assert sorted(found.values()) == ["schema"] * 4 + ["unknown-key"]


# texts

FREE_TEXTS = [
    "method.card", "method.parameters.word", "authors.0", "provenance.0.packages.torch", "provenance.0.python",
    "provenance.0.platform", "provenance.0.processor", "provenance.0.gpu", "provenance.0.precision",
    "samples.generations.0.0.prompt", "samples.generations.0.0.text",
]  # fmt: skip
INVISIBLE = (
    "\x00\x07\x08\x0b\x1b\r\t\x7f\x85\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202d\u202e\u2060\u2066\u2067"
    "\u2069\ufeff\ue000\U000e0041"
)
MARKUP = [
    "<script>alert(1)", "</td>", "<!--", "<?php", "<\nimg src=x>", "<IMG SRC=x onerror=alert(1)>", "vbscript:x",
    "javascript:alert(1)", "JaVaScRiPt :alert(1)", "data:text/html;base64,", "\x1b]8;;https://evil.example\x07",
]  # fmt: skip


@pytest.mark.parametrize("path", FREE_TEXTS)
def test_invisible_characters_and_markup_are_refused_in_every_text(text, path, tmp_path):
    for hostile in (*INVISIBLE, *MARKUP):
        found = broken(text, tmp_path, {path: f"a{hostile}b"})
        assert {code for code, _ in found} == {"schema"}, hostile
        assert all(stands_at(place, path) for _, place in found), hostile


@pytest.mark.parametrize("path", FREE_TEXTS)
def test_texts_of_the_world_are_welcome(text, path, tmp_path):
    for fine in ("Zoë 李 Ж", "می\u200cخواهم", "👩🏽\u200d🔬 2 < 3 > 1", "a & b 'c' \"d\"", "<3 {{x}} $(x) %s"):
        assert broken(text, tmp_path, {path: fine}) == [], fine


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "\\ud800\\ud800", "\\udc00\\ud800"])
def test_half_a_character_is_refused(text, escape, tmp_path):
    content = canonical_bytes(valid_submission(text)).replace(b"A. Author", b"A" + escape.encode())
    (problem,) = problems_of(write_bytes(content, tmp_path), text)
    assert problem.code == "schema"
    assert str(problem).isprintable()


@given(st.text() | st.text(st.sampled_from("<a/! \n:\x1b\u202e\ud800")))
def test_a_text_made_plain_is_accepted_and_plain_texts_stay(text):
    plain = plain_text(text, 600)
    assert len(plain) == len(text[:600])
    assert Excerpt(prompt="", text=plain).text == plain
    assert plain_text(plain, 600) == plain


# known faults


@pytest.mark.parametrize("text", ["<data:", "a <javascript:x"])
def test_neighbouring_markup_is_made_plain(text):
    assert Excerpt(prompt="", text=plain_text(text, 600))


@pytest.mark.parametrize("value", [1.7e308, -1.7e308])
def test_a_counted_metric_of_any_size_is_out_of_bounds(text, value, tmp_path):
    found = broken(text, tmp_path, {METRICS + "pair_accuracy.value": value})
    assert found == [("metric-bounds", f"{PLACE}.pair_accuracy.value")]


def test_the_kind_of_samples_is_quoted_visibly(text, tmp_path):
    assert broken(text, tmp_path, {"samples.kind": "\x1b[2J\u202e\n"}) == [("schema", "samples")]


@pytest.mark.parametrize("blank", ["\u200d", "\u200c\u200d", "\u3164", "\u2800", "\u115f", "\uffa0"])
def test_an_author_can_be_seen(text, blank, tmp_path):
    assert ("schema", "authors[0]") in broken(text, tmp_path, {"authors.0": blank})
