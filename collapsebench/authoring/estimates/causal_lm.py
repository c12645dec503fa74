"""Parameters, FLOPs and memory of a decoder-only transformer of the Llama family: training, writing, scoring.

Pure arithmetic on the numbers of a `transformers` configuration. Grouped-query attention, tied embeddings, gradient
checkpointing, gradient accumulation, bfloat16 and beams are in it; windowed attention (Gemma, Mistral) is counted as
if every token saw all before it, so it is an upper bound there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from collapsebench.authoring.estimates.costs import FLOAT, STATES, Memory

_ATTENTION_BACKWARD = 2.5  # of its forward pass: fused kernels compute the scores again
_CHUNK = 1024  # tokens whose logits exist at one time, see `collapsebench.token_log_probs`
_DRAWING = 7  # numbers per token of the vocabulary that drawing from it holds
_PREDICTING = 4  # the same for measuring predictions


@dataclass(frozen=True)
class CausalLm:
    """The shape of a model, in the words of a `transformers` configuration.

    Attributes:
        kv_heads: heads of keys and values; fewer than `heads` in grouped-query attention.
        tied_embeddings: the output embedding is the input embedding.
        head_dim: None: hidden_size / heads.
    """

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool = True
    head_dim: int | None = None

    @staticmethod
    def of_config(config: Mapping[str, Any]) -> CausalLm:
        """From ``config.to_dict()``, which also holds the values that a ``config.json`` may leave out."""
        return CausalLm(
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            tied_embeddings=config["tie_word_embeddings"],
            head_dim=config.get("head_dim"),
        )

    @property
    def query_width(self) -> int:
        """Numbers in the queries of one token."""
        return self.heads * (self.head_dim or self.hidden_size // self.heads)

    @property
    def key_width(self) -> int:
        """Numbers in the keys of one token, and in its values."""
        return self.query_width // self.heads * self.kv_heads

    @property
    def layer_products(self) -> int:
        """Weights of a layer that every token is multiplied with: attention's four matrices, the three of the MLP."""
        d = self.hidden_size
        return 2 * d * self.query_width + 2 * d * self.key_width + 3 * d * self.intermediate_size

    @property
    def parameters(self) -> int:
        """All weights: with two norms per layer and one at the end, without biases."""
        embeddings = (1 if self.tied_embeddings else 2) * self.vocab_size * self.hidden_size
        return embeddings + self.layers * (self.layer_products + 2 * self.hidden_size) + self.hidden_size


@dataclass(frozen=True)
class LmPlan:
    """How a model is trained, and how it writes.

    Attributes:
        block: tokens of a window. All but the first are predicted.
        batch_size: windows that are in memory together. accumulation: such batches per optimiser step.
        checkpointing: the layers run forward a second time instead of being remembered.
        precision: ``bf16-mixed``: weights and optimiser in float32, products under autocast. ``bf16``: everything.
        head: ``recomputed``: log-probabilities chunk by chunk, as `collapsebench.token_log_probs` does.
            ``stored``: all logits of a batch, for losses that look at them.
        prompt_tokens, new_tokens: of a sample. beams: of the search; 1: drawn or greedy.
        sample_batch: samples written together.
    """

    block: int
    batch_size: int
    accumulation: int = 1
    checkpointing: bool = False
    precision: Literal["float32", "bf16-mixed", "bf16"] = "float32"
    head: Literal["recomputed", "stored"] = "recomputed"
    prompt_tokens: int = 1
    new_tokens: int = 1
    beams: int = 1
    sample_batch: int = 1


@dataclass(frozen=True)
class LmFlops:
    """FLOPs, a multiplication and an addition being two.

    Attributes:
        update: of an optimiser step: `accumulation` batches. sample: of one sample. window: of scoring one window.
    """

    update: int
    sample: int
    window: int


def causal_lm_flops(model: CausalLm, plan: LmPlan) -> LmFlops:
    """FLOPs of training, writing and scoring.

    Per token of a sequence of T: 2 · products in every layer, where products are its weights; attention to the tokens
    up to itself, 4 · query_width · (T + 1) / 2 per layer; 2 · V · D for each predicted token. Backward, the products
    cost twice and the attention 2.5 times the forward pass; a head that stores no logits computes them once more.
    Checkpointing runs the layers forward again, each but for its last product, where torch stops early. Beams share
    one reading of the prompt but for its last token; from there on each of them costs what a single sample does.
    """
    products, attention, head = _parts(model, plan.block, plan.block - 1)
    forward = products + attention
    last = 2 * model.layers * model.hidden_size * model.intermediate_size * plan.block
    again = forward - last if plan.checkpointing else 0  # nothing waits for what a layer's last product gives
    backward = 2 * products + round(_ATTENTION_BACKWARD * attention) + again
    heads = (4 if plan.head == "recomputed" else 3) * head
    reading = scoring_flops(model, plan.prompt_tokens - 1, 0)
    writing = scoring_flops(model, plan.prompt_tokens + plan.new_tokens - 1, plan.new_tokens) - reading
    return LmFlops(
        update=plan.accumulation * plan.batch_size * (forward + backward + heads),
        sample=reading + plan.beams * writing,
        window=forward + head,
    )


