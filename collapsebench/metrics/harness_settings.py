"""Settings of an lm-eval benchmark in a task file, and the items that it names. No torch and no lm-eval here."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from collapsebench.errors import DataError
from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import Metric

Format = Literal["blimp", "multiple-choice", "gsm8k", "text"]
Rows = list[dict[str, Any]]

_SHARES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
_PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity")
_LOWER = (*_PERPLEXITIES, "bits_per_byte", "brier_score", "ter")
# Keys of an lm-eval config that set where the items are or which code to load; a task file must not set them.
_NOT_IN_CONFIG = {
    *("task", "task_alias", "group", "tag", "class", "include", "unsafe_code", "metadata", "num_fewshot"),
    *("custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs"),
    *("training_split", "validation_split", "test_split", "fewshot_split"),
}


class LocalItems(Frozen):
    """A file of items in the data folder; if present, it is read instead of the hub's dataset.

    Attributes:
        file, format: as in `HarnessTask`.
    """

    file: str = Field(min_length=1)
    format: Format


class HarnessTask(Frozen):
    """One entry of a task's list of lm-eval benchmarks.

    The items are named in exactly one way: by `task`, by `file` and `format`, or by `file` and `config`.

    Attributes:
        name: our name for it; the metric is called ``harness_<name>``.
        task: name of a task or group of lm-eval, e.g. ``blimp``; its data comes from the hub.
        dataset, revision: the hub's dataset and its pinned revision, so that it can be found before the first step.
        local: a local file that replaces the hub's dataset when the user has it.
        file: jsonl, json or (text) txt; a folder of such files; a zip, or a member as ``archive.zip/folder/x.jsonl``.
            Looked up in the data folder, then next to the task file and the task files that it extends.
        format: what the rows of `file` hold.
            ``blimp``: sentence_good, sentence_bad; one file per set, all of the same size.
            ``multiple-choice``: query, choices, gold (as HellaSwag). ``gsm8k``: question, answer.
            ``text``: text; a txt file is one text. Perplexity.
        config: an lm-eval task over the rows of `file`, with lm-eval's keys (output_type, doc_to_text, metric_list, …).
        subset: names of sets of BLiMP, or of members of the group that `task` names; all if absent.
        limit: use only the first `limit` items (of each set).
        num_fewshot: solved items before each question. None: lm-eval's default for `task`; 5 for ``gsm8k``, taken
            from the same file without the question itself; 0 otherwise.
        metric: lm-eval's name of the metric; ``metric,filter`` if the task has several filters. Optional with
            `format`.
        chance: score of a model that learned nothing. It is the metric's floor; None: the metric is never scored.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)
    task: str | None = Field(None, min_length=1)
    dataset: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    local: LocalItems | None = None
    file: str | None = Field(None, min_length=1)
    format: Format | None = None
    config: dict[str, Any] | None = None
    subset: tuple[str, ...] | None = Field(None, min_length=1)
    limit: int | None = Field(None, ge=1)
    num_fewshot: int | None = Field(None, ge=0)
    metric: str | None = Field(None, pattern=r"^[\w@.+-]+(,[\w@.+-]+)?$")
    chance: float | None = None

    @model_validator(mode="after")
    def _one_source(self) -> HarnessTask:
        ways = [self.task is not None, self.format is not None, self.config is not None]
        if sum(ways) != 1 or (self.file is None) != (self.task is not None):
            raise ValueError("name the items in one way: task, or file and format, or file and config")
        if (self.dataset is None) != (self.revision is None) or (self.task is None and (self.dataset or self.local)):
            raise ValueError("dataset and revision go together, and like local with task")
        if self.config is not None and (ours := sorted(_NOT_IN_CONFIG & self.config.keys())):
            raise ValueError(f"config must not say {', '.join(ours)}: the items are the rows of file")
        if self.config is not None and "output_type" not in self.config:
            raise ValueError("config must say output_type")
        metrics = self.config.get("metric_list", []) if self.config else []
        if not isinstance(metrics, list) or not all(isinstance(m, dict) and "metric" in m for m in metrics):
            raise ValueError("config.metric_list must be a list of entries with the key metric")
        if self.subset is not None and self.task is None and self.format != "blimp":
            raise ValueError("subset is for format blimp and for a group named by task")
        if self.subset is not None and len(set(self.subset)) < len(self.subset):
            raise ValueError("subset names a set twice")
        return self

    @model_validator(mode="after")
    def _known_metric(self) -> HarnessTask:
        if self.format is None and self.metric is None:
            raise ValueError("name the metric: without format there is no default")
        if self.format is not None and self.lm_eval_metric not in FORMATS[self.format].metrics:
            raise ValueError(f"format {self.format} has the metrics {'; '.join(FORMATS[self.format].metrics)}")
        if self.local is not None and self.lm_eval_metric not in FORMATS[self.local.format].metrics:
            raise ValueError(f"local: format {self.local.format} does not have the metric {self.lm_eval_metric}")
        if self.local is not None and self.subset is not None and self.local.format != "blimp":
            raise ValueError(f"local: format {self.local.format} has no sets, so there is no subset of them")
        if self.local is not None and self.local.format in ("blimp", "text") and self.num_fewshot:
            raise ValueError(f"local: num_fewshot must be 0 or absent for format {self.local.format}")
        if self.format in ("blimp", "text") and self.num_fewshot:
            raise ValueError(f"num_fewshot must be 0 or absent for format {self.format}: its items have no question")
        low, high = self.declared_metric.bounds
        if self.chance is not None and not low <= self.chance <= high:
            raise ValueError(f"chance must lie within [{low:g}, {high:g}]")
        return self

    def found_in(self, *folders: Path) -> HarnessTask:
        """This benchmark with its file, or its local file, taken from the first of these folders that has it.

        Unchanged if no folder has it.

        Raises:
            DataError: the file is in an archive that cannot be read.
        """
        wanted = self.file or (self.local.file if self.local else None)
        found = None if wanted is None else next((f / wanted for f in folders if self._is_there(f / wanted)), None)
        if found is None:
            return self
        if self.local is None:
            return self.model_copy(update={"file": str(found)})
        hub = {"task": None, "dataset": None, "revision": None, "local": None}
        own = {"file": str(found), "format": self.local.format}
        return HarnessTask.model_validate(self.model_dump() | hub | own)

    def _is_there(self, path: Path) -> bool:
        try:
            place = _inside(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.name!r}: {path} cannot be read: {error}.") from error
        return place.is_file() or place.is_dir()

    @property
    def metric_name(self) -> str:
        """Key in ``metrics.json``."""
        return f"harness_{self.name}"

    @property
    def lm_eval_metric(self) -> str:
        """lm-eval's name of the metric, with its filter if the task names one."""
        if self.metric is not None:
            return self.metric
        assert self.format is not None
        return FORMATS[self.format].metrics[0]

    @property
    def definition(self) -> dict[str, Any]:
        """The lm-eval config over the rows of `file`."""
        if self.config is not None:
            return self.config
        assert self.format is not None
        return FORMATS[self.format].definition

    @property
    def declared_metric(self) -> Metric:
        """The metric with direction, unit, bounds and scale, like the entries of the catalogue."""
        metric = self.lm_eval_metric.partition(",")[0]
        source = f"lm-eval's task {self.task}" if self.task else f"{self.file} with lm-eval"
        return Metric(
            name=self.metric_name,
            title=f"{self.name} ({metric})",
            direction="lower" if metric in _LOWER else "higher",
            unit="bits/byte" if metric == "bits_per_byte" else "",
            bounds=_bounds(metric),
            scale="log" if metric in _PERPLEXITIES else "linear",
            description=f"{metric} on {source}.",
            counted=metric in _SHARES and self.format is not None,
        )


