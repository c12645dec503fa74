"""Commands to check an entry, and its citation, as text to copy. Untrusted text is quoted for the shell."""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

from collapsebench.methods import registered_methods
from collapsebench.publishing.board import Board
from collapsebench.publishing.entries import Entry
from collapsebench.publishing.submission import Session, Submission


def machine(session: Session) -> dict[str, str]:
    """The machine and commit of a session, as rows of a table."""
    git = session.git
    return {
        "device": session.device,
        "processor": session.processor or "unknown",
        "GPU": session.gpu or "none",
        "precision": session.precision,
        "threads": str(session.threads),
        "platform": session.platform,
        "Python": session.python,
        "commit": "unknown" if git is None else f"{git.commit}{' with changes' if git.dirty else ''}",
    }


def file_of(entry: Entry) -> str:
    """Path of the entry's file in the repository."""
    return f"submissions/{entry.path.parent.name}/{entry.path.name}"


def commands(entry: Entry, submission: Submission) -> str:
    """The commands that check an entry: its file, one seed, and the whole comparison."""
    method, task = submission.method, entry.task_id.partition("@")[0]
    baseline = method.loss in registered_methods()
    file = shlex.quote(file_of(entry))
    verify = ["collapsebench", "verify", file]
    if method.loss.partition(":")[0].endswith(".py"):
        verify += ["--method", shlex.quote(f"path/to/{method.loss}")]
    # lists cannot be given on the command line; the defaults of the source apply
    given = ",".join(f"{k}={v}" for k, v in sorted(method.parameters.items()) if not isinstance(v, list))
    spec = method.name if baseline else f"path/to/{method.loss}" + (f":{given}" if given else "")
    others = ["ce", "tce"] if not baseline else [name for name in ("ce", "focal", "tce") if name != method.name]
    methods = shlex.quote(",".join([*others, spec]))
    return "\n".join(
        [
            "# the file, against the rules",
            f"collapsebench validate {file}",
            "# generations 0 and 1 of the first seed, run again; read the source of the loss first",
            " ".join([*verify, "--trust-code"]),
            "# all seeds and generations, with intervals",
            f"collapsebench compare {shlex.quote(task)} --methods {methods}",
        ]
    )


def citation(entry: Entry, submission: Submission, board: Board) -> str:
    """A BibTeX entry, without characters that could end one of its fields."""
    year = submission.date[:4]
    title = board.tasks[entry.task_id].spec.title if entry.task_id in board.tasks else entry.task_id
    fields = {
        "author": " and ".join(f"{{{_field(author)}}}" for author in submission.authors),
        "title": f"{_field(submission.method.name)} on {entry.task_id} ({_field(title)})",
        "year": year,
        "howpublished": f"collapsebench leaderboard, entry {entry.digest}",
        "note": f"{submission.date}, sha256 {entry.sha256}, {submission.licence}",
    }
    if submission.method.url is not None:
        fields["url"] = _field(submission.method.url)
    lines = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items())
    return f"@misc{{collapsebench-{entry.digest},\n{lines}\n}}"


def host_of(url: str | None) -> str | None:
    """The host of an https address; None for any other."""
    parts = urlsplit(url or "")
    return parts.hostname if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc else None


def _field(text: str) -> str:
    return re.sub(r"[{}\\]", "", text)
