"""What models made, generation by generation: the same noise, prompts or truth for all methods of a task."""

from __future__ import annotations

import base64
import io

import charts
import numpy as np
import pandas as pd
import streamlit as st
from choices import choose_methods, choose_task, show_link
from PIL import Image
from plain_text import as_markdown
from reading import Reading, read
from retired import show_mark

from collapsebench.publishing.submission import DensitySamples, Excerpt, ImageSamples, Samples, TextSamples

ENLARGED = 3
TOP = 2.2  # of the y axis, in peaks of the truth: a model that has sharpened stays in view
MASS = 1e-3
VIEWS = ("one generation", "all generations")


def samples_of(reading: Reading, labels: dict[str, str]) -> dict[str, Samples]:
    """The samples of those methods that have any."""
    found = {label: reading.submission(digest).samples for label, digest in labels.items()}
    return {label: samples for label, samples in found.items() if samples is not None}


def enlarged(content: str) -> Image.Image:
    """A strip of small pictures, every pixel as a square: browsers would blur them."""
    with Image.open(io.BytesIO(base64.b64decode(content)), formats=["PNG"]) as picture:
        pixels = np.asarray(picture)
    return Image.fromarray(pixels.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1))


def show_image(label: str, samples: ImageSamples, generation: int) -> None:
    """The strip of one generation."""
    told = f"Images drawn by {label}, generation {generation}, seed {samples.seed}"
    st.image(enlarged(samples.generations[str(generation)]), width="stretch", alt=told)


def show_texts(excerpts: list[Excerpt]) -> None:
    """The excerpts of one generation, as the text that they are."""
    for excerpt in excerpts:
        with st.container(border=True):
            st.text(f"⟦{excerpt.prompt.lstrip()}⟧{excerpt.text.rstrip()}")


def show_density(label: str, samples: DensitySamples, generation: int, across: tuple[float, float]) -> None:
    """The density of one generation over the truth."""
    curve = samples.generations[str(generation)]
    frame = pd.DataFrame({"x": samples.x, "truth": samples.truth, "model": curve})
    shown = frame[frame["x"].between(*across)]
    told = f"{max(curve):.2f} at {samples.x[int(np.argmax(curve))]:.2f}; the truth's is {max(samples.truth):.2f}"
    st.altair_chart(
        charts.density_chart(shown, across, TOP * max(samples.truth)),
        alt=f"Density of {label} at generation {generation}: its peak is {told}",
    )


def extent(found: dict[str, Samples]) -> tuple[float, float]:
    """Where any of the densities has mass, so that all of them have one axis."""
    ends = []
    for samples in found.values():
        if isinstance(samples, DensitySamples):
            highest = np.max([samples.truth, *samples.generations.values()], axis=0)
            ends += [x for x, density in zip(samples.x, highest, strict=True) if density > MASS]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def show_one(label: str, samples: Samples, generation: int, across: tuple[float, float]) -> None:
    """One method, one generation."""
    if str(generation) not in samples.generations:
        st.caption("No samples: the chain ended earlier, or the file has samples of other generations only.")
    elif isinstance(samples, ImageSamples):
        show_image(label, samples, generation)
    elif isinstance(samples, TextSamples):
        show_texts(samples.generations[str(generation)])
    else:
        show_density(label, samples, generation, across)


def show_generation(found: dict[str, Samples], generation: int) -> None:
    """One generation of all methods, side by side, three to a row."""
    wide, across = min(3, len(found)), extent(found)
    for i, (label, samples) in enumerate(found.items()):
        if i % wide == 0:
            columns = st.columns(wide)
        with columns[i % wide]:
            st.markdown(f"**{as_markdown(label)}**, generation {generation}")
            show_one(label, samples, generation, across)


def explain(samples: Samples) -> None:
    """Describe the samples in a sentence."""
    seed = f"Seed {samples.seed}."
    if isinstance(samples, ImageSamples):
        told = "Every method and generation starts from the same noise, so a place in the grid is one sample decaying."
    elif isinstance(samples, TextSamples):
        told = "Texts that each generation wrote. The prompt, from its own training data, is in ⟦brackets⟧."
    else:
        told = "Filled: the density of the model. Dashed: the truth that generation 0 was fitted to."
    st.caption(f"{told} {seed} These are the first samples, not selected ones.")


reading = read()
st.title("Gallery")
task = choose_task(reading)
show_mark(task)
st.page_link(
    "views/task.py", label="Curves and calibration", icon=":material/show_chart:", query_params={"task": task.id}
)
rows = reading.board.table[reading.board.table["task"] == task.id]
chosen = choose_methods(list(rows["method"])) if len(rows) else []
labels = {str(m): str(d) for m, d in zip(rows["method"], rows["digest"], strict=True) if m in chosen}
found = samples_of(reading, labels)
if rows.empty:
    st.info("Nobody has submitted to this task yet.")
elif not labels:
    st.info("Choose at least one method.")
elif not found:
    st.info("The entries of these methods hold no samples.")
else:
    explain(next(iter(found.values())))
    with st.container(horizontal=True, gap="medium"):
        view = st.segmented_control("Show", VIEWS, default=VIEWS[0], key="view", bind="query-params", required=True)
        last = task.spec.horizon
        if view == VIEWS[0]:
            first = st.slider("Generation", 0, last, last // 2, key="generation", bind="query-params", width=420)
            shown, link = [first], {"generation": str(first)}
        else:
            shown, link = list(range(last + 1)), {}
    for generation in shown:
        show_generation(found, generation)
    if without := sorted(set(labels) - set(found)):
        st.caption(f"Without samples: {', '.join(map(as_markdown, without))}.")
    show_link(task=task.id, methods=list(labels), view=view, **link)
