"""The metrics shared by all tasks: name, direction, unit, bounds, and how each becomes a fidelity.

A task can define further metrics of its own; `collapsebench.task_spec.TaskSpec.metric` knows both. No torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

KNOWLEDGE = "knowledge_fraction_"  # prefix of the KR-test metrics on one fraction of the training stream


@dataclass(frozen=True)
class Metric:
    """A declared metric.

    Attributes:
        name: key in ``metrics.json``.
        title: label in plots and tables.
        direction: ``lower`` or ``higher`` is better; None for a profile without a better end.
        unit: unit of the raw value; empty for shares.
        bounds: smallest and largest possible value.
        scale: ``log`` or ``linear`` distance to the reference (`collapsebench.scoring.fidelity`).
        description: one sentence.
        counted: whether the value is a count divided by n, so that only multiples of 1/n are possible.
        reference: the value with fidelity 1. ``start``: the value of cross entropy at generation 0. ``control``: the
            control's value in the same generation, for tasks where the control gets more real data each generation.
        floor: the value with fidelity 0. ``ignorant``: that of a model that learned nothing from the real data.
            ``unseen``: that of cross entropy's generation 0 on later generations' data, which it never saw.
    """

    name: str
    title: str
    direction: Literal["lower", "higher"] | None
    unit: str
    bounds: tuple[float, float]
    scale: Literal["log", "linear"]
    description: str
    counted: bool = False
    reference: Literal["start", "control"] = "start"
    floor: Literal["ignorant", "unseen"] = "ignorant"


def _profile(
    name: str, title: str, unit: str, description: str, upper: float = math.inf, counted: bool = False
) -> Metric:
    return Metric(name, title, None, unit, (0.0, upper), "linear", description, counted)


def _distances(features: str, fd: str, fd_title: str, kd: str, kd_title: str) -> tuple[Metric, Metric]:
    """Fréchet and kernel distance of the samples to the real test images in one extractor's features."""
    frechet = f"Fréchet distance between samples and real test images, features of {features}; comparable at equal n."
    kernel = f"Kernel distance (KID's) between samples and real test images, features of {features}; can be negative."
    return (
        Metric(fd, fd_title, "lower", "", (0.0, math.inf), "log", frechet),
        Metric(kd, kd_title, None, "", (-math.inf, math.inf), "linear", kernel),
    )


