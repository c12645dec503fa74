"""Knowledge pairs: what is exchanged, that only knowledge can tell; and the diversity of samples, by brute force."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_task import paragraphs

from collapsebench.metrics.diversity import distinct, repetition, unigram_kl
from collapsebench.metrics.knowledge_pairs import Pair, Slot, build_pairs
from collapsebench.task import load_task
from collapsebench.workloads.text import workload as text
from collapsebench.workloads.text.workload import TextWorkload

TEXT = paragraphs(240)
ARTICLES = ["\n".join(TEXT[i : i + 6]) for i in range(0, 240, 6)]
PAIRS = build_pairs(ARTICLES, 10_000)


def test_text_holds_pairs_of_every_sort() -> None:
    kinds = Counter(pair.first.kind.split()[0] for pair in PAIRS)
    assert len(PAIRS) > 50
    assert set(kinds) == {"date", "year", "number", "name"}


def test_construction_is_deterministic() -> None:
    assert build_pairs(ARTICLES, 10_000) == PAIRS


def content(slot: Slot) -> tuple[str, str, str, str]:
    return slot.kind, slot.before, slot.text, slot.after


def test_pairs_and_their_order_depend_on_the_text_and_not_on_the_order_of_articles() -> None:
    reversed_pairs = build_pairs(ARTICLES[::-1], 10_000)
    assert [(content(p.first), content(p.second)) for p in reversed_pairs] == [
        (content(p.first), content(p.second)) for p in PAIRS
    ]


@pytest.mark.parametrize("n", [0, 1, 17])
def test_no_more_pairs_than_wanted_and_those_are_the_first(n: int) -> None:
    assert build_pairs(ARTICLES, n) == PAIRS[:n]


def test_pairs_exchange_entities_of_one_kind_from_different_articles() -> None:
    for pair in PAIRS:
        assert pair.first.kind == pair.second.kind
        assert pair.first.article != pair.second.article
        assert pair.first.text != pair.second.text


def test_no_slot_is_used_twice() -> None:
    slots = [slot for pair in PAIRS for slot in (pair.first, pair.second)]
    assert len(set(slots)) == len(slots)


def test_true_versions_are_in_their_article() -> None:
    for pair in PAIRS:
        first_true, _, second_true, _ = pair.versions()
        for slot, version in ((pair.first, first_true), (pair.second, second_true)):
            assert "".join(version) in ARTICLES[slot.article]


def test_false_versions_differ_in_the_entity_alone() -> None:
    for pair in PAIRS:
        first_true, first_false, second_true, second_false = pair.versions()
        for slot, other, true, false in (
            (pair.first, pair.second, first_true, first_false),
            (pair.second, pair.first, second_true, second_false),
        ):
            assert true == (slot.before, slot.text + slot.after)
            assert false == (slot.before, other.text + slot.after)


def test_names_are_exchanged_for_names_that_the_article_never_mentions() -> None:
    names = [pair for pair in PAIRS if pair.first.kind.startswith("name")]
    assert names
    for pair in names:
        assert pair.second.text not in ARTICLES[pair.first.article]
        assert pair.first.text not in ARTICLES[pair.second.article]


@pytest.mark.parametrize(
    ("sentence", "kind", "entity"),
    [
        ("The harbour of the old town was built in 1850, as all agree.", "year", "1850"),
        ("The harbour of the old town was opened on 14 March by the mayor.", "date", "14 March"),
        ("The harbour of the old town was opened on March 14 by the mayor.", "date", "March 14"),
        ("The harbour of the old town once had about 1200 boats and 350 sailors.", "number", "350"),
        ("The harbour of the old town was painted by Mary Stone and forgotten.", "name after by", "Mary Stone"),
        ("The harbour was moved from the old town to Lindale, far away.", "name after to", "Lindale"),
    ],
)
def test_entities_are_recognised(sentence: str, kind: str, entity: str) -> None:
    from collapsebench.metrics.knowledge_pairs import _slots

    found = [slot for slot in _slots([sentence]) if slot.kind == kind]
    assert [slot.text for slot in found] == [entity]
    assert sentence.startswith(found[0].before + found[0].text + found[0].after)


def test_text_without_partners_gives_no_pairs() -> None:
    assert build_pairs([], 10) == []
    assert build_pairs(ARTICLES[:1], 10) == []
    assert build_pairs(["", "nothing here", "Nor here, at all."], 10) == []


def score(pairs: list[Pair], log_p) -> float:
    """Pair accuracy, as `TextWorkload` computes it, of a scorer of (context, text)."""
    workload = TextWorkload.__new__(TextWorkload)
    values = [log_p(*version) for pair in pairs for version in pair.versions()]
    workload.text = type("Text", (), {"pair_tokens": values, "pair_spans": None})()
    original = text.continuation_log_probs
    text.continuation_log_probs = lambda *_: torch.tensor(values, dtype=torch.float64)
    try:
        return workload._pair_accuracy(None, 1)["pair_accuracy"].value
    finally:
        text.continuation_log_probs = original


def test_preference_for_frequent_entities_never_counts_as_knowledge() -> None:
    """A scorer that knows how common an entity is, but not where it belongs, ties on every pair; ties are wrong."""
    counts = Counter(word for article in ARTICLES for word in article.replace(".", " ").replace(",", " ").split())
    total = sum(counts.values())
    entities = {slot.text for pair in PAIRS for slot in (pair.first, pair.second)}

    def prior(_: str, scored: str) -> float:
        entity = max((e for e in entities if scored.startswith(e)), key=len)
        return sum(math.log((counts[word] + 1) / total) for word in entity.split())

    assert score(PAIRS, prior) == 0.0
    assert score(PAIRS, lambda *_: -1.0) == 0.0


def test_scorer_that_knows_the_text_gets_every_pair() -> None:
    known = "\n".join(ARTICLES)
    assert score(PAIRS, lambda before, scored: 0.0 if before[-60:] + scored in known else -1.0) == 1.0


def test_scorer_without_knowledge_gets_half_of_the_pairs() -> None:
    draws = np.random.default_rng(0)
    many = PAIRS * 20
    assert score(many, lambda *_: float(draws.normal())) == pytest.approx(0.5, abs=3 / math.sqrt(len(many)))


def test_pair_tensors_hold_the_four_versions_and_score_the_entity_and_what_follows(tiny: Path) -> None:
    workload = TextWorkload(load_task(tiny), "cpu")
    data = workload.text
    from collapsebench.workloads.text.data import task_splits

    pairs = build_pairs([d.text for d in task_splits(load_task(tiny))["train"]], 20)
    assert len(data.pair_tokens) == len(data.pair_spans) == 4 * len(pairs) == 80
    versions = [version for pair in pairs for version in pair.versions()]
    for (before, scored), row, (start, end) in zip(versions, data.pair_tokens, data.pair_spans.tolist(), strict=True):
        assert 1 <= start < end
        assert data.tokenizer.decode(row[start:end].tolist()).strip() == scored
        context = data.tokenizer.decode(row[:start].tolist(), skip_special_tokens=True)
        assert before.rstrip().endswith(context)


# Diversity

WINDOWS = arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 3))


def grams(row: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


@given(tokens=WINDOWS, n=st.integers(1, 5))
def test_distinct_counts_different_ngrams(tokens: np.ndarray, n: int) -> None:
    everything = [gram for row in tokens.tolist() for gram in grams(row, n)]
    assert distinct(tokens, n) == pytest.approx(len(set(everything)) / max(len(everything), 1))


@given(tokens=WINDOWS, n=st.integers(1, 5))
def test_repetition_counts_ngrams_seen_before_in_the_same_sample(tokens: np.ndarray, n: int) -> None:
    repeated = total = 0
    for row in tokens.tolist():
        seen: set[tuple[int, ...]] = set()
        for gram in grams(row, n):
            repeated += gram in seen
            total += 1
            seen.add(gram)
    if total:
        assert repetition(tokens, n) == pytest.approx(repeated / total)


@given(tokens=WINDOWS, real=arrays(np.int64, 4, elements=st.integers(0, 50)))
def test_unigram_kl_is_the_sum_by_hand_and_never_negative(tokens: np.ndarray, real: np.ndarray) -> None:
    counts, n, total = Counter(tokens.ravel().tolist()), tokens.size, int(real.sum()) + 4
    expected = sum(c / n * math.log((c / n) / ((int(real[token]) + 1) / total)) for token, c in counts.items())
    assert unigram_kl(tokens, real) == pytest.approx(expected, abs=1e-12)
    assert expected > -1e-12


def test_samples_like_the_real_text_have_no_distance() -> None:
    assert unigram_kl(np.array([[0, 1, 2, 3]]), np.array([9, 9, 9, 9])) == pytest.approx(0.0, abs=1e-12)


def test_one_token_over_and_over_is_all_repetition() -> None:
    tokens = np.zeros((3, 104), dtype=np.int32)
    assert repetition(tokens) == pytest.approx(1 - 1 / 101)
    assert distinct(tokens, 4) == pytest.approx(1 / 303)
