"""Benchmarks of lm-eval leave no traces: not in random states, models, folders or on the screen."""

from __future__ import annotations

import ast
import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness_items import (
    MAX_LENGTH,
    PAIRS,
    Evaluate,
    all_formats,
    new_model,
    random_states,
)
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.errors import DataError
from collapsebench.metrics import harness, harness_tasks
from collapsebench.metrics.harness import evaluate_harness

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

torch.set_num_threads(1)


def test_random_states_and_training_flags_are_what_they_were(tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    model = new_model().train()
    model.model.layers[0].eval()
    flags = [module.training for module in model.modules()]
    before = random_states()
    found = evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert random_states() == before
    assert [module.training for module in model.modules()] == flags
    again = evaluate_harness(model.eval(), tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert found == again, "evaluated without dropout"


def test_model_and_tokenizer_are_what_they_were(tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    model = new_model()
    parameters = {name: (id(weight), weight.detach().clone()) for name, weight in model.named_parameters()}
    words, padding = len(tokenizer), tokenizer.padding_side
    evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    for name, weight in model.named_parameters():
        assert id(weight) == parameters[name][0]
        assert torch.equal(weight, parameters[name][1])
        assert weight.grad is None
        assert weight.requires_grad
    assert not model._forward_hooks
    assert (len(tokenizer), tokenizer.padding_side, tokenizer.pad_token) == (words, padding, None)


def test_random_states_are_restored_after_a_failure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path
) -> None:
    def interrupted(_: int) -> None:
        random.random()
        torch.rand(1)
        raise KeyboardInterrupt

    before = random_states()
    with pytest.raises(KeyboardInterrupt):
        evaluate_harness(
            model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH, on_batch=interrupted
        )
    assert random_states() == before
    assert not model._forward_hooks


def test_nothing_is_written_and_nothing_printed(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import datasets
    import lm_eval
    from tqdm import tqdm

    monkeypatch.chdir(tmp_path)
    places = [tmp_path, data, Path(datasets.config.HF_CACHE_HOME), Path(lm_eval.__file__).parent / "caching"]
    before = [contents(place) for place in places]
    level, shown = logging.getLogger("lm_eval").level, vars(tqdm)["__init__"]
    evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert [contents(place) for place in places] == before
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lm_eval").level == level
    assert vars(tqdm)["__init__"] is shown


def contents(folder: Path) -> list[tuple[str, int, int]]:
    files = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.exists())


def test_lm_eval_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, collapsebench.metrics.harness_settings; assert not {'torch', 'lm_eval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    names = []
    for module in (harness, harness_tasks):
        source = ast.parse(Path(module.__file__).read_text("utf-8"))
        imports = [node for node in source.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names += [alias.name for node in imports for alias in node.names]
        names += [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    assert "collapsebench.metrics.harness_settings" in names
    assert not [name for name in names if name.split(".")[0] in ("lm_eval", "datasets", "huggingface_hub")]


def test_a_missing_lm_eval_says_how_to_get_it(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    with pytest.raises(DataError, match=r"pip install 'collapsebench\[pretrained\]'"):
        evaluate(PAIRS)
