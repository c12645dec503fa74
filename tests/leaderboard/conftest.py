"""Folders of submissions for the site, and the site over them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

_TESTS = Path(__file__).resolve().parents[1]
_SITE = _TESTS.parent / "leaderboard"
# As Streamlit does for the app's folder, so that its modules can be tested without it; and the fabricated submissions.
sys.path[:0] = [str(_SITE), str(_TESTS / "publishing")]

from streamlit.testing.v1 import AppTest  # noqa: E402
from submission_files import content_of, put, tiny_task, valid_submission, write, write_content  # noqa: E402

from collapsebench.publishing.board import Board, read_board  # noqa: E402
from collapsebench.task import Task  # noqa: E402


@pytest.fixture(autouse=True)
def _own_main_module() -> Iterator[None]:
    """Put back what Streamlit replaces by the app: new processes of other tests would import it as their own main."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """Tiny tasks of every modality, by modality."""
    folder = tmp_path_factory.mktemp("site-tasks")
    return {kind: tiny_task(folder / kind, kind) for kind in ("text", "vae", "gmm")}


@pytest.fixture(scope="session")
def published(tasks: dict[str, Task], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on three tasks and a third on one; not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    for task in tasks.values():
        content = put(content_of(valid_submission(task, name="Loss_A")), "method.name", "Loss_A:beta=1")
        write_content(content, folder)
        write(valid_submission(task, name="Loss_B"), folder)
    write(valid_submission(tasks["text"], name="Loss_C"), folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of the published submissions, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "submissions"))


@pytest.fixture(scope="session")
def board(published: Path, tasks: dict[str, Task]) -> Board:
    """The board of the published submissions."""
    return read_board(published, {task.id: task for task in tasks.values()})


@pytest.fixture(autouse=True)
def _no_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not look through every installed package for components, which the site has none of, on every run."""
    manager = "streamlit.components.v2.component_manager.BidiComponentManager.discover_and_register_components"
    monkeypatch.setattr(manager, lambda *_, **__: None, raising=False)


@pytest.fixture
def site(tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Open a page of the site over a folder: ``site(folder, "task", task="…")``."""

    def open_page(folder: Path, page: str = "board", **query: str | list[str]) -> AppTest:
        files = os.pathsep.join(str(task.path) for task in tasks.values())
        monkeypatch.setenv("COLLAPSEBENCH_TASKS", files)
        app = AppTest.from_file(str(_SITE / "app.py"), default_timeout=120)
        if page != "board":  # reached from the board, which is quick over nothing
            monkeypatch.setenv("COLLAPSEBENCH_SUBMISSIONS", "nowhere")
            app = app.run().switch_page(f"views/{page}.py")
        monkeypatch.setenv("COLLAPSEBENCH_SUBMISSIONS", str(folder))
        app.query_params.update(query)
        return app.run()

    return open_page
