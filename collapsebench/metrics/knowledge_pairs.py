"""Knowledge-retention pairs, built without a language model.

ForTIFAI (arXiv 2509.08972) asks a large model for a true and a false continuation of every training passage
(KR-test). Here two sentences of different training articles *exchange* one name, number or date of the same kind, so
that all four versions stay grammatical and only knowledge of the training text tells true from false. A model
answers a pair correctly when the two true sentences together have a higher log-probability than the two false ones.
Scoring both at once matters: a frequent year is more likely than a rare one in any sentence. This preference is not
knowledge, and it cancels. Chance is exactly one half.

The construction is deterministic and needs no network.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAY = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_NAME = r"[A-Z][a-zé]{2,}(?: [A-Z][a-zé]{2,}){0,2}"
# What may follow a swapped name: punctuation or a word that cannot belong to the name's own noun phrase.
_NAME_END = r"(?=[,.;]| (?:and|or|in|on|at|by|for|from|to|with|was|is|were|are|had|has|who|which|as|but|when|where)\b)"
# One pattern per kind; group 1 is exchanged. The kind of a name includes the preposition before it.
_KINDS: dict[str, re.Pattern[str]] = {
    "date": re.compile(rf"\b((?:{_MONTH}) \d{{1,2}}|\d{{1,2}} (?:{_MONTH}))\b(?!\d)"),
    "year": re.compile(
        r"\b(?:in|since|until|by|of|after|before|around|during) (1[0-9]{3}|20[01][0-9])(?=[,.;]| [a-z])"
    ),
    "number": re.compile(r"(?<![\d.,$£€–-])\b([1-9]\d{1,2}(?:,\d{3})*)(?= (?:[a-z]|%)|%)(?! (?:January|BC|AD)\b)"),
    **{
        f"name after {word}": re.compile(rf"\b{word} ({_NAME}){_NAME_END}")
        for word in ("in", "by", "from", "of", "with", "to")
    },
}
_NOT_A_NAME = re.compile(rf"^(?:{_MONTH}|{_DAY})\b|(?:ism|ish|ese|ian|ians|ans|ics)$")
_SENTENCE = re.compile(r"(?<=[a-z0-9)][.!?]) (?=[A-Z])")
_MIN_SENTENCE = 40  # characters
_AFTER = 40  # characters of the sentence that are scored after the entity
_LOOK_AHEAD = 30  # candidates tried as a partner
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|St|Mr|Mrs|Dr|Jr|Sr|vs|c|ca|e\.g|i\.e|No|Lt|Gen|Col|Capt)\.$")


@dataclass(frozen=True)
class Slot:
    """An exchangeable entity in a training sentence.

    Attributes:
        article: index of the article. kind: kind of entity (``year``, ``number``, ``date``, ``name after in``, …).
        before: context and the sentence up to the entity. text: the entity. after: the rest of the sentence.
    """

    article: int
    kind: str
    before: str
    text: str
    after: str


@dataclass(frozen=True)
class Pair:
    """Two slots of the same kind from different articles; the false version of each has the other's entity."""

    first: Slot
    second: Slot

    def versions(self) -> list[tuple[str, str]]:
        """(context, scored text) of: first true, first false, second true, second false."""
        a, b = self.first, self.second
        return [
            (a.before, a.text + a.after),
            (a.before, b.text + a.after),
            (b.before, b.text + b.after),
            (b.before, a.text + b.after),
        ]


def build_pairs(articles: Sequence[str], n: int) -> list[Pair]:
    """Build up to `n` pairs from the training articles.

    Args:
        articles: the training documents, paragraphs separated by newlines.
        n: number of pairs wanted; fewer are returned if the text does not contain enough.

    Returns:
        The pairs, in an order that depends only on the text. No entity is used twice.
    """
    groups: dict[tuple[str, object], list[Slot]] = defaultdict(list)
    for slot in sorted(_slots(articles), key=_shuffled):
        groups[slot.kind, _shape(slot)].append(slot)
    pairs = [pair for group in groups.values() for pair in _match(group, articles)]
    return sorted(pairs, key=lambda pair: _shuffled(pair.first))[:n]


def _match(group: list[Slot], articles: Sequence[str]) -> Iterable[Pair]:
    """Pair up the slots of one kind, each with the next one that fits."""
    waiting = list(group)
    while waiting:
        first = waiting.pop()
        for position in range(len(waiting) - 1, max(-1, len(waiting) - _LOOK_AHEAD), -1):
            second = waiting[position]
            if _exchangeable(first, second, articles):
                yield Pair(first, waiting.pop(position))
                break


def _exchangeable(a: Slot, b: Slot, articles: Sequence[str]) -> bool:
    if a.article == b.article or a.text == b.text:
        return False
    if a.kind.startswith("name"):  # the new article must never mention the name
        return b.text not in articles[a.article] and a.text not in articles[b.article]
    return b.text not in a.before + a.after and a.text not in b.before + b.after


def _slots(articles: Sequence[str]) -> Iterable[Slot]:
    for number, article in enumerate(articles):
        for paragraph in article.split("\n"):
            position = 0
            for sentence in _sentences(paragraph):
                start = paragraph.index(sentence, position)
                position = start + len(sentence)
                if len(sentence) < _MIN_SENTENCE:
                    continue
                for kind, pattern in _KINDS.items():
                    for match in pattern.finditer(sentence):
                        if not (kind.startswith("name") and _NOT_A_NAME.search(match[1])):
                            end = start + match.end(1)
                            after = _cut(paragraph[end : start + len(sentence)])
                            yield Slot(number, kind, paragraph[: start + match.start(1)], match[1], after)


def _cut(rest: str) -> str:
    """The rest of the sentence, cut at a word boundary to at most `_AFTER` characters."""
    return rest if len(rest) <= _AFTER else rest[: rest.rfind(" ", 0, _AFTER)] if " " in rest[:_AFTER] else ""


def _sentences(paragraph: str) -> Iterable[str]:
    start = 0
    for gap in _SENTENCE.finditer(paragraph):
        if not _ABBREVIATION.search(paragraph[start : gap.start()]):
            yield paragraph[start : gap.start()]
            start = gap.end()
    yield paragraph[start:]


def _shape(slot: Slot) -> object:
    """What two slots must share beyond their kind to stay grammatical."""
    if slot.kind == "date":
        return slot.text[0].isdigit()
    if slot.kind == "number":
        return len(slot.text)
    return len(slot.text.split())


def _shuffled(slot: Slot) -> bytes:
    return hashlib.sha256(f"{slot.kind}|{slot.before[-200:]}|{slot.text}|{slot.after}".encode()).digest()
