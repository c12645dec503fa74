"""Benchmarks of lm-eval on a model in memory, without its side effects.

lm-eval (`pip install 'collapsebench[pretrained]'`) is imported when the first benchmark is evaluated, not before.

This module wraps it so that it can run inside a training loop:

- it restores the state of every random generator and every module's training flag;
- it prints nothing and writes no files and no request cache (only the hub's client keeps its cache);
- it draws few-shot examples with the seed of the lm_eval command line. By default they differ from call to call;
- it scores NaN for a model whose logits are NaN. lm-eval would report 100 % on BLiMP: the arg max of NaNs is 0;
- it raises an error with the benchmark's name for a definition that lm-eval cannot use.

Start-up on one core: importing lm-eval takes 2.4 seconds, once. Loading all 67 sets of BLiMP from their zip takes 3
seconds, every time. Tasks named by lm-eval's own name need its index of 14,000 YAML files (18 seconds, once per
process) and the hub or its cache. Items of a local file need neither.

Two conventions of lm-eval matter when its numbers are compared with ours. A text without context is preceded by BOS,
or by EOS if there is no BOS; this includes the first window of a perplexity. Every later window of a perplexity begins
with the last token of the previous one, except that the last window is filled up to full length with context.
"""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from collapsebench.errors import DataError, Diverged, TaskError
from collapsebench.metrics.harness_settings import HarnessTask
from collapsebench.metrics.harness_tasks import from_file, from_lm_eval, in_short

_FEWSHOT_SEED = 1234  # the command line's
# What lm-eval raises for a wrong definition.
_FAULTS = (AssertionError, AttributeError, LookupError, TypeError, ValueError, TemplateError)


@dataclass(frozen=True)
class HarnessResult:
    """Result of one benchmark of lm-eval.

    Attributes:
        value: the metric, aggregated as lm-eval does; NaN if the model's logits are NaN or the value overflows.
        stderr: lm-eval's standard error where it has a closed form (means); None where lm-eval has none or would
            bootstrap.
        n: number of items over all sets; 0 if the value is NaN.
        items: the metric of every item, by name of lm-eval's task, in the order of the file: 1 or 0 for accuracies,
            the log-likelihood of the text for perplexities. Empty for metrics without a value per item.
    """

    value: float
    stderr: float | None
    n: int
    items: Mapping[str, tuple[float, ...]]