def scoring_flops(model: CausalLm, tokens: int, predicted: int) -> int:
    """FLOPs of a forward pass over a sequence, or of writing it token by token with a cache: they are the same.

    Args:
        tokens: that the layers see. predicted: tokens at which the vocabulary is scored.
    """
    return sum(_parts(model, tokens, predicted))


def _parts(model: CausalLm, tokens: int, predicted: int) -> tuple[int, int, int]:
    """Forward FLOPs of one sequence: products in the layers, attention, head."""
    pairs = tokens * (tokens + 1) // 2
    return (
        2 * model.layers * model.layer_products * tokens,
        4 * model.layers * model.query_width * pairs,
        2 * model.vocab_size * model.hidden_size * predicted,
    )


def causal_lm_memory(model: CausalLm, plan: LmPlan) -> Memory:
    """Bytes of training with AdamW, of writing with a key-value cache, and of scoring a batch of windows.

    Activations are what autograd keeps at the end of the forward pass, plus the head's work; a few temporary tensors
    of the backward pass come on top.
    """
    width = 2 if plan.precision == "bf16" else FLOAT  # bytes of a weight
    weights = width * model.parameters
    return Memory(
        weights,
        weights,
        STATES * weights,
        _activations(model, plan) + _head_memory(model, plan),
        _writing(model, plan, width),
        _scoring(model, plan, width),
    )


def _activations(model: CausalLm, plan: LmPlan) -> int:
    """What is kept of one batch, and one layer's worth more where the layers are run again."""
    tokens = plan.batch_size * plan.block
    d, q, k, mlp = model.hidden_size, model.query_width, model.key_width, model.intermediate_size
    inner = 2 * q + 2 * k + 4 * mlp  # query, output, key, value; gate, its activation, up, their product
    norms_and_inputs, product_width = {  # bytes per token: what the two norms keep, what the products read
        "float32": (2 * 4 * d * 3, 4),
        "bf16-mixed": (2 * 4 * d * 2 + 2 * d * 5, 2),  # each product casts its input
        "bf16": (2 * d * (4 + 2 + 2), 2),
    }[plan.precision]
    layer = tokens * (norms_and_inputs + product_width * inner + FLOAT * (model.heads + 2))
    stream = tokens * d * (2 if plan.precision == "bf16" else FLOAT)
    kept = model.layers * stream + layer if plan.checkpointing else model.layers * layer
    casts = 2 * model.layers * model.layer_products if plan.precision == "bf16-mixed" else 0
    return kept + 3 * stream + casts  # the last norm, and the head's input


def _head_memory(model: CausalLm, plan: LmPlan) -> int:
    tokens = plan.batch_size * (plan.block - 1)
    if plan.head == "stored":  # logits, their log-softmax, and the gradient of both
        return 3 * FLOAT * tokens * model.vocab_size
    logits = 2 * FLOAT * min(_CHUNK, tokens) * model.vocab_size
    return logits + 2 * FLOAT * model.vocab_size * model.hidden_size


def _writing(model: CausalLm, plan: LmPlan, width: int) -> int:
    """A cache for every beam, and the larger of reading the prompts, once for all beams, and drawing tokens."""
    rows = plan.sample_batch * plan.beams
    cache = 2 * model.layers * model.key_width * (plan.prompt_tokens + plan.new_tokens) * width
    reading = plan.sample_batch * _forward(model, plan.prompt_tokens) * width
    return rows * cache + max(rows * _DRAWING * FLOAT * model.vocab_size, reading)


def _scoring(model: CausalLm, plan: LmPlan, width: int) -> int:
    tokens = plan.batch_size * plan.block
    logits = _PREDICTING * FLOAT * min(_CHUNK, tokens) * model.vocab_size
    return max(_forward(model, tokens) * width, logits)


def _forward(model: CausalLm, tokens: int) -> int:
    """Numbers that a forward pass without gradients holds: the stream, and the wider of attention and MLP."""
    attention = 2 * model.query_width + 2 * model.key_width
    return tokens * (2 * model.hidden_size + max(attention, 4 * model.intermediate_size))
