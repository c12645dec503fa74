"""Defaults read from the text of the registered losses are those of the classes."""

from __future__ import annotations

from collapsebench.methods import load_method, registered_methods
from collapsebench.publishing.registered_defaults import registered_defaults


def test_defaults_are_those_of_the_classes() -> None:
    assert registered_defaults() == {name: load_method(name).parameters for name in registered_methods()}
