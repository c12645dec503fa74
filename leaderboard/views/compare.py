"""Two methods on every task that both have: ratios, seeds, circumstances."""

from __future__ import annotations

from typing import Any

import charts
import pandas as pd
import streamlit as st
from choices import report_unknown, show_link
from plain_text import as_markdown
from rankings import finite
from reading import Reading, read
from reproduction import machine
from retired import marked
from wording import MFI

from collapsebench.publishing.across_tasks import compared_methods, methods_by_label, paired_seeds
from collapsebench.publishing.submission import Submission
from collapsebench.scoring.columns import interval_text, records


def verdict(row: dict[str, Any], differences: pd.Series, one: str, other: str) -> str:
    """What the interval of the difference says, in words; where there is none, what the seeds say."""
    if row["tied"]:
        return "tied"
    if row["tied"] is not None:
        return f"{one} longer" if row["difference"] > 0 else f"{other} longer"
    for name, wins in ((one, differences > 0), (other, differences < 0)):
        if len(wins) and wins.all():
            return f"no interval; {name} longer in every seed"
    return "no interval, no verdict"


def show_ratios(found: pd.DataFrame, pairs: pd.DataFrame, one: str, other: str) -> None:
    """Forest plot and table of the ratios."""
    st.header("Ratio of mFI, task by task", anchor="ratios")
    rows = []
    for row in records(found):
        seeds = pairs.loc[pairs["task"] == row["task"], "difference"]
        told = row["mark"] or verdict(row, seeds, one, other)
        rows.append({**row, "text": interval_text(row, "ratio"), "verdict": told})
    table = pd.DataFrame(rows)
    drawn = table[[finite(r) and r > 0 for r in table["ratio"]]]
    told = "; ".join(f"{r['task']}: {r['text']}, {r['verdict']}" for r in rows)
    if len(drawn):
        st.altair_chart(charts.ratio_chart(drawn, one, other), alt=f"Ratio of {one} to {other}. {told}")
    undrawn = ", ".join(table.loc[~table.index.isin(drawn.index), "task"])
    st.caption(
        f"mFI of {as_markdown(one)} divided by that of {as_markdown(other)}, geometric mean over paired seeds; right "
        f"of 1, {as_markdown(one)} stays faithful longer. Lines: 95 % intervals (Student t), each for a single "
        "planned comparison; n/a where an mFI is 0. The verdict is based on the interval of the difference."
        + (" Tasks that are not ranked have no verdict; their pages say why." if found["mark"].any() else "")
        + (f" Not drawn, because there is no positive ratio: {undrawn}." if undrawn else ""),
        width=820,
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        table[["task", "mfi_one", "mfi_other", "text", "n", "verdict"]],
        hide_index=True,
        alt=f"Ratios of {one} to {other}",
        column_config={
            "mfi_one": number(f"mFI {one}", format="%.2f"),
            "mfi_other": number(f"mFI {other}", format="%.2f"),
            "text": st.column_config.TextColumn("ratio [95 %]", width=170),
            "verdict": st.column_config.TextColumn(width=260),
            "n": number("paired seeds", format="%d"),
        },
    )


def show_seeds(pairs: pd.DataFrame, one: str, other: str) -> None:
    """Differences seed by seed."""
    st.header("Difference, seed by seed", anchor="seeds")
    wins = {t: int((mine["difference"] > 0).sum()) for t, mine in pairs.groupby("task")}
    counts = pairs.groupby("task").size()
    told = "; ".join(f"{t!s}: {one} longer in {w} of {counts[t]} seeds" for t, w in wins.items())
    st.altair_chart(charts.difference_chart(pairs, one, other), alt=f"Differences of mFI by seed. {told}")
    st.caption(
        f"Rings: seeds, which share initial weights, data order and noise. Bars: means. {as_markdown(told)}.",
        width=820,
    )


def circumstances(submission: Submission) -> dict[str, str]:
    """What a reader compares: who ran which source where, with what."""
    first = submission.provenance[0]
    method = submission.method
    seconds = sum(g.seconds for result in submission.results for g in result.generations)
    about = {
        "authors": ", ".join(submission.authors),
        "date": submission.date,
        "loss": method.loss,
        "parameters": ", ".join(f"{k}={v}" for k, v in sorted(method.parameters.items())),
        "track": method.track,
        "source sha256": method.source_sha256,
        "seeds": ", ".join(str(r.seed) for r in submission.results),
        "sessions": str(len(submission.provenance)),
        **machine(first),
        "seconds per seed": f"{seconds / len(submission.results):,.0f}",
    }
    return about | {f"package {k}": v or "absent" for k, v in sorted(first.packages.items())}


def show_circumstances(reading: Reading, found: pd.DataFrame, names: tuple[str, str]) -> None:
    """Provenance of both entries of a task, side by side."""
    st.header("Provenance, side by side", anchor="provenance")
    tasks = list(found["task"])
    report_unknown("on", tasks, "task that both methods have")
    task = st.selectbox("On which task", tasks, key="on", bind="query-params")
    row = found[found["task"] == task].iloc[0]
    one, other = (circumstances(reading.submission(str(row[d]))) for d in ("digest_one", "digest_other"))
    keys = list(dict.fromkeys([*one, *other]))
    table = pd.DataFrame(
        {
            "": keys,
            names[0]: [one.get(k, "absent") for k in keys],
            names[1]: [other.get(k, "absent") for k in keys],
            "same": ["=" if one.get(k) == other.get(k) else "≠" for k in keys],
        }
    )
    st.dataframe(
        table.sort_values("same", ascending=False, kind="stable"),
        hide_index=True,
        height=430,
        alt=f"Provenance of {names[0]} and {names[1]} on {task}",
        column_config={
            "": st.column_config.TextColumn(width=170, pinned=True),
            names[0]: st.column_config.TextColumn(width=360),
            names[1]: st.column_config.TextColumn(width=360),
            "same": st.column_config.TextColumn(width=56),
        },
    )
    st.caption("Differences come first.")


reading = read()
st.title("Compare two methods")
st.markdown(MFI, width=820)
known = reading.kept(methods_by_label)
labels = list(known)
if len(labels) < 2:
    st.info("There are fewer than two methods on the board.")
    st.stop()
for key in ("a", "b"):
    report_unknown(key, labels, "method")
left, right = st.columns(2)
best = next((label for label in ("tce", *labels) if label in known and label != "ce"), labels[0])
second = "ce" if "ce" in known else next(label for label in labels if label != best)
with left:
    one: str = st.selectbox("Method", labels, index=labels.index(best), key="a", bind="query-params")
with right:
    other: str = st.selectbox("against", labels, index=labels.index(second), key="b", bind="query-params")
found = reading.kept(compared_methods, known[one], known[other])
if one == other:
    st.info("Choose two different methods.")
elif found.empty:
    st.info("The two have no task in common.")
else:
    pairs = reading.kept(paired_seeds, known[one], known[other])
    tasks = {task_id: reading.board.tasks[task_id] for task_id in found["task"]}
    shown = {task_id: marked(task) for task_id, task in tasks.items()}
    marks = [tasks[task_id].mark for task_id in found["task"]]
    pairs = pairs.assign(task=pairs["task"].map(shown))
    show_ratios(found.assign(task=found["task"].map(shown), mark=marks), pairs, one, other)
    show_seeds(pairs, one, other)
    show_circumstances(reading, found, (one, other))
    show_link(a=one, b=other)
