"""The kinds of workload: a new one is a folder with a record, and a line here. No torch here."""

from __future__ import annotations

from collapsebench.workloads.images.kind import DIFFUSION, VAE
from collapsebench.workloads.kind import Kind
from collapsebench.workloads.markov.kind import MARKOV
from collapsebench.workloads.mixture.kind import GMM
from collapsebench.workloads.pretrained.kind import PRETRAINED
from collapsebench.workloads.text.kind import TEXT

KINDS: dict[str, Kind] = {kind.name: kind for kind in (TEXT, PRETRAINED, VAE, DIFFUSION, GMM, MARKOV)}
