"""Extracts plain prose from a MediaWiki export: articles without markup.

Only running text is kept. Templates, tables, references, formulas, galleries, headings and the closing reference
sections are dropped, and so is every line that does not consist of whole sentences: a language model with fewer than
a million parameters should spend its capacity on prose.
"""

from __future__ import annotations

import bz2
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Tag, Wikilink
from mwparserfromhell.wikicode import Wikicode

# A section with one of these titles ends the prose of an article.
_CLOSING_SECTIONS = {
    "references", "notes", "footnotes", "citations", "sources", "bibliography", "further reading",
    "external links", "see also", "notes and references", "works cited", "filmography", "works",
}  # fmt: skip
_DROPPED_TAGS = {"ref", "table", "gallery", "math", "timeline", "score", "code", "pre", "source",
                 "syntaxhighlight", "imagemap", "hiero", "chem", "sup", "sub"}  # fmt: skip
_HEADING = re.compile(r"^(={2,6})\s*(.+?)\s*\1\s*$", re.MULTILINE)
_SENTENCE_END = re.compile(r'[.!?]["\')\]]?$')
_TABLE = re.compile(r"^[ :*]*\{\|.*?^[ :*]*\|\}", re.MULTILINE | re.DOTALL)
_LEFTOVER = re.compile(r"[{}|<>\[\]]|__[A-Z]+__")


def read_articles(path: Path, min_chars: int = 500) -> Iterator[tuple[str, str]]:
    """Yield (title, prose) of every article in a bz2-compressed MediaWiki export.

    Args:
        path: ``*.xml.bz2`` export; redirects and pages outside the article namespace are skipped.
        min_chars: shorter articles (disambiguation pages, stubs) are skipped.
    """
    with bz2.open(path) as stream:
        for _, page in ET.iterparse(stream):
            if not page.tag.endswith("}page"):
                continue
            ns = page.tag.removesuffix("page")
            if page.findtext(f"{ns}ns") == "0" and page.find(f"{ns}redirect") is None:
                prose = plain_text(page.findtext(f"{ns}revision/{ns}text") or "")
                if len(prose) >= min_chars:
                    yield page.findtext(f"{ns}title") or "", prose
            page.clear()


def plain_text(markup: str) -> str:
    """Return the paragraphs of an article without markup, separated by one newline.

    A paragraph is kept if it ends like a sentence, has at least 80 characters and contains nothing that still looks
    like markup.
    """
    markup = _without_closing_sections(markup)
    markup = _TABLE.sub("", markup)
    code = mwparserfromhell.parse(markup, skip_style_tags=True)
    _prune(code)
    text = code.strip_code(normalize=True, collapse=True)
    text = re.sub(r"'{2,}", "", text)
    paragraphs = (_tidy(line) for line in text.split("\n"))
    return "\n".join(p for p in paragraphs if _is_prose(p))


def _without_closing_sections(markup: str) -> str:
    for heading in _HEADING.finditer(markup):
        if heading[2].strip().lower() in _CLOSING_SECTIONS:
            return _HEADING.sub("", markup[: heading.start()])
    return _HEADING.sub("", markup)


def _prune(code: Wikicode) -> None:
    """Drop everything that is not prose, at every depth. (`Wikicode.remove` searches the whole page for every node.)"""
    code.nodes = [node for node in code.nodes if not _is_not_prose(node)]
    for node in code.nodes:
        for child in node.__children__():
            _prune(child)


def _is_not_prose(node: object) -> bool:
    if isinstance(node, Tag):
        return str(node.tag).strip().lower() in _DROPPED_TAGS
    if isinstance(node, Wikilink):
        return ":" in str(node.title).split("|")[0][:12]
    return isinstance(node, ExternalLink) and node.title is None


def _tidy(paragraph: str) -> str:
    paragraph = paragraph.replace("\xa0", " ").replace("\u200b", "")
    paragraph = re.sub(r"\(\s*[,;:.\s]*\)", "", paragraph)  # parentheses that contained only a template
    paragraph = re.sub(r"\(\s*[,;:]\s*", "(", paragraph)
    paragraph = re.sub(r"\s+([,.;:!?)])", r"\1", paragraph)
    return re.sub(r"\s+", " ", paragraph).strip()


def _is_prose(paragraph: str) -> bool:
    return (
        len(paragraph) >= 80
        and paragraph[0] not in "*#:;|!"
        and _SENTENCE_END.search(paragraph) is not None
        and _LEFTOVER.search(paragraph) is None
    )