def _bounds(metric: str) -> tuple[float, float]:
    if metric in _SHARES:
        return 0.0, 1.0
    if metric in _PERPLEXITIES:
        return 1.0, math.inf
    return (0.0 if metric in _LOWER else -math.inf), math.inf


def read_sets(task: HarnessTask, base: Path) -> dict[str, Rows]:
    """Read and check the rows of every set (file) that a benchmark names, in order of the sets' names or as listed.

    Raises:
        DataError: the file is missing, or does not fit the format; the message names the row and the column.
    """
    assert task.file is not None
    path = base / Path(task.file).expanduser()
    try:
        found = _by_name(path, task)
        sets = {name: _rows(place, task) for name, place in found.items()}
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise DataError(f"{task.name!r}: {path} cannot be read: {error}.") from error
    sizes = {name: len(rows) for name, rows in sets.items()}
    if len(set(sizes.values())) > 1:  # the mean over sets would not be the mean over items
        raise DataError(f"{task.name!r}: the sets of {path} must be of the same size, they have {sizes}.")
    return sets


def item_source(task: HarnessTask, base: Path) -> str:
    """Identity of a benchmark's items: the digest of the rows of its files, or the dataset on the hub."""
    if task.file is None:
        return f"{task.task} {task.dataset} {task.revision}"
    rows = json.dumps(read_sets(task, base), sort_keys=True)
    return f"{task.name} {hashlib.sha256(rows.encode()).hexdigest()}"


_Place = Path | zipfile.Path


