"""Words that several pages share: what a number means, in one sentence each."""

from __future__ import annotations

FI = (
    "The fidelity interval FI(0.75) is the first generation, interpolated, at which fidelity to the real data falls "
    "below 0.75: the smallest over the scored metrics of a task, mean over its official seeds. Higher is better."
)
FIDELITY = (
    "Fidelity is 1 for what cross entropy reaches at generation 0 and 0 for a model that knows nothing; both ends are "
    "measured once and frozen in the task."
)
HELP = {
    "rank": "Within its task and track. Methods whose ratio cannot be told from 1 share the rank of their leader.",
    "method": "The loss and those of its parameters that are not the default.",
    "curve": "Mean fidelity over generations 0 to G, from 1 (top) to 0 (bottom): the smallest over the scored metrics.",
    "fi": FI,
    "fi_interval": "95 % interval over seeds, Student t. ≥: a curve never fell below 0.75, so FI is a lower bound.",
    "ratio": "Geometric mean over paired seeds of FI(0.75) divided by that of the baseline. Above 1 is better.",
    "ratio_interval": (
        "95 % interval of the ratio, paired by seed: Student t below 10 seeds, BCa bootstrap from 10. ≈: it holds 1, "
        "so the two are tied. ≥, ≤: censoring makes the ratio a bound. n/a: one seed, or an FI of 0."
    ),
    "auf": "Mean fidelity over all generations. It is never censored and orders methods inside a tie.",
    "cost": "Fidelity given up at generation 0, before any collapse. Negative: better than cross entropy there.",
    "verified": (
        "verified: somebody else ran a part of it again and it matched. by its authors: only they did. disputed: a "
        "run on the same kind of machine differed. inconclusive: one on another kind did."
    ),
    "date": "Day of the submission.",
    "entry": "Opens the entry: provenance, raw metrics, how to reproduce it.",
    "overall": "Geometric mean of the ratios to CE over all tasks of the tier. Empty when a task is missing.",
    "tasks": "Tasks of the tier that the method has an entry on.",
    "missing": "Tasks of the tier without an entry of the method. It has no overall score until there is one.",
    "mean_auf": "Mean AUF over the tasks that the method has; compare it only between methods with the same tasks.",
    "verified_count": "How many of its entries somebody else has verified.",
}
