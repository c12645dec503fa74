"""A submission: one JSON file with the raw metrics of one method on one task, and where they come from.

Scores are never in the file; they are recomputed from the raw metrics. The file is canonical (sorted keys, shortest
exact floats) and its name carries the digest of its bytes, so nothing can change unnoticed. ``submissions/schema.json``
is this module's schema for other programs.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from collapsebench.publishing.canonical_json import canonical_json
from collapsebench.scoring.engagement import SHARES, EngagementShare
from collapsebench.task_spec import LARGEST_SEED

SCHEMA_VERSION = 1
DIGEST_LENGTH = 16
MAX_GENERATION = 1000
SHOWN_GENERATIONS = 21
_LISTED_PARAMETERS, _TEXT_PARAMETER = 100, 200
_KEPT_FORMATS = "\u200c\u200d"  # zero-width (non-)joiners belong to the spelling of several languages
_BLANK = set(_KEPT_FORMATS + " \u115f\u1160\u3164\uffa0\u2800\u034f")  # letters and marks without any ink
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_TAG = re.compile(r"<\s*[/!?a-z]", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:javascript|vbscript)\s*:|data\s*:\s*[a-z]+/", re.IGNORECASE)


def _hidden(character: str) -> bool:
    """Control and direction marks, surrogates, private and unassigned characters, line separators."""
    return unicodedata.category(character) in _HIDDEN and character not in _KEPT_FORMATS


def _readable(text: str) -> str:
    for character in text:
        if _hidden(character) and character != "\n":
            raise ValueError(f"the invisible character U+{ord(character):04X} is not allowed")
    if (found := _TAG.search(text) or _ADDRESS.search(text)) is not None:
        raise ValueError(f"markup or a script address ({found.group()!r}) is not allowed: texts are plain")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or text != text.strip():
        raise ValueError("one line without spaces at its ends is needed")
    if text and all(c in _BLANK for c in text):
        raise ValueError("a text that can be seen is needed")
    return text


def _parameter(value: Any) -> Any:
    """One check instead of a union, whose every member would complain about every wrong value."""
    items = value if isinstance(value, list) else [value]
    if len(items) > _LISTED_PARAMETERS:
        raise ValueError(f"a list of {len(items)} values; at most {_LISTED_PARAMETERS} are allowed")
    for item in items:
        if isinstance(item, str):
            if not 0 < len(item) <= _TEXT_PARAMETER:
                raise ValueError(f"a text of {len(item)} characters; 1 to {_TEXT_PARAMETER} are allowed")
            _one_line(_readable(item))
        elif item is not None and not isinstance(item, bool | int | float):
            raise ValueError("a number, text, true, false, null or a list of them is needed")
    return value


def _existing_day(text: str) -> str:
    try:
        datetime.date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"no such day: {error}") from None
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{DIGEST_LENGTH}}}$")]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_readable), AfterValidator(_one_line)]
Paragraph = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_readable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=,+-]*$", max_length=120)]
Url = Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/#?=&%+@:-]*)?$", max_length=300)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_existing_day)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=60)]
_SCALAR = {"type": ["boolean", "number", "string", "null"]}
Parameter = Annotated[
    Any,
    AfterValidator(_parameter),
    WithJsonSchema({"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "maxItems": _LISTED_PARAMETERS}]}),
]
GenerationKey = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})$")]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Engagement = Annotated[dict[EngagementShare, Share], Field(min_length=len(SHARES))]


class Strict(BaseModel):
    """Untrusted input: no unknown keys, no conversions, no NaN; immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Scale(Strict):
    """The frozen scale of a scored metric, as the contestant's copy of the task has it."""

    reference: float
    floor: float


