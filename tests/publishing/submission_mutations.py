"""What a stranger may do to a submission: mutations at random places that must all be refused.

Where the content is changed, the file gets the name of its new digest unless the mutation says otherwise, so that it
is not the digest alone that gives it away.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submission_files import at, content_of, drop, entry_of, put, valid_submission

from collapsebench.metrics.catalogue import METRICS
from collapsebench.publishing.bounded_json import MAX_BYTES, MAX_KEYS
from collapsebench.publishing.submission import Submission, canonical_bytes, submission_path
from collapsebench.task import Task

Draw = random.Random

_FREE_MAPS = ("method.parameters", "provenance.0.packages", "samples.generations")
_NULLABLE = ("method.url", "samples", "provenance.0.git", "provenance.0.gpu")
_PLACEHOLDER = "@placeholder@"


@dataclass(frozen=True, repr=False)
class Original:
    """A valid submission, and its task."""

    submission: Submission
    task: Task

    @property
    def content(self) -> dict[str, Any]:
        return content_of(self.submission)

    @property
    def written(self) -> bytes:
        return canonical_bytes(self.submission)

    @property
    def name(self) -> str:
        return Path(submission_path(self.submission, self.written)).name


@dataclass(frozen=True)
class Mutant:
    """A mutated submission.

    Attributes:
        content: JSON to be written canonically where the schema accepts it; or the bytes themselves.
        name: of the file, where it is not the one of the digest. published: what it is held against.
    """

    content: Any
    name: str | None = None
    published: list[Submission] = field(default_factory=list)


Mutation = Callable[[Draw, Original], Mutant]


# places


def _nodes(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        place = f"{path}.{key}" if path else str(key)
        yield place, value
        yield from _nodes(value, place)


def _pick(draw: Draw, content: Any, fits: Callable[[str, Any], bool]) -> str:
    """A place that fits; first its kind, so that metrics and curves do not take nearly all."""
    kinds: dict[str, list[str]] = {}
    for path, value in _nodes(content):
        if fits(path, value):
            kinds.setdefault(re.sub(r"\b\d+\b", "#", path), []).append(path)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _free(path: str) -> bool:
    """Whether any text and any number is allowed at a place."""
    return path.startswith(("method.parameters", "provenance.0.packages"))


def _number(path: str, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(path: str, value: Any) -> bool:
    return isinstance(value, str)


def _bounded(path: str, value: Any) -> bool:
    """Numbers that can be neither -1 nor 1e308: no coordinates, and of metrics those that have an upper bound."""
    if not _number(path, value) or _free(path) or path.startswith(("samples.x", "samples.truth", "samples.gen")):
        return False
    metric = re.search(r"metrics\.(\w+)\.value$", path)
    return metric is None or metric[1] in ("perplexity", "token_loss") or METRICS[metric[1]].bounds[1] == 1


# text


def truncated(draw: Draw, original: Original) -> Mutant:
    return Mutant(original.written[: draw.randrange(len(original.written))])


def flipped_bit_under_the_old_name(draw: Draw, original: Original) -> Mutant:
    return Mutant(_flipped(draw, original.written, bytes(range(256))), original.name)


def flipped_bracket(draw: Draw, original: Original) -> Mutant:
    return Mutant(_flipped(draw, original.written, b"[]{}"))


def _flipped(draw: Draw, content: bytes, which: bytes) -> bytes:
    i = draw.choice([i for i, byte in enumerate(content) if byte in which])
    return content[:i] + bytes([content[i] ^ 1 << draw.randrange(8)]) + content[i + 1 :]


def doubled_key(draw: Draw, original: Original) -> Mutant:
    key = draw.choice(list(re.finditer(rb'"\w+": ', original.written)))
    return Mutant(original.written[: key.start()] + key[0] + b"0, " + original.written[key.start() :])


def other_spacing(draw: Draw, original: Original) -> Mutant:
    indent, separators = draw.choice([(1, None), (2, None), (None, None), (None, (",", ":"))])
    return Mutant(json.dumps(original.content, indent=indent, separators=separators, sort_keys=True).encode())


def _with_text(original: Original, place: str, text: str) -> Mutant:
    """JSON with any text, right or not, in place of a value."""
    content = json.dumps(put(original.content, place, _PLACEHOLDER), sort_keys=True)
    return Mutant(content.replace(f'"{_PLACEHOLDER}"', text).encode())


def number_that_is_none(draw: Draw, original: Original) -> Mutant:
    numbers = ["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 400, "1" + "0" * 310 + ".0", "1e", "0x1", "--1"]
    return _with_text(original, _pick(draw, original.content, _number), draw.choice(numbers))


def deep_nesting(draw: Draw, original: Original) -> Mutant:
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    depth = draw.choice([13, 100, 2_000, 100_000])
    return _with_text(original, _pick(draw, original.content, lambda *_: True), opening * depth + "0" + closing * depth)


def trailing_bytes(draw: Draw, original: Original) -> Mutant:
    return Mutant(original.written + draw.choice([b"\0", b"{}", b"]", b"\xff", b"<!--", b"\n", original.written]))


# keys and types


def without_a_key(draw: Draw, original: Original) -> Mutant:
    def needed(path: str, value: Any) -> bool:
        return not _free(path) and _parent(path) not in (*_FREE_MAPS, "authors")

    return Mutant(drop(original.content, _pick(draw, original.content, needed)))


def with_an_unknown_key(draw: Draw, original: Original) -> Mutant:
    content = original.content
    place = draw.choice(["", _pick(draw, content, lambda path, value: isinstance(value, dict))])
    names = ["a b", "", "\u202e", "../a", "<b>", "x" * 300, "\ud800", "\x1b[2J"]
    name = draw.choice(names if place in _FREE_MAPS else [*names, "score", "__class__", "fidelity"])
    at(content, place)[name] = draw.choice([0.99, "0.99", None, [], {"a": 1}])
    return Mutant(content)


def renamed_key(draw: Draw, original: Original) -> Mutant:
    content = original.content
    place = _pick(draw, content, lambda path, value: isinstance(at(content, _parent(path)), dict))
    old = place.rpartition(".")[2]
    new = draw.choice([f"{old}\u200e", f"{old}\n", f" {old}", f"{old}/..", "", f"{old}\0"])
    at(content, _parent(place))[new] = at(content, _parent(place)).pop(old)
    return Mutant(content)


def wrong_type(draw: Draw, original: Original) -> Mutant:
    place = _pick(draw, original.content, lambda path, value: not _free(path) and path not in _FREE_MAPS)
    old = at(original.content, place)
    wrong: list[Any] = ["x\0", [[]], {"a": {}}]
    if isinstance(old, str | list | dict | None):
        wrong += [7, -1.5, True, 1e308]
    if isinstance(old, int | float):
        wrong += ["", str(old), "NaN", *([0, 1, 0.0] if isinstance(old, bool) else [True, False])]
    if isinstance(old, int) and not isinstance(old, bool):
        wrong += [float(old), old + 0.5, 2**63, 2**64]
    if old is not None and place not in _NULLABLE:
        wrong.append(None)
    if old and isinstance(old, list | dict):
        wrong += [[], {}, "", [None], {"": None}]
    return Mutant(put(original.content, place, draw.choice(wrong)))


def huge_list(draw: Draw, original: Original) -> Mutant:
    place = _pick(draw, original.content, lambda path, value: not _free(path))
    return Mutant(
        put(original.content, place, [draw.choice([0, 0.5, "", None, [], {}])] * draw.choice([2_000, 30_000]))
    )


def too_much(draw: Draw, original: Original) -> Mutant:
    keys = {f"key{i}": 1 for i in range(MAX_KEYS + 1)}
    place = _pick(draw, original.content, lambda path, value: isinstance(value, dict))
    many = json.dumps(put(original.content, place, keys)).encode()
    return Mutant(draw.choice([many, original.written + b" " * MAX_BYTES]))


def number_out_of_range(draw: Draw, original: Original) -> Mutant:
    place = _pick(draw, original.content, _bounded)
    return Mutant(put(original.content, place, draw.choice([-1, -1.0, 1e308, -1e308, 1.7e308, 10**19])))


# texts


def hidden_character(draw: Draw, original: Original) -> Mutant:
    place = _pick(draw, original.content, _text)
    old, mark = (
        at(original.content, place),
        draw.choice("\u202e\u2066\u200f\u200b\ufeff\0\x1b\x7f\x85\u2028\ud800\udfff"),
    )
    i = draw.randrange(len(old) + 1)
    return Mutant(put(original.content, place, old[:i] + mark + old[i:]))


def markup(draw: Draw, original: Original) -> Mutant:
    texts = [
        "<script>alert(1)</script>",
        "javascript:alert(1)",
        "<img src=x onerror=alert(1)>",
        "data:text/html;base64,PA",
    ]
    return Mutant(put(original.content, _pick(draw, original.content, _text), draw.choice(texts)))


def path_in_a_name(draw: Draw, original: Original) -> Mutant:
    names = ("method.name", "method.loss", "task.id", "licence", "supersedes", "method.source_sha256", "date")
    paths = [
        "../x",
        "..\\x",
        "/etc/passwd",
        "a/b",
        "~/x",
        "x\0.json",
        "file:///etc/passwd",
        "$(reboot)/",
        "x" * 100_000,
    ]
    return Mutant(put(original.content, draw.choice(names), draw.choice(paths)))


# file names


def tampered_digest(draw: Draw, original: Original) -> Mutant:
    old = original.name
    i = draw.randrange(len(old) - 21, len(old) - 5)
    return Mutant(original.written, old[:i] + draw.choice("0123456789abcdefgZ-.") + old[i + 1 :])


def changed_under_the_old_name(draw: Draw, original: Original) -> Mutant:
    changes = {"authors": ["Z"], "method.card": "Z", "method.parameters": {}, "date": "2026-01-30", "samples": None}
    place = draw.choice(sorted(changes))
    return Mutant(put(original.content, place, changes[place]), original.name)


# results


def foreign_seed(draw: Draw, original: Original) -> Mutant:
    content = put(original.content, f"results.{draw.randrange(2)}.seed", 2 + draw.randrange(1000))
    if draw.random() < 0.5:
        content["provenance"][0]["seeds"] = [result["seed"] for result in content["results"]]
    return Mutant(content)


def missing_seed(draw: Draw, original: Original) -> Mutant:
    content = drop(original.content, f"results.{draw.randrange(2)}")
    content["provenance"][0]["seeds"] = [result["seed"] for result in content["results"]]
    return Mutant(content)


def seed_for_another(draw: Draw, original: Original) -> Mutant:
    content = original.content
    i = draw.randrange(2)
    content["results"][i]["generations"] = copy.deepcopy(content["results"][1 - i]["generations"])
    return Mutant(content)


def other_generations(draw: Draw, original: Original) -> Mutant:
    """One is missing, or there are gaps, repetitions, too many or another order."""
    content = original.content
    chain = content["results"][draw.randrange(2)]["generations"]
    i, j = draw.randrange(len(chain)), draw.randrange(len(chain))
    draw.choice([
        lambda: chain.pop(i),
        lambda: chain.insert(i, chain[j]),
        lambda: chain.append(chain[i] | {"generation": len(chain)}),
        chain.reverse,
        lambda: chain[i].update(generation=chain[i]["generation"] + 1 + j),
        lambda: chain[i].update(status="ok" if chain[i]["status"] == "diverged" else "diverged"),
    ])()  # fmt: skip
    return Mutant(content)


def impossible_metrics(draw: Draw, original: Original) -> Mutant:
    """Missing, of another task, of other sizes, too good to be true, or in conflict with one another."""
    content = original.content
    generation = content["results"][draw.randrange(2)]["generations"][draw.randrange(2)]
    metrics = generation["metrics"] or content["results"][0]["generations"][0]["metrics"]
    name = draw.choice(sorted(metrics))
    scored = draw.choice(sorted(original.task.spec.scored))
    draw.choice([
        lambda: metrics.pop(name),
        lambda: metrics.update(nonsense=metrics[name]),
        lambda: metrics[name].update(n=metrics[name]["n"] + 1),
        lambda: metrics[scored].update(value=-3.0),
        lambda: generation.update(real_share=0.37),
        lambda: generation.update(elements_sampled=generation["elements_sampled"] + 7, status="ok"),
        lambda: metrics.update({k: v | {"value": 7.77} for k, v in metrics.items()}),
    ])()  # fmt: skip
    return Mutant(content)


# other tasks and methods


def another_task(draw: Draw, original: Original) -> Mutant:
    ids = {"tiny@1", "tiny-vae@1", "tiny-gmm@1", "tiny-diffusion@1", "tiny@2", "wikipedia@1"} - {original.task.id}
    return Mutant(put(original.content, "task.id", draw.choice(sorted(ids))))


def other_references(draw: Draw, original: Original) -> Mutant:
    name, end = draw.choice(sorted(original.task.spec.scored)), draw.choice(["reference", "floor"])
    place = f"task.scored.{name}.{end}"
    return Mutant(
        put(original.content, place, at(original.content, place) * (1 + draw.choice([1e-9, 0.1, -0.1])) + 1e-9)
    )


def other_parameters(draw: Draw, original: Original) -> Mutant:
    """The results that one setting had, sent in for another one."""
    changed = put(original.content, "method.parameters.beta", draw.random())
    return Mutant(changed, published=[original.submission])


def swapped_methods(draw: Draw, original: Original) -> Mutant:
    """One method's results under the name of another; both are published."""
    other = valid_submission(original.task, name="Published")
    content = original.content | {"results": content_of(other)["results"]}
    return Mutant(content, published=[original.submission, other])


