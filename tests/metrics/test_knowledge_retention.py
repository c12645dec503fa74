"""The KR-test: log-probabilities by a plain softmax, the boundary where it should be, errors that name the item."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from harness_items import new_model
from real_data import REAL_DATA
from tiny_task import paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.errors import DataError
from collapsebench.metrics.knowledge_retention import (
    Answers,
    KnowledgeItem,
    answer,
    encode,
    fraction_accuracy,
    read_items,
)

torch.set_num_threads(1)

ITEMS = REAL_DATA / "krtest/kt_dataset_gpt_mini.json"
needs_real_data = pytest.mark.skipif(not ITEMS.is_file(), reason=f"{ITEMS} is absent")

MAX_LENGTH = 200
EOS, BOS = 0, 1


def new_tokenizer(bos: bool, regular: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE. Not `regular`: tokens may go across words, as ". T"."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regular)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(paragraphs(100), trainer)
    if not bos:
        return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<s>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer(bos=False)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return new_model(vocab_size=340).eval()


def some_items(n: int = 12) -> list[KnowledgeItem]:
    """Two sentences of one paragraph, and a sentence of another, usually of another length."""
    texts = [paragraph.split(". ") for paragraph in paragraphs(n + 1, 5)]
    return [
        KnowledgeItem(f"{one[0]}.", f"{one[1]}.", f"{other[1]} indeed.", 10 * i)
        for i, (one, other) in enumerate(pairwise(texts))
    ]


def by_hand(model: LlamaForCausalLM, tokenizer: Any, item: KnowledgeItem, shorter: bool = False) -> tuple[float, float]:
    """Mean log-probability of the true and of the false sentence, one text at a time, in float64."""
    start = len(tokenizer(item.context)["input_ids"])
    texts = [tokenizer(f"{item.context} {s}")["input_ids"] for s in (item.sentence_true, item.sentence_false)]
    means = []
    for ids in texts:
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        end = min(map(len, texts)) if shorter else len(ids)
        scored = [log_p[i - 1, ids[i]].item() for i in range(start, end)]
        means.append(sum(scored) / len(scored))
    return means[0], means[1]


# -------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("compared", ["sentence", "shorter"])
def test_margins_are_differences_of_mean_log_probabilities(bos: bool, compared: Any, model: LlamaForCausalLM) -> None:
    tokenizer, items = new_tokenizer(bos), some_items()
    means = [by_hand(model, tokenizer, item, shorter=compared == "shorter") for item in items]
    expected = torch.tensor([true - false for true, false in means], dtype=torch.float64)
    found = answer(model, tokenizer, items, 5, MAX_LENGTH, compared)
    torch.testing.assert_close(found.margins, expected, rtol=1e-4, atol=1e-5)
    assert expected.abs().min() > 1e-3, "no ties, so that rounding decides nothing"
    assert torch.equal(found.correct, expected > 0)
    assert 0 < found.accuracy < 1, "a test of nothing"
    assert found.accuracy == float((expected > 0).double().mean())


def test_what_the_shorter_sentence_leaves_out_does_not_count(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    long = [KnowledgeItem("It was built.", "The mill was old.", "The mill was old. And more.")]
    assert answer(model, tokenizer, long, 1, MAX_LENGTH, "shorter").margins.item() == pytest.approx(0, abs=1e-6)
    assert abs(answer(model, tokenizer, long, 1, MAX_LENGTH).margins.item()) > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_answers_do_not_depend_on_the_batch_size(
    batch_size: int, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = answer(model, tokenizer, some_items(), 100, MAX_LENGTH)
    parts = answer(model, tokenizer, some_items(), batch_size, MAX_LENGTH)
    torch.testing.assert_close(parts.margins, whole.margins, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.correct, whole.correct)


def test_every_token_is_reported(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    told: list[int] = []
    answer(model, tokenizer, some_items(), 1, MAX_LENGTH, on_batch=told.append)
    _, spans = encode(tokenizer, some_items(), MAX_LENGTH)
    assert sum(told) == int(spans[:, 1].sum())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_model_has_no_accuracy(
    value: float, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    weight = model.model.norm.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[3] = value
        found = answer(model, tokenizer, some_items(), 4, MAX_LENGTH)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert math.isnan(found.accuracy)
    assert not found.correct.any()


def test_a_tie_is_not_knowledge() -> None:
    margins = torch.tensor([0.0, 0.1], dtype=torch.float64)
    assert Answers(margins, margins > 0).accuracy == 0.5


# --------------------------------------------------------------------------------------------------------- the boundary


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("bos", [False, True])
def test_scored_tokens_hold_the_sentence_and_the_space_before_it(bos: bool, regular: bool) -> None:
    tokenizer, items = new_tokenizer(bos, regular), some_items()
    tokens, spans = encode(tokenizer, items, MAX_LENGTH)
    across = 0
    for i, (row, (start, end)) in enumerate(zip(tokens.tolist(), spans.tolist(), strict=True)):
        item = items[i // 2]
        sentence = (item.sentence_true, item.sentence_false)[i % 2]
        assert (row[0] == BOS) == bos
        assert BOS not in row[1:]
        assert tokenizer.decode(row[bos:end]) == f"{item.context} {sentence}"
        scored = tokenizer.decode(row[start:end])
        assert scored.endswith(f" {sentence}")
        assert not tokenizer.decode(row[start + 1 : end]).endswith(f" {sentence}"), "no token more than needed"
        across += scored != f" {sentence}"
    assert (across > 0) == (not regular), "only such a tokeniser joins the full stop and the space"


def test_spaces_around_context_and_sentence_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    clean = encode(tokenizer, [KnowledgeItem("A mill.", "It burnt.", "It stands.")], MAX_LENGTH)
    loose = encode(tokenizer, [KnowledgeItem(" A mill.\n", " It burnt. ", "\tIt stands.")], MAX_LENGTH)
    assert all(torch.equal(a, b) for a, b in zip(clean, loose, strict=True))


@pytest.mark.parametrize("bos", [False, True])
def test_a_long_context_loses_its_beginning(bos: bool, model: LlamaForCausalLM) -> None:
    tokenizer, item = new_tokenizer(bos), some_items(1)[0]
    long = KnowledgeItem(" ".join(paragraphs(9)) + " " + item.context, item.sentence_true, item.sentence_false)
    whole, whole_spans = encode(tokenizer, [long], 10_000)
    tokens, spans = encode(tokenizer, [long], 60)
    for row, (start, end), all_of_it, (first, last) in zip(
        tokens.tolist(), spans.tolist(), whole.tolist(), whole_spans.tolist(), strict=True
    ):
        assert end == 60
        assert end - start == last - first, "the sentence is whole"
        assert row[bos:end] == all_of_it[last - 60 + bos : last]
        assert row[:bos] == [BOS] * bos
    assert answer(model, tokenizer, [long], 2, 60).margins.isfinite().all()


def test_a_sentence_that_the_model_cannot_read_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    items = [KnowledgeItem("A.", "B.", "C."), KnowledgeItem("A.", "B.", " ".join(paragraphs(3)))]
    with pytest.raises(DataError, match=r"item 1 has a sentence of \d+ tokens; the model reads 40") as caught:
        encode(tokenizer, items, 40)
    assert "\n" not in str(caught.value)


def test_an_empty_context_is_replaced(model: LlamaForCausalLM) -> None:
    item = KnowledgeItem("", "The mill burnt.", "The mill was painted red.")
    for bos, before in ((False, EOS), (True, BOS)):
        tokenizer = new_tokenizer(bos)
        tokens, spans = encode(tokenizer, [item], MAX_LENGTH)
        assert spans[:, 0].tolist() == [1, 1]
        assert tokens[:, 0].tolist() == [before, before]
        assert tokenizer.decode(tokens[0, 1 : spans[0, 1]]) == "The mill burnt."
    neither = new_tokenizer(bos=False)
    neither.eos_token = None
    with pytest.raises(DataError, match="item 0 has no context"):
        encode(neither, [item], MAX_LENGTH)


# ------------------------------------------------------------------------------------------------------------- the file

ROW = {"context": "A mill.", "sentence_true": "It burnt.", "sentence_false": "It stands.", "location": 51}


def saved(folder: Path, content: Any) -> Path:
    file = folder / "kr.json"
    file.write_text(json.dumps(content), "utf-8")
    return file


def test_a_list_and_both_kinds_of_object_are_read(tmp_path: Path) -> None:
    other = ROW | {"context": "", "location": 1}
    expected = [
        KnowledgeItem("A mill.", "It burnt.", "It stands.", 51),
        KnowledgeItem("", "It burnt.", "It stands.", 1),
    ]
    for content in ([ROW, other], {"data": [ROW, other]}, {"first": ROW, "second": other}):
        assert read_items(saved(tmp_path, content)) == expected
    without = {key: value for key, value in ROW.items() if key != "location"}
    assert read_items(saved(tmp_path, [without | {"source": "me"}]))[0].location is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ROW, {"context": "A.", "sentence_true": "B."}], "item 1: sentence_false must be a text, found 'nothing'"),
        ([ROW | {"context": None}], "item 0: context must be a text, found None"),
        ([ROW | {"sentence_true": 3}], "item 0: sentence_true must be a text, found 3"),
        ([ROW | {"sentence_true": " "}], "item 0: sentence_true is empty"),
        ([ROW | {"location": "51"}], "item 0: location must be a whole number, at least 0, found '51'"),
        ([ROW | {"location": True}], "location must be a whole number"),
        ([ROW | {"location": -1}], "location must be a whole number"),
        ([ROW, ROW, "text"], "item 2: expected an object"),
        ([], "expected a list of items"),
        ({}, "expected a list of items"),
        ("text", "expected a list of items"),
    ],
)
def test_a_wrong_item_is_named_by_index_and_key(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_items(saved(tmp_path, content))
    assert "kr.json" in str(caught.value)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json cannot be read"):
        read_items(tmp_path / "absent.json")
    (tmp_path / "kr.json").write_text("[{", "utf-8")
    with pytest.raises(DataError, match=r"kr\.json cannot be read as JSON"):
        read_items(tmp_path / "kr.json")
    (tmp_path / "kr.json").write_bytes(b'["\xe9"]')
    with pytest.raises(DataError, match=r"kr\.json cannot be read as JSON"):
        read_items(tmp_path / "kr.json")


# ------------------------------------------------------------------------------------------------------------ fractions


def test_each_fraction_has_its_own_accuracy() -> None:
    correct = [True, False, True, True, False, True]
    found = fraction_accuracy([0, 0, 1, 1, 2, 4], correct, 5)
    assert [(part.value, part.n) for part in found if part.n] == [(0.5, 2), (1.0, 2), (0.0, 1), (1.0, 1)]
    assert fraction_accuracy([0, 0, 1, 1, 2, 4], torch.tensor(correct), 5)[:3] == found[:3]
    assert math.isnan(found[3].value)
    assert found[3].n == 0


@needs_real_data
def test_the_papers_file_is_read_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    items = read_items(ITEMS)
    assert len(items) == 4975
    locations = [item.location for item in items]
    assert locations == sorted(locations, key=lambda location: location or 0)
    assert locations[0] == 1
    assert (locations[-1] or 0) < 36718
    _, spans = encode(tokenizer, items[:200], 10_000)
    assert (spans[:, 1] > spans[:, 0]).all()
