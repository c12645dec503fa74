"""Hundreds of mutated submissions: each is refused in words, without hanging and in little memory."""

from __future__ import annotations

import base64
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from submission_files import HANGING, content_of, entry_of, put, tiny_task, valid_submission, write_bytes, write_content
from submission_mutations import MUTATIONS, Mutant, Original
from tiny_task import KINDS

from collapsebench.publishing.bounded_json import MAX_BYTES, MAX_VALUES
from collapsebench.publishing.consistency import Problem
from collapsebench.publishing.submission import Submission
from collapsebench.publishing.validation import validate_files
from collapsebench.task import Task

BASES = ("text", "vae", "diffusion", "gmm", "diverged")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """A tiny task of every kind."""
    return {kind: tiny_task(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def originals(tasks) -> dict[str, Original]:
    """Valid submissions to mutate."""
    made = {kind: Original(valid_submission(task), task) for kind, task in tasks.items()}
    content = content_of(valid_submission(tasks["text"], name="Diverges", seed_noise=0.01))
    chain = content["results"][1]["generations"]
    chain[2:] = [chain[2] | {"status": "diverged", "metrics": {}}]
    made["diverged"] = Original(Submission.model_validate_json(json.dumps(content)), tasks["text"])
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants")


def written(mutant: Mutant, folder: Path) -> Path:
    write = write_bytes if isinstance(mutant.content, bytes) else write_content
    path = write(mutant.content, folder)
    return path if mutant.name is None else path.rename(path.with_name(mutant.name))


def problems_of_any(path: Path, tasks: dict[str, Task], published: list[Submission]) -> list[Problem]:
    """The problems of a file, checked to be printable and found quickly."""
    known = {task.id: task for task in tasks.values()}
    entries = [entry_of(submission) for submission in published]
    start = time.perf_counter()
    (verdict,) = validate_files([path], known, entries)
    assert time.perf_counter() - start < HANGING
    assert verdict.problems
    assert verdict.entry is None
    for problem in verdict.problems:
        assert all((problem.code, problem.path, problem.given, problem.allowed))
        assert str(problem).isprintable()
    return verdict.problems


@pytest.mark.parametrize("base", BASES)
def test_what_is_mutated_is_valid(base, originals, tasks, folder):
    original = originals[base]
    path = written(Mutant(original.content), folder)
    assert path.name == original.name
    (verdict,) = validate_files([path], {original.task.id: original.task})
    assert verdict.problems == []


@settings(max_examples=400)
@given(base=st.sampled_from(BASES), mutation=st.sampled_from(MUTATIONS), seed=st.integers(0, 2**32))
def test_every_mutated_submission_is_refused(base, mutation, seed, originals, tasks, folder):
    original = originals[base]
    mutant = mutation(random.Random(seed), original)
    path = written(mutant, folder)
    assume(path.name != original.name or path.read_bytes() != original.written)
    problems_of_any(path, tasks, mutant.published)


REACHED = {
    "too-large", "not-utf8", "not-json", "not-finite", "duplicate-key", "too-deep", "too-many-keys", "unknown-key",
    "schema", "not-canonical", "digest", "unknown-task", "task-digest", "references", "date", "method",
    "baseline-digest", "seeds-foreign", "seeds-missing", "identical-seeds", "provenance", "generations-order",
    "generations-missing", "after-divergence", "metric-missing", "metric-unknown", "metric-bounds", "metric-n",
    "inconsistent", "counters", "first-generation", "samples", "duplicate", "copied", "supersedes",
}  # fmt: skip


def test_the_mutations_reach_the_deep_checks(originals, tasks, folder):
    found: Counter[str] = Counter()
    mutants = by_digest = 0
    for mutation in MUTATIONS:
        for seed in range(15):
            original = originals[BASES[seed % len(BASES)]]
            mutant = mutation(random.Random(f"{mutation.__name__} {seed}"), original)
            path = written(mutant, folder)
            if path.name != original.name or path.read_bytes() != original.written:
                codes = {problem.code for problem in problems_of_any(path, tasks, mutant.published)}
                found.update(codes)
                mutants += 1
                by_digest += codes == {"digest"}
    assert found.keys() >= REACHED
    assert by_digest < mutants / 4


# the nastiest ones

ROOM = MAX_VALUES - 5_000  # for values beside those of a valid submission

VALIDATE = """
import json, sys, time
from pathlib import Path
from collapsebench.publishing.validation import validate_files
from collapsebench.task import load_task

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000

tasks = {task.id: task for task in (load_task(Path(sys.argv[1])), load_task(Path(sys.argv[2])))}
imported = peak()
for path in sorted(Path(sys.argv[3]).iterdir()):
    start = time.process_time()
    (verdict,) = validate_files([path], tasks)
    seconds = time.process_time() - start
    told = sum(len(str(problem)) for problem in verdict.problems)
    print(json.dumps([path.name, seconds, peak() - imported, len(verdict.problems), told]), flush=True)
"""


def nasty_texts() -> dict[str, bytes]:
    """Texts of two megabytes that are barely JSON."""
    return {
        "brackets": b"[" * MAX_BYTES,
        "objects": b'{"a":' * (MAX_BYTES // 5),
        "pairs": b"[]," * (MAX_BYTES // 3),
        "commas": b"[" + b"0," * (MAX_BYTES // 2 - 1),
        "escapes": b'{"a":"' + b"\\n" * (MAX_BYTES // 2 - 5),
        "backslashes": b'"' + b"\\" * (MAX_BYTES - 1),
        "quotes": b'"' * MAX_BYTES,
        "spaces": b" " * MAX_BYTES,
        "zeros": b"\0" * MAX_BYTES,
        "too large": b"[" * 10 * MAX_BYTES,
        "digits": b'{"date":' + b"7" * (MAX_BYTES - 10) + b"}",
        "decimals": b'{"date":0.' + b"7" * (MAX_BYTES - 20) + b"}",
        "exponent": b'{"date":1e-' + b"7" * (MAX_BYTES - 20) + b"}",
        "long key": b'{"' + b"k" * (MAX_BYTES - 10) + b'":0}',
        "escaped key": b'{"' + b"\\u202e" * (MAX_BYTES // 6 - 10) + b'":0}',
        "doubled key": (b'{"' + b"k" * (MAX_BYTES // 2 - 20) + b'":0,"' + b"k" * (MAX_BYTES // 2 - 20) + b'":0}'),
        "keys": json.dumps({f"k{i}": 0 for i in range(ROOM)}).encode(),
        "A-0.attestation-0": b"[" * MAX_BYTES,
        "A-1.attestation-1": json.dumps({"machine": {"seeds": [""] * ROOM}}).encode(),
    }


def nasty_contents(content: dict[str, Any]) -> dict[str, Any]:
    """Contents of maximum size that the schema refuses, or accepts."""
    session, generation = content["provenance"][0], content["results"][0]["generations"][0]
    empty = {**generation, "metrics": {}}
    lean = {**generation, "metrics": {"m": {"value": 1.0, "n": 1}}}
    unknown = {**generation, "metrics": {f"m{i}": {"value": 0.5, "n": 1} for i in range(64)}}

    def chains(of: Any, length: int) -> dict[str, Any]:
        numbered = [of | {"generation": g} if isinstance(of, dict) else of for g in range(length)]
        return put(content, "results", [{"seed": seed, "generations": numbered} for seed in range(100)])

    def parameters(**values: Any) -> dict[str, Any]:
        return put(content, "method.parameters", values)

    return {
        "wrong authors": put(content, "authors", [0] * ROOM),
        "wrong results": put(content, "results", [0] * ROOM),
        "wrong generations": chains(0, ROOM // 100),
        "unknown keys": chains({f"k{i}": 0 for i in range(250)}, ROOM // 25_100),
        "empty generations": chains(empty, ROOM // 1_000),
        "lean generations": chains(lean, ROOM // 1_300),
        "unknown metrics": chains(unknown, ROOM // 20_500),
        "lists as parameters": parameters(a=[[]] * (ROOM // 2)),
        "markup as parameters": parameters(a=["<b"] * ROOM),
        "blanks as parameters": parameters(**{f"a{i}": [""] * (ROOM // 50) for i in range(50)}),
        "numbers as parameters": parameters(a=[1.5] * ROOM),
        "lines as parameters": parameters(a=["x" * 190] * 9_000),
        "hidden as parameters": parameters(a=["x" * 190 + "\u202e"] * 9_000),
        "sessions": put(content, "provenance", [session | {"packages": {f"p{i}": "x" * 190 for i in range(60)}}] * 99),
        "long kind": put(content, "samples.kind", "\u202e" * 300_000),
        "long texts": put(content, "samples.generations", {str(g): ["x" * 90_000] for g in range(20)}),
        "bombs": put(content, "samples", pictures(bomb())),
        "chunks": put(
            content, "samples", pictures(SIGNATURE + HEADER + chunk(b"IDAT", b"") * 3_400 + chunk(b"IEND", b""))
        ),
    }


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 512, 512, 8, 2, 0, 0, 0))


def bomb() -> bytes:
    """40 kB that become 40 MB."""
    return SIGNATURE + HEADER + chunk(b"IDAT", zlib.compress(bytes(40_000_000), 9)) + chunk(b"IEND", b"")


def pictures(content: bytes) -> dict[str, Any]:
    return {"kind": "images", "seed": 0, "generations": {str(g): base64.b64encode(content).decode() for g in range(21)}}


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_the_nastiest_files_take_little_time_and_memory(tasks, tmp_path):
    wrong = put(content_of(valid_submission(tasks["vae"])), "task.sha256", "0" * 64)  # so that none is valid
    files = nasty_texts() | {name: json.dumps(content).encode() for name, content in nasty_contents(wrong).items()}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_bytes(content)
    arguments = [str(tasks[kind].path) for kind in ("text", "vae")]
    command = [sys.executable, "-c", VALIDATE, *arguments, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    measured = [json.loads(line) for line in finished.stdout.splitlines()]
    assert {name for name, *_ in measured} == {f"{name}.json" for name in files}
    for name, seconds, megabytes, problems, told in measured:
        assert seconds < HANGING, name
        assert megabytes < 200, name
        assert 0 < problems <= 101, name
        assert told < 100_000, name