def evaluate_harness(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[HarnessTask],
    base: Path,
    *,
    batch_size: int,
    max_length: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> dict[str, HarnessResult]:
    """Evaluate benchmarks on a model.

    Args:
        model: a decoder-only `transformers` model. tokenizer: one with an EOS token; it is not changed.
        tasks: the benchmarks. base: folder that their files are relative to.
        batch_size: sequences at a time. Log-likelihoods do not depend on it beyond rounding; generated answers
            (gsm8k) can, where two tokens are almost equally likely.
        max_length: tokens that the model reads at once. Contexts are truncated on the left.
        on_batch: called with the number of tokens after every batch.

    Returns:
        Results by `HarnessTask.metric_name`, in the order of `tasks`.

    Raises:
        DataError: lm-eval is not installed, or items are missing or invalid.
        TaskError: lm-eval cannot use a definition.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no EOS token; lm-eval needs one before a text and at the end of an answer.")
    with _unchanged(model):
        try:
            from lm_eval.models.huggingface import HFLM
        except ImportError as error:
            raise DataError(f"lm-eval is missing ({error}): pip install 'collapsebench[pretrained]'.") from error
        with _silent(), _watched(model, on_batch):
            lm = HFLM(
                pretrained=model,
                tokenizer=_padded(tokenizer),
                backend="causal",
                batch_size=batch_size,
                max_length=max_length,
            )
            return {task.metric_name: _evaluate(lm, task, base) for task in tasks}


def check_harness(tasks: Sequence[HarnessTask], base: Path) -> None:
    """Load all benchmarks and discard them, to raise the errors of `evaluate_harness` before training starts."""
    with _silent():
        for task in tasks:
            _loaded(task, base)


def _loaded(task: HarnessTask, base: Path) -> tuple[dict[str, Any], str]:
    """The tasks of lm-eval, and the name of the one whose result to use."""
    return from_lm_eval(task) if task.task else from_file(task, base)


def _evaluate(lm: Any, task: HarnessTask, base: Path) -> HarnessResult:
    from lm_eval.evaluator import evaluate

    loaded, top = _loaded(task, base)
    leaves = list(loaded["tasks"].values())
    for leaf in leaves:
        _set_examples(leaf, task)
    try:
        # 0 would drop the closed-form errors as well; 1 must not reach a metric that would be bootstrapped with it.
        found = evaluate(lm, loaded, limit=task.limit, bootstrap_iters=1 if _closed_form(leaves) else 0)
    except (Diverged, OverflowError):
        return HarnessResult(math.nan, None, 0, {})
    except _FAULTS as error:
        raise TaskError(
            f"lm-eval cannot evaluate {task.name!r}: {in_short(error)}. Its definition may be wrong, or a text longer "
            f"than the {lm.max_length} tokens that the model reads at once (an answer and 256 to be written included)."
        ) from error
    return _result(found, task, top)


def _result(found: dict[str, Any], task: HarnessTask, top: str) -> HarnessResult:
    values = found["results"][top]
    metric, _, chosen = task.lm_eval_metric.partition(",")
    filters = [key.partition(",")[2] for key in values if key.partition(",")[0] == metric]
    if not filters or (chosen and chosen not in filters) or (not chosen and len(filters) > 1):
        names = [key for key in values if "," in key and not key.partition(",")[0].endswith("_stderr")]
        raise TaskError(f"{task.name!r} has no single metric {task.lm_eval_metric!r}; choose one of {names}.")
    chosen = chosen or filters[0]
    higher = found["higher_is_better"].get(top, {}).get(metric)
    if higher is not None and higher != (task.declared_metric.direction == "higher"):
        direction = task.declared_metric.direction
        raise TaskError(f"{task.name!r}: {metric} is better when {direction}, its definition for lm-eval disagrees.")
    stderr = values.get(f"{metric}_stderr,{chosen}", "N/A")
    items = {
        name: _per_item([s[metric] for s in samples if s["filter"] == chosen and metric in s], found["configs"][name])
        for name, samples in found["samples"].items()
    }
    return HarnessResult(
        value=float(values[f"{metric},{chosen}"]),
        stderr=None if stderr == "N/A" else float(stderr),
        n=sum(count["effective"] for count in found["n-samples"].values()),
        items=items,
    )


def _per_item(values: list[Any], config: dict[str, Any]) -> tuple[float, ...]:
    if config["output_type"] == "loglikelihood_rolling":
        values = [log_likelihood for log_likelihood, _ in values]  # the second one: number of words or bytes
    return tuple(map(float, values)) if all(isinstance(value, int | float | bool) for value in values) else ()


def _set_examples(leaf: Any, task: HarnessTask) -> None:
    """Set the number of few-shot examples and the seed that draws them, as `simple_evaluate` does."""
    configured = leaf.get_config("num_fewshot")
    if task.num_fewshot and configured == 0 and task.task:
        raise TaskError(f"{task.name!r}: lm-eval fixes {task.task} at 0 examples; leave num_fewshot out.")
    leaf.set_config(key="num_fewshot", value=(configured or 0) if task.num_fewshot is None else task.num_fewshot)
    leaf.set_fewshot_seed(seed=_FEWSHOT_SEED)


def _closed_form(leaves: Iterable[Any]) -> bool:
    """Whether lm-eval bootstraps none of the tasks' standard errors."""
    from lm_eval.api.metrics import acc_all_stderr, mean_stderr, stderr_for_metric

    hows = [how for leaf in leaves for how in leaf.aggregation().values()]
    return all(stderr_for_metric(how, 1) in (None, mean_stderr, acc_all_stderr) for how in hows)


# ------------------------------------------------------------------------------------------------------ no side effects


@contextmanager
def _unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Restore random states and training flags, whatever happens."""
    flags = [(module, module.training) for module in model.modules()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _silent() -> Iterator[None]:
    """Log errors only and show no progress bars; parts of lm-eval have no switch for theirs."""
    from tqdm.std import tqdm

    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    shown, own = tqdm.__init__, vars(tqdm)["__init__"]

    def hidden(bar: Any, *args: Any, **options: Any) -> None:
        shown(bar, *args, **(options | {"disable": True}))

    try:
        tqdm.__init__ = hidden
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        tqdm.__init__ = own
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _watched(model: PreTrainedModel, on_batch: Callable[[int], None]) -> Iterator[None]:
    """Report every batch; raise `Diverged` when logits are not numbers."""

    def seen(_: Any, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        if not math.isfinite(float(output.logits.sum(dtype=torch.float32))):
            raise Diverged("the model's logits are not numbers")
        on_batch((args[0] if args else options["input_ids"]).numel())

    hook = model.register_forward_hook(seen, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy with a pad token; lm-eval would add one to the original, possibly beyond the model's vocabulary."""
    own = copy.deepcopy(tokenizer)
    if own.pad_token_id is None:
        own.pad_token = own.eos_token
    return own
