"""The kinds of workload. To add one, add a folder with a record, and a line here. No torch here."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticKnownError

from collapsebench.workloads.images.kind import DIFFUSION, VAE
from collapsebench.workloads.kind import Kind
from collapsebench.workloads.markov.kind import MARKOV
from collapsebench.workloads.mixture.kind import GMM
from collapsebench.workloads.pretrained.kind import PRETRAINED
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.text.kind import TEXT

KINDS: dict[str, Kind] = {kind.name: kind for kind in (TEXT, PRETRAINED, VAE, DIFFUSION, GMM, MARKOV)}


def section(value: Any) -> Any:
    """Parse a workload section into the settings of its kind in `KINDS`; errors are those of a tagged union."""
    if isinstance(value, WorkloadSettings):
        return value
    if not isinstance(value, dict):
        raise PydanticKnownError("model_attributes_type")
    if "kind" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        expected = ", ".join(repr(name) for name in KINDS)
        found = {"discriminator": "'kind'", "tag": str(kind), "expected_tags": expected}
        raise PydanticKnownError("union_tag_invalid", found)
    return KINDS[kind].settings.model_validate(value)