def untrue_claim(draw: Draw, original: Original) -> Mutant:
    """Of a day to come, or to replace what is not there, or what others have written."""
    other = valid_submission(original.task, name="Published")
    content = original.content | {"authors": ["Z"]}
    claims = [
        {"date": "2999-01-01"},
        {"supersedes": f"{draw.getrandbits(64):016x}"},
        {"supersedes": entry_of(other).digest},
    ]
    return Mutant(content | draw.choice(claims), published=[other])


def baseline_that_is_none(draw: Draw, original: Original) -> Mutant:
    place = draw.choice(["method.name", "method.loss"])
    return Mutant(put(original.content, place, draw.choice(["ce", "tce", "focal", "control"])))


MUTATIONS: list[Mutation] = [
    truncated, flipped_bit_under_the_old_name, flipped_bracket, doubled_key, other_spacing, number_that_is_none,
    deep_nesting, trailing_bytes, without_a_key, with_an_unknown_key, renamed_key, wrong_type, huge_list,
    too_much, number_out_of_range, hidden_character, markup, path_in_a_name, tampered_digest,
    changed_under_the_old_name, foreign_seed, missing_seed, seed_for_another, other_generations, impossible_metrics,
    another_task, other_references, other_parameters, swapped_methods, untrue_claim, baseline_that_is_none,
]  # fmt: skip
