"""An entry: the part of a valid submission that is kept in memory. The file is reread when its metrics are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from collapsebench.errors import UserError
from collapsebench.publishing.bounded_json import MAX_BYTES
from collapsebench.publishing.submission import DIGEST_LENGTH, Submission, sha256_of
from collapsebench.scoring.cells import Cells, cells_of_values
from collapsebench.scoring.engagement import EngagementRow
from collapsebench.scoring.scales import task_scales
from collapsebench.task import Task


@dataclass(frozen=True)
class Entry:
    """A valid submission, in a few hundred bytes.

    Attributes:
        path: the file; ``-`` if there is none. sha256: digest of its bytes.
        task_id, name, track, authors, date, supersedes: as in the submission.
        what: digest of the loss's source, name and parameters; the same for all entries of a method, on any task.
        chains: digest of the raw metrics of every seed; None if too little was measured to distinguish chains.
        data_sha256: digest of the data it was run on. sizes: digest of the numbers of elements of the scored metrics.
        generations: the last generation of the longest chain.
        masked_gradient: share of cross entropy's gradient that the loss masks, mean over seeds and generations; None
            if not measured.
        machines: device, processor and GPU of every session.
    """

    path: Path
    sha256: str
    task_id: str
    name: str
    track: str
    authors: tuple[str, ...]
    date: str
    supersedes: str | None
    what: str
    chains: dict[int, str | None]
    data_sha256: str
    sizes: str
    generations: int
    masked_gradient: float | None
    machines: tuple[tuple[str, str, str | None], ...]

    @staticmethod
    def of(path: Path, content: bytes, submission: Submission) -> Entry:
        """The entry of a submission with these bytes."""
        method = submission.method
        parameters = sorted((k, float(v) if isinstance(v, int | float) else v) for k, v in method.parameters.items())
        what = repr((method.source_sha256, method.loss, parameters))
        first = next((m for r in submission.results if (m := r.generations[0].metrics)), {})
        sizes = sorted((name, first[name].n) for name in submission.task.scored if name in first)
        return Entry(
            path=path,
            sha256=sha256_of(content),
            task_id=submission.task.id,
            name=method.name,
            track=method.track,
            authors=tuple(submission.authors),
            date=submission.date,
            supersedes=submission.supersedes,
            what=_digest(what),
            chains={result.seed: result.digest for result in submission.results},
            data_sha256=submission.task.data_sha256,
            sizes=_digest(repr(sizes)),
            generations=max(len(result.generations) for result in submission.results) - 1,
            masked_gradient=_masked_gradient(submission),
            machines=tuple((s.device, s.processor, s.gpu) for s in submission.provenance),
        )

    @property
    def measured(self) -> bool:
        """Whether anything was measured, which is not the case if every seed diverged at once."""
        return self.sizes != _digest("[]")

    @property
    def digest(self) -> str:
        """The name by which other entries refer to this one; it is part of the file name."""
        return self.sha256[:DIGEST_LENGTH]

    @property
    def submission(self) -> Submission:
        """The submission, read from its file.

        Raises:
            UserError: the file has changed since it was validated.
        """
        content = read_bounded(self.path)
        if sha256_of(content) != self.sha256:
            raise UserError(f"{self.path} has changed since it was validated; validate it again.")
        return Submission.model_validate_json(content)


def read_bounded(path: Path) -> bytes:
    """Read a file's bytes; of a file that is too large, only enough to detect it."""
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def scored_cells(submission: Submission, task: Task) -> Cells:
    """Fidelity curves of a valid submission on its task's scales, under the method's name."""
    scales, horizon = task_scales(task), task.spec.horizon
    results = sorted(submission.results, key=lambda result: result.seed)
    values = np.full((len(results), len(scales), horizon + 1), np.nan)
    diverged_from = np.full(len(results), np.inf)
    for cell, result in enumerate(results):
        for g in result.generations:
            if g.status == "diverged":
                diverged_from[cell] = g.generation
            else:
                values[cell, :, g.generation] = [g.metrics[name].value for name in sorted(scales)]
    names = [(submission.method.name, result.seed) for result in results]
    return cells_of_values(names, scales, values, diverged_from)


def engagement_rows(submission: Submission) -> Iterator[EngagementRow]:
    """Engagement of every generation, as expected by `collapsebench.scoring.engagement.engagement_frame`."""
    for result in submission.results:
        yield from ((result.seed, g.generation, g.engagement) for g in result.generations)


def _masked_gradient(submission: Submission) -> float | None:
    found = [shares["masked_gradient"] for _, _, shares in engagement_rows(submission) if shares is not None]
    return fmean(found) if found else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