def _by_name(path: Path, task: HarnessTask) -> dict[str, _Place]:
    files = list(_files(_inside(path)))
    found = {place.stem: place for place in files}
    if not found or len(found) < len(files) or (task.format != "blimp" and len(found) > 1):
        wanted = "files with different names" if task.format == "blimp" else "one file"
        raise DataError(
            f"{task.name!r}: {len(files) or 'no'} files at {path}; file must name {wanted} (jsonl, json, txt)."
        )
    if task.format != "blimp" or task.subset is None:
        return found
    if missing := [name for name in task.subset if name not in found]:
        raise DataError(f"{task.name!r}: {path} has no sets {missing}; it has {sorted(found)}.")
    return {name: found[name] for name in task.subset}


def _inside(path: Path) -> _Place:
    """The path itself, or the member of a zip that it names."""
    for archive in (path, *path.parents):
        if archive.suffix == ".zip" and archive.is_file():
            member = path.relative_to(archive).as_posix()
            return zipfile.Path(archive) if member == "." else zipfile.Path(archive).joinpath(member)
    return path


def _files(place: _Place) -> Iterator[_Place]:
    if place.is_dir():
        children: list[_Place] = sorted(place.iterdir(), key=lambda child: child.name)
        for child in children:
            if not child.name.startswith((".", "__MACOSX")) and (child.is_dir() or child.suffix in _SUFFIXES):
                yield from _files(child)
    elif place.is_file():
        yield place


_SUFFIXES = (".jsonl", ".json", ".txt")


def _rows(place: _Place, task: HarnessTask) -> Rows:
    text = place.read_bytes().decode("utf-8")
    try:
        if place.suffix == ".txt":
            rows = [{"text": text}]
        elif place.suffix == ".json":
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise DataError(f"{task.name!r}: {place} is not JSON: {error}.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{task.name!r}: {place} must hold one or more JSON objects.")
    if task.format is None:
        return rows
    columns = FORMATS[task.format].columns
    for index, row in enumerate(rows):
        for column in columns:
            if not _is_good(column, row):
                found = repr(row[column]) if column in row else "missing"
                raise DataError(
                    f"{task.name!r}: {place}, row {index}: {column} is {found}; format {task.format} needs "
                    f"{', '.join(columns)}."
                )
    return [{column: row[column] for column in columns} for row in rows]


def _is_good(column: str, row: dict[str, Any]) -> bool:
    """Whether texts are not empty and there are at least two choices and a valid index; lm-eval does not check."""
    value = row.get(column)
    if column == "choices":
        return isinstance(value, list) and len(value) > 1 and all(isinstance(c, str) and c for c in value)
    if column == "gold":
        return type(value) is int and 0 <= value < len(row["choices"])
    return isinstance(value, str) and (value != "" or column == "query")


@dataclass(frozen=True)
class FileFormat:
    """A format of items.

    Attributes:
        columns: the columns that every row must have; others are dropped.
        metrics: the metrics that lm-eval computes; the first is the default.
        definition: lm-eval's own definition of the task over these columns.
    """

    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    definition: dict[str, Any]


def _means(*metrics: str, **options: Any) -> list[dict[str, Any]]:
    return [{"metric": metric, "aggregation": "mean", "higher_is_better": True, **options} for metric in metrics]


def _extract(name: str, **regex: Any) -> dict[str, Any]:
    return {"name": name, "filter": [{"function": "regex", **regex}, {"function": "take_first"}]}


FORMATS: dict[Format, FileFormat] = {
    "blimp": FileFormat(
        ("sentence_good", "sentence_bad"),
        ("acc",),
        {
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_target": 0,
            "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
            "metric_list": _means("acc"),
        },
    ),
    "multiple-choice": FileFormat(
        ("query", "choices", "gold"),
        ("acc", "acc_norm"),
        {
            "output_type": "multiple_choice",
            "doc_to_text": "query",
            "doc_to_target": "gold",
            "doc_to_choice": "choices",
            "metric_list": _means("acc", "acc_norm"),
        },
    ),
    "gsm8k": FileFormat(
        ("question", "answer"),
        ("exact_match,strict-match", "exact_match,flexible-extract"),
        {
            "output_type": "generate_until",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "num_fewshot": 5,
            "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0},
            "metric_list": _means(
                "exact_match",
                ignore_case=True,
                ignore_punctuation=False,
                regexes_to_ignore=[",", "\\$", "(?s).*#### ", "\\.$"],
            ),
            "filter_list": [
                _extract("strict-match", regex_pattern="#### (\\-?[0-9\\.\\,]+)"),
                _extract("flexible-extract", group_select=-1, regex_pattern="(-?[$0-9.,]{2,})|(-?[0-9]+)"),
            ],
        },
    ),
    "text": FileFormat(
        ("text",),
        ("word_perplexity", "byte_perplexity", "bits_per_byte"),
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "metric_list": [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        },
    ),
}
