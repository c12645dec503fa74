"""JSON from strangers: the bounds hold before anything large is built; what is within them is read as it is."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from submission_files import HANGING

from collapsebench.publishing.bounded_json import MAX_BYTES, MAX_DEPTH, MAX_KEYS, MAX_VALUES, Unreadable, parse_bounded

scalars = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
marks = st.text(st.sampled_from('[]{},:"\\ ü\n'))
values = st.recursive(
    scalars | st.text() | marks,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | marks, inner, max_size=5),
    max_leaves=20,
).filter(lambda value: depth(value) <= MAX_DEPTH)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def refusal(content: bytes) -> Unreadable:
    """The reason why a text is refused; refusing must be fast for any text."""
    start = time.perf_counter()
    with pytest.raises(Unreadable) as caught:
        parse_bounded(content)
    assert time.perf_counter() - start < HANGING
    assert caught.value.given.isprintable()
    assert len(caught.value.given) < 200
    return caught.value


# what is read


@given(values)
@example({"": {}, "[": [[], "]"], '"\\': ['"', "\\", '\\"', "\\\\"]})
@example([-0.0, 5e-324, 1.7976931348623157e308, 10**18, "\x00", "\u2028"])
def test_what_json_writes_within_the_bounds_is_read_back(value):
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert parse_bounded(text.encode()) == value


@given(st.text(st.sampled_from('[]{},:"\\ut0123eE+-.naN ')))
def test_any_text_is_read_as_json_loads_reads_it_or_refused(text):
    with suppress(Unreadable):
        assert parse_bounded(text.encode()) == json.loads(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content):
    with suppress(Unreadable):
        assert parse_bounded(content) == json.loads(content.decode())


def test_numbers_keep_their_types():
    found = parse_bounded(b"[3, 3.0, -0, -0.0, 1e3, true]")
    assert [type(value) for value in found] == [int, float, int, float, float, bool]
    assert math.copysign(1, found[3]) == -1


# bounds


def test_the_largest_file_is_read_and_one_byte_more_is_refused():
    text = b'"' + b"x" * (MAX_BYTES - 2) + b'"'
    assert len(parse_bounded(text)) == MAX_BYTES - 2
    assert refusal(text + b" ").code == "too-large"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_the_deepest_nesting_is_read_and_one_more_is_refused(opening, closing):
    levels = MAX_DEPTH // (opening.count("[") + opening.count("{"))
    assert depth(parse_bounded((opening * levels + "1" + closing * levels).encode())) == MAX_DEPTH
    deeper = opening * (levels + 1) + "1" + closing * (levels + 1)
    assert refusal(deeper.encode()).code == "too-deep"


def test_depth_is_how_deep_it_gets_not_how_many_brackets_there_are():
    flat = "[" + ",".join(["[[]]"] * 1000) + "]"
    assert len(parse_bounded(flat.encode())) == 1000


@pytest.mark.parametrize("item", ["0", '""', "{}", "[]", '{"a":1}'])
def test_the_number_of_values_is_bounded(item):
    assert refusal(f"[{','.join([item] * (MAX_VALUES + 1))}]".encode()).code == "too-many-values"
    few = MAX_VALUES // 2 - 1
    assert len(parse_bounded(f"[{','.join([item] * few)}]".encode())) == few


def test_the_number_of_keys_of_an_object_is_bounded():
    assert len(parse_bounded(json.dumps({str(i): i for i in range(MAX_KEYS)}).encode())) == MAX_KEYS
    assert refusal(json.dumps([{str(i): i for i in range(MAX_KEYS + 1)}]).encode()).code == "too-many-keys"


@pytest.mark.parametrize("mark", ["[", "]", "{", "}", ",", ":", '\\"[', "\\\\", '\\"', "\\u005b"])
def test_marks_in_strings_do_not_count(mark):
    text = f'{{"{mark}": ["{mark * (MAX_VALUES + 1)}", "{mark}"]}}'
    assert parse_bounded(text.encode()) == json.loads(text)


def test_a_string_does_not_hide_the_brackets_after_it():
    for string in ('"\\\\"', '"\\""', '"\\\\\\""', '"\\u0022"', '""'):
        assert refusal(f"[{string},{'[' * MAX_DEPTH}{']' * MAX_DEPTH}]".encode()).code == "too-deep"


# what is ambiguous, or not JSON


DUPLICATES = ['{"a":1,"a":1}', '[{"b":{"a":1,"c":2,"a":{}}}]', '{"a":1,"\\u0061":2}', '{"":0,"":0}']


@pytest.mark.parametrize("text", [*DUPLICATES, '{"\\ud800":1,"\\ud800":2}', '{"\\u202e\\u001b":1,"\\u202e\\u001b":2}'])
def test_a_key_twice_is_refused(text):
    assert refusal(text.encode()).code == "duplicate-key"


def test_one_key_at_different_places_is_no_duplicate():
    text = b'{"a":{"a":[{"a":1},{"a":2}]},"A":0}'
    assert parse_bounded(text) == json.loads(text)


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e400", "1" + "0" * 400 + ".0", "1e99999999999999999999"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("around", ["%s", "[%s]", '{"a":[0,%s]}'])
def test_numbers_that_are_not_finite_are_refused(number, around):
    assert refusal((around % number).encode()).code == "not-finite"


@pytest.mark.parametrize("digits", [21, 5_000, MAX_BYTES - 10])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_of_many_digits_are_refused(digits, sign):
    assert refusal(f"[{sign}{'9' * digits}]".encode()).code == "not-finite"


@pytest.mark.parametrize("number", ["0.%s", "1.%se-300", "1e-%s", "%s.0e-1000000", "1e%s", "%s.0"])
def test_floats_of_many_digits_take_no_time(number):
    start = time.perf_counter()
    with suppress(Unreadable):
        assert math.isfinite(parse_bounded((number % ("7" * (MAX_BYTES - 20))).encode()))
    assert time.perf_counter() - start < HANGING


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "}", "[1,]", '{"a":1,}', '{"a"}', "{a:1}", "{'a':1}", "[1 2]", "01", "+1", ".5", "1.", "0x10",
        "nan", "True", "None", "undefined", "// x\n1", "/**/1", '"\t"', '"\n"', '"\\x41"', '"\\u12"', '"abc',
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(text):
    assert refusal(text.encode()).code == "not-json"


@pytest.mark.parametrize("rest", ["x", "{}", "[]", "\x00", "\ufeff", ",", "//", "\x1a"])
def test_anything_after_the_value_is_refused(rest):
    assert parse_bounded(b'{"a":1}\n') == {"a": 1}
    assert refusal(('{"a":1}' + rest).encode()).code == "not-json"


def test_a_byte_order_mark_is_refused():
    assert refusal(b'\xef\xbb\xbf{"a":1}').code == "not-json"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_refused(encoding):
    assert refusal('{"ä":1}'.encode(encoding)).code in {"not-utf8", "not-json"}


@pytest.mark.parametrize("stray", [b"\xff", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_bytes_that_are_not_utf8_are_refused(stray):
    assert refusal(b'{"a":"' + stray + b'"}').code == "not-utf8"


# hostile sizes


@pytest.mark.parametrize(
    "content",
    [
        b"[" * MAX_BYTES, b"]" * MAX_BYTES, b"[]" * (MAX_BYTES // 2), b'{"a":' * (MAX_BYTES // 5), b"," * MAX_BYTES,
        b'"' * MAX_BYTES, b'"' + b"\\n" * (MAX_BYTES // 2 - 1), b'"' + b"\\" * (MAX_BYTES - 1),
        b'"' + b"\\u0000" * (MAX_BYTES // 6 - 1), b'["' + b'\\"' * (MAX_BYTES // 2 - 1), b"\\" * MAX_BYTES,
        b'"a' * (MAX_BYTES // 2), b'"\\' * (MAX_BYTES // 2), b"\x00" * MAX_BYTES, b" " * MAX_BYTES, b"-" * MAX_BYTES,
        b'{"' + b"k" * (MAX_BYTES // 3) + b'":1,"' + b"k" * (MAX_BYTES // 3) + b'":1}',
    ],
    ids=range(17),
)  # fmt: skip
def test_two_megabytes_of_anything_are_refused_at_once(content):
    refusal(content[:MAX_BYTES])
