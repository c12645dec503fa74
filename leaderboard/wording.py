"""Texts shared by several pages: the meaning of each number, in one sentence."""

from __future__ import annotations

MFI = (
    "The mean fidelity interval, mFI, is the number of generations for which a model stays faithful to the real data: "
    "the first generation at which fidelity falls below λ, averaged over all λ from 0 to 1, which is the area under "
    "the curve. It is the smallest over the scored metrics of a task, mean over its official seeds. Higher is better."
)
FIDELITY = (
    "Fidelity 1 is what cross entropy reaches at generation 0; fidelity 0 is a model that learned nothing. Both ends "
    "are measured once and frozen in the task."
)
HELP = {
    "curve": "Mean fidelity over generations 0 to G, from 1 (top) to 0 (bottom): the smallest over the scored metrics.",
    "verified": (
        "verified: somebody else ran a part of it again and it matched. by its authors: only they did. disputed: a "
        "run on the same kind of machine differed. inconclusive: a run on another kind of machine differed."
    ),
    "date": "Day of the submission.",
    "entry": "Opens the entry: provenance, raw metrics, how to reproduce it.",
    "overall": (
        "mFI / G, the share of a task's generations, mean over all tasks of the tier; interval: bootstrap over seeds "
        "within tasks. Empty when a task is missing."
    ),
    "improvement": "Probability that a run beats a run of CE, mean over all tasks of the tier; ties count half.",
    "tasks": "Tasks of the tier that the method has an entry on.",
    "missing": "Tasks of the tier on which the method has no entry. Until it has one on each, it has no overall score.",
    "verified_count": "How many of its entries somebody else has verified.",
}
