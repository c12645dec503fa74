"""The leaderboard command: the printed table, the site it starts and stops, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command import PATIENCE, collapsebench

from collapsebench.publishing import site


def _without_streamlit() -> None:
    find = importlib.util.find_spec
    site.importlib.util.find_spec = lambda name, *rest: None if name == "streamlit" else find(name, *rest)


def test_table_is_printed_without_the_site(tmp_path: Path) -> None:
    finished = collapsebench("leaderboard", "--table", cwd=tmp_path, before=_without_streamlit)
    assert finished.code == 0, finished.err
    assert "gmm-micro@1, retired: not ranked, track loss" in finished.out
    assert "focal" in finished.out


def test_missing_streamlit_is_one_message(tmp_path: Path) -> None:
    finished = collapsebench("leaderboard", cwd=tmp_path, before=_without_streamlit)
    assert finished.code == 2
    assert "pip install 'collapsebench[leaderboard]'" in finished.err
    assert "--table" in finished.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--submissions", "nowhere"], "--submissions nowhere: no such folder"),
        (["--port", "99999"], "less than or equal to 65535"),
        (["--task", "nowhere.yaml"], "nowhere.yaml: no such task file"),
    ],
)
def test_wrong_usage_starts_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    finished = collapsebench("leaderboard", *arguments, cwd=tmp_path)
    assert finished.code == 2
    assert message in finished.err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def answer_of(port: int, process: subprocess.Popen[Any]) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the site did not answer")


def test_site_answers_and_stops_with_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("streamlit")
    port = free_port()
    # A background job of a shell ignores Ctrl-C, and so would what it starts.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start += "; from collapsebench.cli.main import main; main()"
    command = [sys.executable, "-c", start, "leaderboard", "--port", str(port)]
    environment = os.environ | {"STREAMLIT_SERVER_HEADLESS": "true"}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as process:
        try:
            assert answer_of(port, process) == "ok"
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []
