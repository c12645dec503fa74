"""Colours of methods, the same in plots, reports and on the site.

Those of Okabe and Ito, darkened where they would fade on white: all have a contrast of at least 3 to white and to the
dark pages, and marks and dashes tell the methods apart without them.
"""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A66F00", "#8A6FC0", "#3C8FC9", "#5D8A00")
CONTROL_COLOUR = "#808080"
