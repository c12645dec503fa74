"""The scale of a scored metric, as task files say it."""

from __future__ import annotations

from pydantic import model_validator

from collapsebench.frozen import Frozen


class Scored(Frozen):
    """Frozen scale of a scored metric: fidelity is 1 at the reference and 0 at the floor. None: not yet measured.

    Attributes:
        reference: of generation 0. floor: of all generations.
        later: the references of generations 1, 2, …, where each has one of its own
            (`collapsebench.metrics.catalogue.Metric.reference`); None: that of generation 0 holds for all.
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
        """The references for people."""
        if self.later is None:
            return f"{self.reference:.5g}"
        return f"{self.reference:.5g} (in later generations {', '.join(f'{r:.5g}' for r in self.later)})"

    def lacks(self, horizon: int) -> bool:
        """Whether there are references of some generations 1 to G, and not of all."""
        return self.later is not None and len(self.later) < horizon
