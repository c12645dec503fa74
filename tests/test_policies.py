"""Data policies as pure functions: how many items, from where, exactly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from collapsebench.errors import DataError
from collapsebench.policies import (
    REAL,
    TrainingSet,
    choose,
    concatenate,
    control_training_set,
    first_training_set,
    fraction,
    generations_read,
    next_training_set,
    prompts,
)
from collapsebench.task_spec import Policy

HORIZON = 4
ALL = ["replace", "accumulate", "accumulate-subsample", "mix", "fresh-mix", "regenerate-fresh"]


def policy(name: str, size: int = 20, real_share: float = 0.3) -> Policy:
    return Policy(name=name, size=size, real_share=real_share if "mix" in name else None)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def numbered(n: int, made_by: int) -> TrainingSet:
    """Items that say what they are: 1000 · source + index, in two equal columns."""
    ids = 1000 * (made_by + 1) + torch.arange(n)
    return TrainingSet.of(torch.stack([ids, ids], dim=1), made_by)


REAL_DATA = numbered(50, REAL)


def samples_of(size: int = 20):
    return lambda g: numbered(size, g)


def compose(name: str, generation: int, size: int = 20, real_share: float = 0.3) -> TrainingSet:
    return next_training_set(
        policy(name, size, real_share), generation, HORIZON, REAL_DATA, samples_of(size), generator()
    )


def counts(data: TrainingSet) -> dict[int, int]:
    """Items per source; checks that every item still carries its own source."""
    assert torch.equal(data.items[:, 0] // 1000 - 1, data.made_by.long())
    return dict(Counter(data.made_by.tolist()))


def ids(data: TrainingSet) -> list[int]:
    return data.items[:, 0].tolist()


@pytest.mark.parametrize("g", [1, 3])
def test_replace_is_the_last_generations_samples_in_order(g: int) -> None:
    data = compose("replace", g)
    assert counts(data) == {g - 1: 20}
    assert ids(data) == ids(numbered(20, g - 1))


@pytest.mark.parametrize("g", [1, 2, 4])
def test_accumulate_is_all_real_data_and_all_samples(g: int) -> None:
    data = compose("accumulate", g)
    assert counts(data) == {REAL: 50, **dict.fromkeys(range(g), 20)}
    assert len(set(ids(data))) == 50 + 20 * g


@pytest.mark.parametrize("g", [1, 2, 4])
def test_accumulate_subsample_draws_its_size_from_all_that_was_accumulated(g: int) -> None:
    data = compose("accumulate-subsample", g)
    assert len(data) == len(set(ids(data))) == 20
    assert set(ids(data)) <= set(ids(compose("accumulate", g)))
    assert REAL in counts(data)
    assert set(counts(data)) - {REAL}


@pytest.mark.parametrize(("share", "size", "real"), [(0.3, 20, 6), (0.5, 20, 10), (0.05, 20, 1), (0.9, 30, 27)])
def test_mix_has_exactly_its_share_of_real_items(share: float, size: int, real: int) -> None:
    data = compose("mix", 2, size, share)
    assert counts(data) == {REAL: real, 1: size - real}
    assert len(set(ids(data))) == size


def test_mix_of_a_share_below_half_an_item_has_no_real_item() -> None:
    assert counts(compose("mix", 1, 20, 0.01)) == {0: 20}


def test_mix_of_a_share_near_one_has_no_sample() -> None:
    assert counts(compose("mix", 1, 20, 0.99)) == {REAL: 20}


def test_fresh_mix_brings_its_share_of_real_items_that_nobody_saw_before() -> None:
    """Generation 0 has what is left of the 50 items, and each of 4 generations 6 of the 24 kept for them."""
    seen = ids(first_training_set(policy("fresh-mix"), REAL_DATA, HORIZON))
    assert seen == ids(REAL_DATA)[:26]
    for g in range(1, HORIZON + 1):
        data = compose("fresh-mix", g)
        assert counts(data) == {REAL: 6, g - 1: 14}
        assert len(set(ids(data))) == 20
        seen += [i for i, source in zip(ids(data), data.made_by.tolist(), strict=True) if source == REAL]
    assert seen == ids(REAL_DATA)


def test_the_control_of_fresh_mix_has_the_same_new_items_and_else_those_of_generation_0() -> None:
    for g in range(1, HORIZON + 1):
        data = control_training_set(policy("fresh-mix"), g, HORIZON, REAL_DATA, generator())
        assert ids(data)[:6] == ids(compose("fresh-mix", g))[:6]
        assert set(ids(data)[6:]) <= set(ids(REAL_DATA)[:26])
        assert len(set(ids(data))) == 20


def test_too_few_real_items_for_fresh_mix_are_refused() -> None:
    told = r"20 real items for generation 0 and 6 new ones for each of generations 1 to 4, 44 in all.* only 43"
    with pytest.raises(DataError, match=told):
        first_training_set(policy("fresh-mix"), REAL_DATA[:43], HORIZON)
    assert len(first_training_set(policy("fresh-mix"), REAL_DATA[:44], HORIZON)) == 20


@pytest.mark.parametrize("g", [1, 4])
def test_regenerate_fresh_is_everything_rewritten_and_a_new_fraction(g: int) -> None:
    data = compose("regenerate-fresh", g)
    fresh = fraction(REAL_DATA, g, HORIZON + 1)
    assert counts(data) == {g - 1: 20, REAL: len(fresh)}
    assert ids(data)[20:] == ids(fresh)


def test_regenerate_fresh_grows_by_one_fraction_per_generation() -> None:
    """As the loop plays it: every item of a training set is rewritten once."""
    spec = policy("regenerate-fresh")
    sizes, written = [], {}
    data = first_training_set(spec, REAL_DATA, HORIZON)
    for g in range(HORIZON + 1):
        if g > 0:
            data = next_training_set(spec, g, HORIZON, REAL_DATA, written.__getitem__, generator())
        sizes.append(len(data))
        written[g] = TrainingSet.of(prompts(spec, data, generator()).items, g)
    assert sizes == [10, 20, 30, 40, 50]
    assert sorted(ids(data)) == ids(REAL_DATA)


@given(n=st.integers(1, 200), parts=st.integers(1, 50))
def test_fractions_are_disjoint_cover_all_and_are_nearly_equal(n: int, parts: int) -> None:
    pieces = [fraction(numbered(n, REAL), i, parts) for i in range(parts)]
    assert [i for piece in pieces for i in ids(piece)] == ids(numbered(n, REAL))
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", ALL)
def test_generation_0_is_real(name: str) -> None:
    data = first_training_set(policy(name), REAL_DATA, HORIZON)
    assert ids(data) == ids(REAL_DATA)[: {"regenerate-fresh": 10, "fresh-mix": 26}.get(name, 50)]
    assert set(counts(data)) == {REAL}


def test_less_real_data_than_fractions_is_refused() -> None:
    with pytest.raises(DataError, match=r"5 fractions, but it has only 4 items"):
        first_training_set(policy("regenerate-fresh"), REAL_DATA[:4], HORIZON)
    assert len(first_training_set(policy("regenerate-fresh"), REAL_DATA[:5], HORIZON)) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("generation", [1, 2, HORIZON])
def test_control_has_as_many_items_as_the_policy_all_real(name: str, generation: int) -> None:
    data = control_training_set(policy(name), generation, HORIZON, REAL_DATA, generator())
    assert set(counts(data)) == {REAL}
    rewritten = len(REAL_DATA) // (HORIZON + 1) * generation  # regenerate-fresh rewrites all fractions so far
    assert len(data) == len(compose(name, generation, rewritten if name == "regenerate-fresh" else 20))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("generation", [1, 2, HORIZON])
def test_a_policy_reads_the_generations_that_it_says(name: str, generation: int) -> None:
    asked: list[int] = []

    def samples(g: int) -> TrainingSet:
        asked.append(g)
        return numbered(20, g)

    next_training_set(policy(name), generation, HORIZON, REAL_DATA, samples, generator())
    assert asked == list(generations_read(policy(name), generation))
    assert list(generations_read(policy(name), 0)) == []


@pytest.mark.parametrize("name", ALL)
def test_prompts_come_from_the_generations_own_training_set(name: str) -> None:
    data = compose("accumulate", 2)
    starts = prompts(policy(name), data, generator())
    assert set(ids(starts)) <= set(ids(data))
    assert len(starts) == (len(data) if name == "regenerate-fresh" else 20)


@given(n=st.integers(0, 120), size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_choose_repeats_an_item_only_after_all_others(n: int, size: int, seed: int) -> None:
    chosen = choose(numbered(size, 2), n, generator(seed))
    assert len(chosen) == n
    assert set(chosen.made_by.tolist()) <= {2}
    per_item = Counter(ids(chosen))
    assert max(per_item.values(), default=0) == -(-n // size)
    assert all(per_item[i] >= n // size for i in ids(numbered(size, 2)))


def test_choose_depends_on_the_generator_alone() -> None:
    first, second, other = (ids(choose(REAL_DATA, 20, generator(seed))) for seed in (1, 1, 2))
    assert first == second != other


def test_concatenate_keeps_order_and_provenance() -> None:
    data = concatenate([numbered(2, 1), numbered(3, REAL), numbered(1, 0)])
    assert data.made_by.tolist() == [1, 1, REAL, REAL, REAL, 0]
    assert counts(data) == {1: 2, REAL: 3, 0: 1}


def test_policies_leave_their_inputs_alone() -> None:
    before = REAL_DATA.items.clone()
    for name in ALL:
        compose(name, 2)
    assert torch.equal(REAL_DATA.items, before)


def test_items_without_provenance_are_impossible() -> None:
    with pytest.raises(AssertionError):
        TrainingSet(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int16))
