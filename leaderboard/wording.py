"""Words that several pages share: what a number means, in one sentence each."""

from __future__ import annotations

MFI = (
    "The mean fidelity interval, mFI, says for how many generations fidelity to the real data lasts: the first "
    "generation at which it falls below λ, averaged over all λ from 0 to 1, which is the area under the curve. It is "
    "the smallest over the scored metrics of a task, mean over its official seeds. Higher is better."
)
FIDELITY = (
    "Fidelity is 1 for what cross entropy reaches at generation 0 and 0 for a model that knows nothing; both ends are "
    "measured once and frozen in the task."
)
HELP = {
    "curve": "Mean fidelity over generations 0 to G, from 1 (top) to 0 (bottom): the smallest over the scored metrics.",
    "verified": (
        "verified: somebody else ran a part of it again and it matched. by its authors: only they did. disputed: a "
        "run on the same kind of machine differed. inconclusive: one on another kind did."
    ),
    "date": "Day of the submission.",
    "entry": "Opens the entry: provenance, raw metrics, how to reproduce it.",
    "overall": (
        "mFI / G, the share of a task's generations, mean over all tasks of the tier; interval: bootstrap over seeds "
        "within tasks. Empty when a task is missing."
    ),
    "improvement": "Chance that a run is better than one of CE, mean over all tasks of the tier; ties count half.",
    "tasks": "Tasks of the tier that the method has an entry on.",
    "missing": "Tasks of the tier without an entry of the method. It has no overall score until there is one.",
    "verified_count": "How many of its entries somebody else has verified.",
}
