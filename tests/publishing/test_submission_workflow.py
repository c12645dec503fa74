"""The check of pull requests with submissions: strangers' files are data, published ones stay, all new ones are seen.

The steps that select files run here as the workflow has them, on real repositories, with a stand-in for the command.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import python

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "submissions.yml"
TEXT = WORKFLOW.read_text("utf-8")
CONTENT: dict[Any, Any] = yaml.safe_load(TEXT)
(JOB,) = CONTENT["jobs"].values()
STEPS: list[dict[str, Any]] = JOB["steps"]
SCRIPTS = {step["id"]: step["run"] for step in STEPS if "run" in step}
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what `shell: bash` stands for

PUBLISHED = "submissions/t@1/published-0.json"
NEW = "submissions/t@1/new-1.json"
ALL_TOGETHER = ["validate", "--json", "pr/submissions"]

_STAND_IN = """#!/usr/bin/env bash
printf '%s\\0' "$@" > "$CALLS/$(printf '%03d' "$(ls "$CALLS" | wc -l)")"
exit "${VERDICT:-0}"
"""


@dataclass(frozen=True)
class Checked:
    """What became of a pull request: the step that stopped it, what that printed, and the calls of the command."""

    stopped: str | None
    printed: str
    calls: list[list[str]]


class PullRequest:
    """A repository with one published submission, checked out as ``pr/``; commits are those of the pull request."""

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self.path = workspace / "pr"
        self.path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.write(PUBLISHED, "{}\n")
        self.write("submissions/leaderboard.csv", "task\n")
        self.base = self.commit()
        self.git("checkout", "--quiet", "-b", "branch")

    def git(self, *arguments: str) -> str:
        ended = subprocess.run(
            ["git", "-c", "core.autocrlf=false", *arguments],
            cwd=self.path,
            env=_environment(self.workspace),
            capture_output=True,
            check=True,
        )
        return ended.stdout.decode().strip()

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    def link(self, name: str, target: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")

    def checked(self, verdict: int = 0) -> Checked:
        """Commit all files and run the workflow's steps that need no network."""
        head, calls = self.commit(), self.workspace / "calls"
        (self.workspace / "bin").mkdir()
        (self.workspace / "temp").mkdir()
        calls.mkdir()
        command = self.workspace / "bin" / "collapsebench"
        command.write_text(_STAND_IN)
        command.chmod(0o755)
        environment = _environment(self.workspace) | {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.workspace / "temp"),
            "BASE_SHA": self.base,
            "HEAD_SHA": head,
            "CALLS": str(calls),
            "VERDICT": str(verdict),
        }
        stopped, printed = None, ""
        for step in ("plain", "changes", "new", "all"):
            script = self.workspace / "step.sh"
            script.write_text(SCRIPTS[step], "utf-8")
            ended = subprocess.run(
                [*SHELL, str(script)], cwd=self.workspace, env=environment, capture_output=True, check=False, text=True
            )
            if ended.returncode:
                stopped, printed = step, ended.stdout + ended.stderr
                break
        made = [file.read_bytes().decode().split("\0")[:-1] for file in sorted(calls.iterdir())]
        return Checked(stopped, printed, made)


def _environment(workspace: Path) -> dict[str, str]:
    names = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(workspace)}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | names | nothing


@pytest.fixture
def request_(tmp_path: Path) -> PullRequest:
    return PullRequest(tmp_path)


def test_workflow_runs_on_pull_requests_that_touch_submissions_and_on_nothing_else() -> None:
    assert CONTENT[True] == {"pull_request": {"paths": ["submissions/**"]}}  # YAML 1.1 reads `on` as true


