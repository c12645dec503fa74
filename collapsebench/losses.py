"""What a contestant writes: a loss as a function of the log-probability of the observed element.

Every modality of the benchmark reduces to elements (tokens, pixels, noise components) whose log-likelihood under the
model is known. A `Loss` maps those log-probabilities to one loss per element; the harness masks padding and reduces.
The same object is a drop-in for `torch.nn.CrossEntropyLoss` and for `transformers.Trainer(compute_loss_func=…)`.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from collapsebench.errors import LossError, UserError
from collapsebench.parameters import Parametrised
from collapsebench.workloads.kinds import KINDS

Reduction = Literal["mean", "kept", "sum", "none"]


@dataclass(frozen=True)
class Elements:
    """A batch of observed elements, as a loss sees it.

    Attributes:
        log_p: log-probability (natural log) of each observed element; any shape, float32 or wider. ≤ 0 for text,
            Bernoulli pixels and the relative densities of diffusion.
        generation: 0 when the model trains on real data.
        step: index of the current update within the generation, from 0.
        total_steps: number of updates of this generation.
    """

    log_p: Tensor
    generation: int = 0
    step: int = 0
    total_steps: int = 1
    _restricted: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    _asked_of: str = field(default="", repr=False)  # the task, if the loss has asked for restricted fields

    @property
    def synthetic(self) -> Tensor:
        """Bool, shape of `log_p`: True where a model made the element. Only on the provenance track."""
        return self._allowed("synthetic", 'track: ClassVar = "provenance"')

    @property
    def logits(self) -> Tensor:
        """Unnormalised scores, (*log_p.shape, V). Only for losses with ``needs_logits``, in text workloads."""
        return self._allowed("logits", "needs_logits: ClassVar = True")

    @property
    def prediction(self) -> Tensor:
        """The model's output for each element: the logits of tokens or pixels, the noise. Only with ``needs_logits``.

        Mixtures have none.
        """
        return self._allowed("prediction", "needs_logits: ClassVar = True")

    @property
    def target(self) -> Tensor:
        """The observed element itself: token id, pixel, noise component. Only with ``needs_logits``."""
        return self._allowed("target", "needs_logits: ClassVar = True")

    def _allowed(self, name: str, declaration: str) -> Tensor:
        if name not in self._restricted and self._asked_of and name != "synthetic":
            there = ", ".join(["log_p", *self._restricted])
            raise LossError(f"{self._asked_of} has no {name}: a loss can see {there} there.")
        if name not in self._restricted:
            raise LossError(
                f"Elements.{name} is not available here: this workload does not have it, or the loss did not ask "
                f"for it. A loss asks in its class body with `{declaration}`."
            )
        return self._restricted[name]


class Loss(Parametrised):
    """A training loss: annotated class attributes are its parameters, `elementwise` is its formula.

    Example::

        class Tempered(Loss):
            beta: float = 0.5

            def elementwise(self, e: Elements) -> Tensor:  # noqa: ARG002  (an override uses it)
                return -(e.log_p * self.beta).exp() * e.log_p

    Parameters are validated when the loss is created (``Tempered(beta=0.8)``). Strings are converted, so the same
    values work on the command line: ``tempered.py:Tempered:beta=0.8``. One object is made per generation; state kept
    on it does not survive the generation.

    Attributes:
        reduction: ``mean`` over all elements, ``kept`` over the elements with a non-zero loss. ``sum`` and ``none``
            exist for use outside the harness.
        ignore_index: target id that is left out, as in `torch.nn.CrossEntropyLoss`; the harness does its own masking.
        needs_logits: ask for `Elements.logits`, `.prediction` and `.target`; costs the memory of the logits.
        track: ``loss``, or ``provenance`` to see which elements are synthetic; ranked separately.
    """

    reduction: Reduction = "mean"
    ignore_index: int = -100
    needs_logits: ClassVar[bool] = False
    track: ClassVar[Literal["loss", "provenance"]] = "loss"
    OF_EVERY_CLASS = ("reduction", "ignore_index")

    def elementwise(self, e: Elements) -> Tensor:  # noqa: ARG002  (an override uses it)
        """Return the loss of each element: same shape as ``e.log_p``, differentiable in it."""
        raise LossError(f"{type(self).__name__} must define elementwise(self, e: Elements) -> Tensor.")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Use as `torch.nn.CrossEntropyLoss`, with the classes in the *last* dimension.

        Args:
            logits: (..., C), any leading shape, any floating dtype (computed in float32 or wider).
            target: (...) int64 class ids; `ignore_index` is left out.

        Returns:
            A scalar, or the shape of `target` for ``reduction="none"``. If all targets are ignored: 0, where
            `torch.nn.CrossEntropyLoss` gives NaN.
        """
        if logits.shape[:-1] != target.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: expected (..., C) and "
                "(...), classes last. From (N, C, d) move them with logits.movedim(1, -1)."
            )
        mask = target != self.ignore_index
        known = target.masked_fill(~mask, 0)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        log_p = F.log_softmax(logits, dim=-1).gather(-1, known.unsqueeze(-1)).squeeze(-1)
        restricted = {"logits": logits, "prediction": logits, "target": known} if self.needs_logits else {}
        return loss_of_elements(self, Elements(log_p, _restricted=restricted), mask)

    def compute_loss_func(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """``transformers.Trainer(compute_loss_func=loss.compute_loss_func)`` for causal language models.

        Args:
            outputs: model output with ``.logits`` (B, T, V).
            labels: (B, T) as the collator makes them; shifted by one position here, -100 ignored.
            num_items_in_batch: number of labels in the whole update, passed by the Trainer. The means of the
                micro-batches are then weighted by their share of it, so that they add up to the mean over the update.
                ``kept`` averages over the kept elements within each micro-batch, weighted in the same way.
        """
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
        shifted = F.pad(labels, (0, 1), value=self.ignore_index)[..., 1:].to(logits.device)
        loss = self(logits, shifted)
        if num_items_in_batch is None or self.reduction not in ("mean", "kept"):
            return loss
        return loss * ((shifted != self.ignore_index).sum() / num_items_in_batch)


def cross_entropy(log_p: Tensor) -> Tensor:
    """Negative log-likelihood of each element, in nats; same shape as `log_p`."""
    return -log_p


def focal(log_p: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (1 - p)^γ · (-log p) of Lin et al., arXiv 1708.02002, without class weights.

    The gradient flows through the factor, as in the reference implementation.

    Args:
        log_p: log-probabilities ≤ 0, any shape.
        gamma: ≥ 0; 0 is cross entropy.
    """
    # -expm1 keeps the digits of 1 - p near p = 1; the clamp keeps the power's gradient finite at p = 1 for γ < 1.
    return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** gamma * -log_p


def truncated_cross_entropy(log_p: Tensor, gamma: float = 0.9) -> Tensor:
    """Truncated Cross Entropy of ForTIFAI, arXiv 2509.08972: -log p where p ≤ γ, 0 where p > γ.

    The mask carries no gradient.

    Args:
        log_p: log-probabilities ≤ 0, any shape.
        gamma: threshold in (0, 1]; 1 is cross entropy.
    """
    return torch.where(log_p.detach().exp() <= gamma, -log_p, 0.0)


@dataclass(frozen=True)
class Declared:
    """What a loss declares, as it is written down: no code of the loss runs to read it, so it cannot change at will."""

    track: str
    needs_logits: bool
    reduction: str

    @staticmethod
    def of(loss: Loss) -> Declared:
        """The declarations of a loss at this moment.

        Raises:
            LossError: one of them is computed (a property), or of another type.
        """
        found = {}
        for name, kind in (("track", str), ("needs_logits", bool), ("reduction", str)):
            found[name] = inspect.getattr_static(loss, name)
            if type(found[name]) is not kind:
                got = type(found[name]).__name__
                raise LossError(f"{type(loss).__name__}.{name} is a {got}; it must be written as a {kind.__name__}.")
        return Declared(**found)


def loss_of_elements(
    loss: Loss, elements: Elements, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Apply a loss to a batch and reduce it as the loss declares.

    Args:
        loss: the method's loss.
        elements: the batch; elements outside the mask may hold anything.
        mask: bool, shape of ``log_p``; True where an element counts. None: all count.
        weights: shape of ``log_p``; multiplied with the element-wise losses before reduction. None: all are 1.

    Returns:
        A scalar (or the masked element-wise losses for ``none``). A batch in which no element counts gives 0 with a
        zero gradient.

    Raises:
        LossError: the loss did not return a floating tensor of the shape of ``log_p``.
    """
    if mask is not None:  # the value of a masked element must not reach the gradient, as 0 · inf would
        elements = replace(elements, log_p=elements.log_p.masked_fill(~mask, -1.0))
    values = loss.elementwise(elements)
    if not isinstance(values, Tensor) or values.shape != elements.log_p.shape or not values.is_floating_point():
        got = f"{tuple(values.shape)} {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise LossError(
            f"{type(loss).__name__}.elementwise returned {got}; expected a floating tensor of the shape of e.log_p, "
            f"{tuple(elements.log_p.shape)}. Reduction is the harness's: return one loss per element."
        )
    if mask is not None:
        values = values.masked_fill(~mask, 0.0)
    if weights is not None:
        values = values * weights
    reduction = Declared.of(loss).reduction
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if reduction == "kept":
        count = (values != 0).sum()
    else:
        # `torch.tensor` would copy the number to a GPU, and wait for it.
        count = torch.full((), values.numel(), device=values.device) if mask is None else mask.sum()
    return values.sum() / count.clamp(min=1)


def check_loss(loss: Loss, kind: str = "text", task_id: str = "") -> None:
    """Run a loss on known values before any training; raise `LossError` if something is wrong.

    Log-probabilities from -30 to 0 must give finite losses and a finite gradient, in one tensor of their shape.

    Args:
        kind: kind of the workload; it decides what `Elements.prediction` and `.target` are.
        task_id: name of the task for error messages.
    """
    name = type(loss).__name__
    if loss.reduction not in ("mean", "kept"):
        raise LossError(f"{name}: reduction {loss.reduction!r} cannot train; the benchmark allows 'mean' and 'kept'.")
    prediction, elements = _known_elements(loss, kind, task_id)
    try:
        value = loss_of_elements(loss, elements)
        if not value.requires_grad:
            raise LossError(f"{name}.elementwise has no gradient: its result does not depend on e.log_p.")
        (gradient,) = torch.autograd.grad(value, prediction)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        tried = "a batch of 64 log-probabilities from -30 to 0"
        raise LossError(f"{name}.elementwise failed on {tried}: {told_with_place(error, loss)}.") from error
    if not bool(torch.isfinite(value)) or not bool(torch.isfinite(gradient).all()):
        raise LossError(
            f"{name}.elementwise gives NaN or infinity (loss or gradient) for log-probabilities from -30 to 0; "
            "clamp before taking powers or logarithms, e.g. e.log_p.clamp(max=-1e-6)."
        )


def told_with_place(error: BaseException, loss: Loss) -> str:
    """An error raised by a loss, in one line, with the innermost line of the loss's own source in the traceback."""
    own = [base for base in type(loss).__mro__ if base not in Loss.__mro__]
    files = {code.co_filename for base in own for f in vars(base).values() if (code := getattr(f, "__code__", None))}
    frames = traceback.extract_tb(error.__traceback__)
    where = ([frame for frame in frames if frame.filename in files] or frames)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({where.filename}:{where.lineno})"


def _known_elements(loss: Loss, kind: str, task_id: str) -> tuple[Tensor, Elements]:
    """A possible prediction of a model of this kind, and the 64 elements that follow from it."""
    known = KINDS[kind].known()
    declared = Declared.of(loss)
    restricted = dict(known.seen) if declared.needs_logits else {}
    if declared.track == "provenance":
        restricted["synthetic"] = torch.arange(64) % 2 == 0
    asked_of = f"{task_id or 'the task'} (kind {kind})" if declared.needs_logits else ""
    return known.prediction, Elements(known.log_p, _restricted=restricted, _asked_of=asked_of)