def knowledge_fraction(number: int) -> Metric:
    """The KR-test on the items about one fraction of the training stream; 0 is the oldest."""
    about = f"The KR-test on the items about fraction {number} of the training stream; 0 is the oldest."
    return _profile(f"{KNOWLEDGE}{number}", f"KR-test (fraction {number})", "", about, 1.0, True)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "perplexity", "Perplexity (real test text)", "lower", "", (1.0, math.inf), "log",
            "exp of the mean token loss on held-out real text.",
        ),
        Metric(
            "next_token_accuracy", "Next-token accuracy", "higher", "", (0.0, 1.0), "linear",
            "Share of tokens of held-out real text that are the model's first guess.", counted=True,
        ),
        Metric(
            "pair_accuracy", "Knowledge-pair accuracy", "higher", "", (0.0, 1.0), "linear",
            "Share of exchanged-entity pairs about the training text in which the model prefers the true version; "
            "chance is one half.", counted=True,
        ),
        Metric(
            "selection_perplexity", "Perplexity (selection text)", "lower", "", (1.0, math.inf), "log",
            "The same on the selection split: tune on this one, never on the test.",
        ),
        _profile("token_loss", "Mean token loss", "nats", "Mean negative log-likelihood of held-out real tokens."),
        _profile("token_loss_p50", "Median token loss", "nats", "Median loss of held-out real tokens."),
        _profile("token_loss_p90", "90th percentile of token loss", "nats", "The tail of the real text."),
        _profile("token_loss_p99", "99th percentile of token loss", "nats", "The far tail: collapse loses it first."),
        _profile("prediction_entropy", "Entropy of predictions", "nats", "Mean entropy of the next token."),
        _profile(
            "confident_share", "Tokens with p > 0.9", "", "Share of real tokens predicted with p > 0.9.", 1.0, True
        ),
        _profile("distinct_1", "Distinct-1", "", "Distinct tokens / tokens in the samples.", 1.0, True),
        _profile("distinct_2", "Distinct-2", "", "Distinct token bigrams / bigrams in the samples.", 1.0),
        _profile("distinct_4", "Distinct-4", "", "Distinct token 4-grams / 4-grams in the samples.", 1.0),
        _profile("repetition", "Repetition", "", "Share of 4-grams that occurred before in the same sample.", 1.0),
        *_distances("classifier", "fd_classifier", "FD (task's classifier)", "kd_classifier", "KD (task's classifier)"),
        *_distances("Inception", "fid", "FID", "kid", "KID"),
        *_distances(
            "EfficientNet-lite0", "fd_efficientnet_lite0", "FD-efficientnet-lite0", "kd_efficientnet_lite0",
            "KD-efficientnet-lite0",
        ),
        Metric(
            "coverage", "Coverage", "higher", "", (0.0, 1.0), "linear",
            "Share of real test images with a sample inside the ball of their 5 nearest real images (Naeem 2020).",
            counted=True,
        ),
        Metric(
            "precision", "Precision", "higher", "", (0.0, 1.0), "linear",
            "Share of samples inside the manifold of the real test images, k = 3 (Kynkäänniemi 2019).", counted=True,
        ),
        Metric(
            "recall", "Recall", "higher", "", (0.0, 1.0), "linear",
            "Share of real test images inside the manifold of the samples, k = 3 (Kynkäänniemi 2019).",
            counted=True,
        ),
        Metric(
            "class_coverage", "Class coverage", "higher", "", (0.0, 1.0), "linear",
            "How much of its real share each class still has among the samples, at most 1, mean over classes.",
        ),
        Metric(
            "negative_elbo", "Negative ELBO (real test images)", "lower", "nats/image", (0.0, math.inf), "linear",
            "Reconstruction plus KL of held-out real images: an upper bound of their negative log-likelihood.",
        ),
        Metric(
            "selection_negative_elbo", "Negative ELBO (selection images)", "lower", "nats/image", (0.0, math.inf),
            "linear", "The same on the selection split: tune on this one, never on the test.",
        ),
        Metric(
            "denoising_loss", "Denoising loss (real test images)", "lower", "", (0.0, math.inf), "linear",
            "Mean squared error of the predicted noise in held-out real images: DDPM's training objective.",
        ),
        Metric(
            "selection_denoising_loss", "Denoising loss (selection images)", "lower", "", (0.0, math.inf), "linear",
            "The same on the selection split: tune on this one, never on the test.",
        ),
        Metric(
            "kl_to_truth", "KL(truth ‖ model)", "lower", "nats", (0.0, math.inf), "linear",
            "Kullback–Leibler divergence from the known truth, by quadrature.",
        ),
        Metric(
            "minority_mass", "Mass of the minority mode", "higher", "", (0.0, 1.0), "linear",
            "Probability that the model gives to the region where the truth's smallest component is the likeliest.",
        ),
        Metric(
            "transition_kl", "KL(truth ‖ model) per transition", "lower", "nats", (0.0, math.inf), "linear",
            "Divergence from the known transition table, mean over its stationary distribution; exact.",
        ),
        Metric(
            "rare_mass", "Mass of rare transitions", "higher", "", (0.0, 1.0), "linear",
            "Share of the probability of rare transitions that the model still gives them, each at most its true one.",
        ),
        Metric(
            "selection_nll", "NLL per transition (selection)", "lower", "nats", (0.0, math.inf), "linear",
            "Mean negative log-likelihood of held-out transitions: tune on this one.",
        ),
        _profile("entropy_rate", "Entropy rate", "nats", "Entropy of the model's next state, mean over the true ones."),
        _profile("density", "Density", "", "Real balls around a sample, relative to k (Naeem 2020); can exceed 1."),
        _profile("class_entropy", "Entropy of classes", "nats", "Entropy of the samples' classes, by the classifier."),
        _profile(
            "classifier_confidence", "Classifier's confidence", "", "Mean probability of the likeliest class.", 1.0
        ),
        _profile(
            "nearest_training_distance", "Distance to the training set", "",
            "Median over samples of the RMS pixel difference to the closest real training image; 0 is a copy.", 1.0,
        ),
        _profile("reconstruction", "Reconstruction", "nats/image", "Reconstruction part of the negative ELBO."),
        _profile("kl", "KL of the code", "nats/image", "KL part of the negative ELBO."),
        _profile("noise_rms", "RMS error of the noise", "", "RMS error of the noise prediction on selection images."),
        Metric("sample_mean", "Mean of the samples", None, "", (-math.inf, math.inf), "linear", "Mean of the samples."),
        _profile("sample_variance", "Variance of the samples", "", "Maximum-likelihood variance of the samples."),
        _profile("model_variance", "Variance of the model", "", "Variance of the fitted mixture."),
        _profile("unigram_kl", "Unigram KL to real text", "nats", "KL(samples ‖ real training text) of token counts."),
        Metric(
            "oldest_perplexity", "Perplexity (oldest fraction)", "lower", "", (1.0, math.inf), "log",
            "On the real text of the oldest fraction, which generation 0 was trained on: what is retained of it.",
            reference="control",
        ),
        Metric(
            "knowledge_retention", "KR-test (oldest fraction)", "higher", "", (0.0, 1.0), "linear",
            "Share of the KR-test's items about the oldest fraction with the true sentence likelier per token.",
            counted=True, reference="control",
        ),
        Metric(
            "newest_perplexity", "Perplexity (newest fraction)", "lower", "", (1.0, math.inf), "log",
            "On the real text of the fraction that was new to the generation: what is still learned.",
            reference="control", floor="unseen",
        ),
        Metric(
            "knowledge_newest", "KR-test (newest fraction)", "higher", "", (0.0, 1.0), "linear",
            "The KR-test on items about the fraction that was new to the generation, of every fraction as many.",
            counted=True, reference="control", floor="unseen",
        ),
        _profile("knowledge_retention_all", "KR-test (all items)", "", "The same over all fractions.", 1.0, True),
    )
}  # fmt: skip