def test_workflow_may_read_the_repository_and_do_nothing_else() -> None:
    assert CONTENT["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB
    assert "secrets." not in TEXT
    assert "github.token" not in TEXT


def test_workflow_ends_and_runs_once_per_pull_request() -> None:
    assert JOB["timeout-minutes"] <= 30
    assert "github.ref" in CONTENT["concurrency"]["group"]
    assert CONTENT["concurrency"]["cancel-in-progress"] is True


def test_scripts_see_nothing_of_the_event_but_two_commit_ids() -> None:
    for name, script in SCRIPTS.items():
        assert "${{" not in script, name
    assert JOB["env"] == {
        "BASE_SHA": "${{ github.event.pull_request.base.sha }}",
        "HEAD_SHA": "${{ github.event.pull_request.head.sha }}",
    }
    assert not any("env" in step for step in STEPS)
    for text in ("head_ref", "base_ref", "title", "body", "label", "login"):
        assert not re.search(rf"\$\{{\{{[^}}]*{text}", TEXT), text


def test_base_and_head_are_checked_out_apart_and_without_credentials() -> None:
    checkouts = [step["with"] for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert {c["path"]: c["ref"] for c in checkouts} == {
        "base": "${{ github.event.pull_request.base.sha }}",
        "pr": "${{ github.event.pull_request.head.sha }}",
    }
    assert all(c["persist-credentials"] is False for c in checkouts)
    assert not any("submodules" in c or "lfs" in c or "repository" in c for c in checkouts)


def test_actions_are_pinned_to_commits() -> None:
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"actions/(checkout|setup-python)@[0-9a-f]{40}", step["uses"])


def test_nothing_of_the_pull_request_is_installed_or_run() -> None:
    installs = [line for script in SCRIPTS.values() for line in script.splitlines() if "pip" in line.split()]
    assert len(installs) == 2
    assert all("pr" not in re.split(r"[\s/]+", line) for line in installs)
    assert installs[1].split()[-1] == "./base"
    for script in SCRIPTS.values():
        assert not re.search(r"(^|[;&|]|\$\()\s*(\./|cd |source |\. |make |bash |sh |pr/)", script, re.MULTILINE)
        assert not re.search(r"python (?!-m pip)", script)


@pytest.mark.parametrize("step", SCRIPTS)
def test_script_has_no_syntax_error(step: str) -> None:
    ended = subprocess.run(["bash", "-n"], input=SCRIPTS[step], capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_added_submission_is_validated_and_then_all_together(request_: PullRequest) -> None:
    request_.write(NEW, "{}\n")
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == (None, [["validate", "--json", "--", f"pr/{NEW}"], ALL_TOGETHER])


def test_attestation_of_a_published_submission_can_be_added(request_: PullRequest) -> None:
    name = PUBLISHED.replace(".json", ".attestation-01234567.json")
    request_.write(name, "{}\n")
    checked = request_.checked()
    assert (checked.stopped, checked.calls[0][-1]) == (None, f"pr/{name}")


def test_what_is_made_from_submissions_may_change(request_: PullRequest) -> None:
    request_.write("submissions/leaderboard.csv", "other\n")
    request_.write("submissions/schema.json", "{}\n")
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == (None, [ALL_TOGETHER])


def test_files_outside_of_the_submissions_are_not_looked_at(request_: PullRequest) -> None:
    request_.write("collapsebench/publishing/validation.py", "raise SystemExit(0)\n")
    request_.link("elsewhere.json", "/etc/passwd")
    assert request_.checked().calls == [ALL_TOGETHER]


@pytest.mark.parametrize("step", ["new", "all"])
def test_refused_submission_fails_the_check(request_: PullRequest, step: str) -> None:
    if step == "new":
        request_.write(NEW, "{}\n")
    checked = request_.checked(verdict=2)
    assert checked.stopped == step
    assert len(checked.calls) == 1


def modify(request: PullRequest) -> None:
    request.write(PUBLISHED, '{"better": 1}\n')


def delete(request: PullRequest) -> None:
    (request.path / PUBLISHED).unlink()


def rename(request: PullRequest) -> None:
    (request.path / PUBLISHED).rename(request.path / NEW)


def delete_the_folder(request: PullRequest) -> None:
    request.git("rm", "-r", "--quiet", "submissions")


def merge_the_base_and_drop_its_submission(request: PullRequest) -> None:
    request.git("checkout", "--quiet", "main")
    request.write("submissions/t@1/later-2.json", "{}\n")
    request.base = request.commit()
    request.git("checkout", "--quiet", "branch")
    request.git("merge", "--quiet", "--no-commit", "--no-ff", "main")
    (request.path / "submissions/t@1/later-2.json").unlink()


@pytest.mark.parametrize("change", [modify, delete, rename, delete_the_folder, merge_the_base_and_drop_its_submission])
def test_change_of_a_published_submission_is_refused(
    request_: PullRequest, change: Callable[[PullRequest], None]
) -> None:
    change(request_)
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == ("changes", [])
    named = "later-2" if change is merge_the_base_and_drop_its_submission else "published-0"
    assert re.search(rf"::error::submissions/t@1/{named}\.json: changes or deletes a published file", checked.printed)


def test_all_refusals_are_listed_at_once(request_: PullRequest) -> None:
    modify(request_)
    request_.write("submissions/stray.json", "{}\n")
    assert request_.checked().printed.count("::error::") == 2


def test_pull_request_is_not_blamed_for_what_the_base_has_gained(request_: PullRequest) -> None:
    request_.write(NEW, "{}\n")
    request_.commit()
    request_.git("checkout", "--quiet", "main")
    request_.write("submissions/t@1/later-2.json", "{}\n")
    request_.base = request_.commit()
    request_.git("checkout", "--quiet", "branch")
    checked = request_.checked()
    assert (checked.stopped, checked.calls[0][3:]) == (None, [f"pr/{NEW}"])


@pytest.mark.parametrize(
    "name",
    ["submissions/m.json", "submissions/t@1/deep/m.json", "submissions/t@1/m.py", "submissions/t@1/.gitattributes"],
)
def test_file_where_no_submission_belongs_is_refused(request_: PullRequest, name: str) -> None:
    request_.write(name, "\n")
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == ("changes", [])
    assert f"::error::{name}: is not at submissions/" in checked.printed


ODD_NAMES = (
    "a b",
    "a\nb",
    "$(touch x)",
    "`touch x`",
    "--help",
    "-n",
    "a'b\"c",
    "*",
    "é\u202e",
    "a\t;touch x\\",
    "schema",
)


@pytest.mark.parametrize("name", [f"{name}.json" for name in ODD_NAMES])
def test_name_reaches_the_validation_as_it_is_and_as_one_argument(request_: PullRequest, name: str) -> None:
    request_.write(f"submissions/t@1/{name}", "{}\n")
    checked = request_.checked()
    assert checked.stopped is None
    assert checked.calls == [["validate", "--json", "--", f"pr/submissions/t@1/{name}"], ALL_TOGETHER]
    assert not list(request_.workspace.rglob("x"))


def test_folder_that_looks_like_an_option_is_none(request_: PullRequest) -> None:
    request_.write("submissions/--out/m.json", "{}\n")
    assert request_.checked().calls[0][3:] == ["pr/submissions/--out/m.json"]


def test_name_that_is_refused_cannot_command_the_runner(request_: PullRequest) -> None:
    request_.write("submissions/a\n::add-mask::b\r::error::c", "{}\n")
    printed = request_.checked().printed
    assert len(printed.splitlines()) == 1
    assert printed.startswith(r"::error::$'submissions/a\n::add-mask::b\r::error::c': is not at")


def link_a_file(request: PullRequest) -> None:
    request.link(NEW, "/etc/passwd")


def link_a_folder(request: PullRequest) -> None:
    request.link("submissions/u@1", "/etc")


def link_all_submissions(request: PullRequest) -> None:
    request.git("mv", "submissions", "elsewhere")
    request.link("submissions", "elsewhere")


def replace_by_a_link(request: PullRequest) -> None:
    (request.path / PUBLISHED).unlink()
    request.link(PUBLISHED, "../leaderboard.csv")


def make_executable(request: PullRequest) -> None:
    (request.path / PUBLISHED).chmod(0o755)


def add_a_submodule(request: PullRequest) -> None:
    request.write(
        ".gitmodules", '[submodule "m"]\n\tpath = submissions/m\n\turl = https://example.org\n\tignore = all\n'
    )
    request.git("update-index", "--add", "--cacheinfo", f"160000,{request.base},submissions/m")
    (request.path / "submissions/m").mkdir()


@pytest.mark.parametrize(
    "change",
    [link_a_file, link_a_folder, link_all_submissions, replace_by_a_link, make_executable, add_a_submodule],
)
def test_what_is_not_a_plain_file_is_refused(request_: PullRequest, change: Callable[[PullRequest], None]) -> None:
    change(request_)
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == ("plain", [])
    assert "not a plain file" in checked.printed


@pytest.mark.parametrize("attribute", ["text eol=crlf", "ident", "working-tree-encoding=UTF-16"])
def test_checkout_that_differs_from_what_would_be_merged_is_refused(request_: PullRequest, attribute: str) -> None:
    request_.write(NEW, '{"a": "$Id$"}\n')
    request_.commit()
    request_.write(".gitattributes", f"new-1.json {attribute}\n")
    request_.git("add", ".gitattributes")
    request_.git("commit", "--quiet", "--message", "attributes")
    (request_.path / NEW).unlink()
    request_.git("checkout", "--", NEW)
    checked = request_.checked()
    assert (checked.stopped, checked.calls) == ("plain", [])
    assert "differs from what git has stored" in checked.printed


_WITH_NOTHING_ELSE = """
import re, sys
from importlib.metadata import packages_distributions, requires

def plain(name): return re.sub(r"[-_.]+", "-", name).lower()

listed, known = [plain(name) for name in sys.argv[2:]], set()
while listed:
    name = listed.pop()
    if name not in known:
        known.add(name)
        needed = [r for r in requires(name) or [] if not re.search("extra ==|_system ==|sys_platform ==", r)]
        listed += [plain(re.match(r"[A-Za-z0-9._-]+", r).group()) for r in needed]
homes = {top: {plain(d) for d in found} for top, found in packages_distributions().items()}

class Missing:
    def find_spec(self, name, path=None, target=None):
        home = homes.get(name.partition(".")[0])
        if home and not home & (known | {"collapsebench", "setuptools"}):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
file, sys.argv = sys.argv[1], ["collapsebench", "validate", "--json", "--", sys.argv[1]]
from collapsebench.cli.main import main
main()
"""


def test_what_is_installed_is_enough_to_validate(tmp_path: Path) -> None:
    first = SCRIPTS["install"].splitlines()[0].split("constraints.txt ")[1].split()
    assert "torch" not in first
    (tmp_path / "m.json").write_text("{}\n")
    ended = python("-c", _WITH_NOTHING_ELSE, "m.json", *(n for n in first if n != "hatchling"), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "")
    assert '"code": "schema"' in ended.stdout


def codes_in_the_protocol() -> set[str]:
    (section,) = re.findall(r"^## 8\. .*?(?=^## )", (ROOT / "docs" / "protocol.md").read_text("utf-8"), re.M | re.S)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def codes_in_the_source() -> set[str]:
    """First arguments of all problems that the modules of publishing make, where they are written out."""
    files = (ROOT / "collapsebench" / "publishing").glob("*.py")
    calls = [
        node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    made = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("Problem", "Unreadable")]
    first = [c.args[0] if c.args else c.keywords[0].value for c in made]
    return {node.value for node in first if isinstance(node, ast.Constant)}


def test_protocol_lists_the_codes_that_the_checker_has() -> None:
    assert codes_in_the_protocol() == codes_in_the_source()
