"""The scale of a scored metric in a task file."""

from __future__ import annotations

from pydantic import model_validator

from collapsebench.frozen import Frozen


class Scored(Frozen):
    """Frozen scale of a scored metric: fidelity is 1 at the reference and 0 at the floor. None if not yet measured.

    Attributes:
        reference: the reference of generation 0. floor: the floor of all generations.
        later: the references of generations 1, 2, …, if each has its own
            (`collapsebench.metrics.catalogue.Metric.reference`); None: all use that of generation 0.
    """

    reference: float | None = None
    floor: float | None = None
    later: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _all_or_none(self) -> Scored:
        if (self.reference is None) != (self.floor is None):
            raise ValueError("reference and floor are measured together: give both or neither")
        if self.reference is None and self.later is not None:
            raise ValueError("later: references of later generations are measured with that of generation 0: give both")
        if self.reference is not None and self.floor in (self.reference, *(self.later or ())):
            raise ValueError("reference and floor are equal, fidelity would be undefined")
        return self

    @property
    def reference_text(self) -> str:
        """The references as readable text."""
        if self.later is None:
            return f"{self.reference:.5g}"
        return f"{self.reference:.5g} (in later generations {', '.join(f'{r:.5g}' for r in self.later)})"

    def lacks(self, horizon: int) -> bool:
        """Whether only some of the generations 1 to G have references."""
        return self.later is not None and len(self.later) < horizon