class TaskReference(Strict):
    """Which task was run.

    Attributes:
        id: ``name@version``. sha256: digest of everything in the task that can change a raw metric.
        data_sha256: digest of the prepared data. scored: the scales, to be compared with those of the task.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*@[1-9][0-9]{0,5}$", max_length=80)]
    sha256: Sha256
    data_sha256: Sha256
    scored: dict[Identifier, Scale] = Field(min_length=1, max_length=16)


class MethodReference(Strict):
    """What was run.

    Attributes:
        name: as tables show it. loss: the class, as ``tce``, ``my_loss.py:MyLoss`` or ``my_package.losses:MyLoss``.
        parameters: all parameters of the loss. source_sha256: digest of the file that defines it.
        card: one paragraph on what it does and why. url: where the code is.
        tuning_runs: that `collapsebench tune` counted (protocol 4.3).
    """

    name: Name
    loss: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(:[A-Za-z_][A-Za-z0-9_]*)?$", max_length=200)]
    parameters: dict[Identifier, Parameter] = Field(max_length=50)
    track: Literal["loss", "provenance"]
    source_sha256: Sha256
    card: Paragraph
    url: Url | None
    tuning_runs: Annotated[float, Field(ge=0, le=10**6)] | None = None


class Measured(Strict):
    """A raw metric and the number of elements it was measured on."""

    value: float
    n: int = Field(ge=1, le=10**15)


class GenerationResult(Strict):
    """One generation of one seed. A diverged one is the last of its seed and has no metrics and no engagement.

    Attributes:
        engagement: the shares of `collapsebench.scoring.engagement`; results from before they were measured lack them.
    """

    generation: int = Field(ge=0, le=MAX_GENERATION)
    status: Literal["ok", "diverged"]
    metrics: dict[Identifier, Measured] = Field(max_length=64)
    engagement: Engagement | None = None
    elements_trained: Count
    elements_sampled: Count
    real_share: Share
    seconds: Seconds


class SeedResult(Strict):
    """The chain of one seed."""

    seed: Seed
    generations: list[GenerationResult] = Field(min_length=1, max_length=MAX_GENERATION + 1)

    @cached_property
    def digest(self) -> str | None:
        """Equal for chains with the same raw metrics; None with less than two generations that did not diverge.

        Generation 0 alone tells nothing: of a task that trains on all data at once, all seeds share it.
        """
        if sum(g.status == "ok" for g in self.generations) < 2:
            return None
        # Nine digits: who copies and adds a little is found, and no two chains that were run agree so far.
        values = [sorted((k, f"{m.value:.9g}") for k, m in g.metrics.items()) for g in self.generations]
        return hashlib.sha256(repr(values).encode()).hexdigest()[:DIGEST_LENGTH]


class Commit(Strict):
    """State of the checkout that ran."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
    dirty: bool


class Session(Strict):
    """The machine and versions of some seeds; a seed that was resumed elsewhere is in two sessions."""

    seeds: list[Seed] = Field(min_length=1, max_length=100)
    packages: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)], Line | None] = Field(
        max_length=60
    )
    python: Line
    platform: Line
    processor: Annotated[str, Field(max_length=200), AfterValidator(_readable)]
    gpu: Line | None
    device: Literal["cpu", "cuda", "mps"]
    precision: Line
    threads: int = Field(ge=1, le=4096)
    git: Commit | None


class Excerpt(Strict):
    """A text that a model wrote, and the prompt that it was given."""

    prompt: Annotated[str, Field(max_length=600), AfterValidator(_readable)]
    text: Annotated[str, Field(max_length=600), AfterValidator(_readable)]


class TextSamples(Strict):
    """The first texts that each generation wrote."""

    kind: Literal["text"]
    seed: Seed
    generations: dict[
        GenerationKey,
        Annotated[list[Excerpt], Field(min_length=1, max_length=3)],
    ] = Field(max_length=SHOWN_GENERATIONS)


class ImageSamples(Strict):
    """A strip of images per generation, from the same noise, as base64 of a plain PNG file (`plain_png`)."""

    kind: Literal["images"]
    seed: Seed
    generations: dict[
        GenerationKey,
        Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=56_000)],
    ] = Field(max_length=SHOWN_GENERATIONS)


class DensitySamples(Strict):
    """The densities of the truth and, per generation, of the model, on the grid x."""

    kind: Literal["density"]
    seed: Seed
    x: Annotated[list[float], Field(min_length=2, max_length=256)]
    truth: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=256)]
    generations: dict[
        GenerationKey,
        Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=256)],
    ] = Field(max_length=SHOWN_GENERATIONS)


Samples = Annotated[TextSamples | ImageSamples | DensitySamples, Field(discriminator="kind")]


class Submission(Strict):
    """One method on one task, all official seeds.

    Attributes:
        licence: of this file's content, an SPDX identifier.
        supersedes: digest of the entry that this one corrects or replaces.
    """

    schema_version: Literal[1]
    task: TaskReference
    method: MethodReference
    authors: list[Line] = Field(min_length=1, max_length=50)
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=60)]
    date: Day
    supersedes: Digest | None
    results: list[SeedResult] = Field(min_length=1, max_length=100)
    provenance: list[Session] = Field(min_length=1, max_length=100)
    samples: Samples | None


