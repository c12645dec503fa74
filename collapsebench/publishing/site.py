"""Starts the leaderboard site, a Streamlit app in ``leaderboard/``, in a separate process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from collapsebench.errors import UserError
from collapsebench.paths import bundled


def serve(submissions: Path, tasks: Sequence[Path] = (), port: int | None = None) -> int:
    """Run the site until it is stopped with Ctrl-C; return its exit code.

    Args:
        submissions: folder of submissions. tasks: additional task files.
        port: port of the site; None: 8501, or the next free one.

    Raises:
        UserError: Streamlit is not installed.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise UserError(
            "the site needs Streamlit: pip install 'collapsebench[leaderboard]'. `collapsebench leaderboard --table` "
            "prints the ranking without it."
        )
    command = [sys.executable, "-m", "streamlit", "run", str(bundled("leaderboard") / "app.py")]
    command += [] if port is None else [f"--server.port={port}"]  # all else: leaderboard/.streamlit/config.toml
    environment = os.environ | {
        "COLLAPSEBENCH_SUBMISSIONS": str(submissions.absolute()),
        "COLLAPSEBENCH_TASKS": os.pathsep.join(str(task.absolute()) for task in tasks),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    with subprocess.Popen(command, env=environment) as site:
        try:
            return site.wait()
        except KeyboardInterrupt:  # the site received it, too
            site.wait()
            return 0