class Difference(Strict):
    """A raw metric that a verification found to differ most from the submitted one."""

    metric: Identifier
    generation: int = Field(ge=0, le=MAX_GENERATION)
    submitted: float | None
    measured: float | None
    relative: Annotated[float, Field(ge=0)] | None


class Attestation(Strict):
    """The outcome of `collapsebench verify`, stored beside the submission that it is about.

    Attributes:
        submission_sha256: of the submission's bytes. seed, generations: what was run again, 0 to `generations`.
        outcome: whether what decides was within the task's tolerance (protocol 10.3). compared: how many values were.
        identical: how many of them were equal to the last bit. largest: the largest difference, if any.
        by: who ran it. machine: on what.
        alike: whether that is the kind of machine, with the versions, that the seed was submitted from. If not, a
            difference may be rounding that the recursion has amplified.
    """

    schema_version: Literal[1]
    submission_sha256: Sha256
    seed: Seed
    generations: int = Field(ge=0, le=MAX_GENERATION)
    outcome: Literal["matched", "differed"]
    tolerance: float = Field(ge=0, le=0.01)
    compared: int = Field(ge=1, le=10**9)
    identical: Count
    largest: Difference | None
    by: Line
    date: Day
    machine: Session
    alike: bool


def alike(machine: Session, submission: Submission, seed: int) -> bool:
    """Whether a machine and its versions are those that a seed was submitted from: equal bytes can be expected."""
    theirs = [session for session in submission.provenance if seed in session.seeds]
    return (
        len(theirs) == 1
        and all(
            getattr(machine, name) == getattr(theirs[0], name)
            for name in ("processor", "platform", "gpu", "device", "precision", "threads")
        )
        and _libraries(machine) == _libraries(theirs[0])
    )


def _libraries(session: Session) -> dict[str, str | None]:
    return {name: version for name, version in session.packages.items() if name != "collapsebench" and version}


def plain_text(text: str, limit: int) -> str:
    """A text made fit for a submission: invisible characters and markup replaced by look-alikes, cut to a length."""
    visible = "".join(c if c == "\n" or not _hidden(c) else "\ufffd" for c in text[:limit])
    for pattern in (_TAG, _ADDRESS):
        visible = pattern.sub(lambda found: found.group().replace("<", "\u2039").replace(":", "\ua789"), visible)
    return visible


def canonical_bytes(content: BaseModel) -> bytes:
    """The one way to write a submission or an attestation (see `canonical_json`); what is not given is not written."""
    return (canonical_json(content.model_dump(mode="json", exclude_unset=True)) + "\n").encode()


def sha256_of(content: bytes) -> str:
    """Digest of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def submission_path(submission: Submission, content: bytes) -> str:
    """``<task>/<method>-<digest>.json`` below the folder of submissions."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", submission.method.name)[:60].strip("-.")
    return f"{submission.task.id}/{name}-{sha256_of(content)[:DIGEST_LENGTH]}.json"


def attestation_path(submission: Path, content: bytes) -> Path:
    """``<submission>.attestation-<digest>.json``, beside the submission."""
    return submission.with_name(f"{submission.stem}.attestation-{sha256_of(content)[:8]}.json")


def is_attestation(path: Path) -> bool:
    """Whether a file's name says that it is an attestation."""
    return re.search(r"\.attestation-[^-]*$", path.name) is not None


def raw_frame(submission: Submission, label: str | None = None) -> pd.DataFrame:
    """The raw metrics as `collapsebench.scoring.fidelity` wants them.

    Args:
        label: content of the column ``method``; None: the method's name.
    """
    rows: list[dict[str, Any]] = []
    for result in submission.results:
        for g in result.generations:
            key = {
                "method": label or submission.method.name,
                "seed": result.seed,
                "generation": g.generation,
                "status": g.status,
            }
            if g.status == "diverged":
                rows.append({**key, "metric": None, "value": None, "n": None})
            rows += [{**key, "metric": name, "value": m.value, "n": m.n} for name, m in g.metrics.items()]
    return pd.DataFrame(rows, columns=["method", "seed", "generation", "metric", "value", "n", "status"])


def json_schema() -> str:
    """The JSON Schema of a submission, as committed in ``submissions/schema.json``."""
    schema = Submission.model_json_schema()
    schema |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"collapsebench submission, version {SCHEMA_VERSION}",
    }
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
