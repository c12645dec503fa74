"""The smallest tasks that are still real ones: one of every kind of workload, a model of a few thousand weights.

English-looking text from a grammar, images of bars and crosses, a mixture of two Gaussians. No network, no packages
with data. One generation takes a fraction of a second on one core.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.authoring.base import train_base
from collapsebench.metrics.extractors import SmallClassifier
from collapsebench.task import load_task

KINDS = ("text", "pretrained-lm", "vae", "diffusion", "gmm", "markov")
SIDE = 12
# What conftest's short tasks train on: updates of each generation, and how often a loss is asked in an update.
SHORT_UPDATES = dict.fromkeys(KINDS, (6, 4, 4)) | {"pretrained-lm": (2, 4, 6)}
MICRO_BATCHES = dict.fromkeys(KINDS, 1) | {"pretrained-lm": 2}

_FIRST = ["Mary", "John", "Alice", "Peter", "Clara", "Hugo", "Irene", "Oscar", "Nadia", "Victor", "Rosa", "Edwin"]
_LAST = ["Stone", "Harlow", "Winter", "Mercer", "Lang", "Foster", "Abbott", "Keller", "Norris", "Quill", "Vance"]
_PLACE = ["Harwick", "Eastmoor", "Lindale", "Brackton", "Overton", "Silverford", "Marlow", "Thornby", "Kestrel"]
_THING = ["bridge", "school", "library", "railway", "garden", "theatre", "harbour", "museum", "mill", "chapel"]
_VERB = ["was built", "was opened", "was closed", "was painted", "was moved", "was bought", "was repaired"]
_ADJECTIVE = ["small", "famous", "northern", "wooden", "quiet", "public", "narrow", "ancient", "royal"]
_MONTH = ["January", "March", "April", "June", "August", "October", "December"]


def paragraphs(n: int, seed: int = 7) -> list[str]:
    """`n` different paragraphs of a few sentences, with names, places, years, numbers and dates."""
    draw = random.Random(seed)
    return [_paragraph(draw) for _ in range(n)]


def _paragraph(draw: random.Random) -> str:
    return " ".join(_sentence(draw) for _ in range(draw.randint(3, 5)))


def _sentence(draw: random.Random) -> str:
    person = f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    thing = f"{draw.choice(_ADJECTIVE)} {draw.choice(_THING)}"
    place, other, year = draw.choice(_PLACE), draw.choice(_PLACE), draw.randint(1500, 1999)
    return draw.choice(
        [
            f"The {thing} in {place} {draw.choice(_VERB)} by {person} in {year}.",
            f"In {year} the {thing} of {place} had about {draw.randint(11, 99) * 10} visitors from {other}.",
            f"On {draw.randint(1, 28)} {draw.choice(_MONTH)} the {thing} {draw.choice(_VERB)} with help from {person}.",
            f"The mayor went to {place} and saw a {thing} with {draw.randint(12, 98)} windows after {year}.",
        ]
    )


def bars(n: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """`n` different (12, 12) uint8 images of a horizontal bar, a vertical bar or both, and their classes 0, 1, 2."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, n)
    images = draw.integers(0, 30, (n, SIDE, SIDE)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = draw.integers(2, SIDE - 3, 2)
        if label != 1:
            image[row : row + 2, 1:-1] += np.uint8(draw.integers(120, 220))
        if label != 0:
            image[1:-1, column : column + 2] //= 2
            image[1:-1, column : column + 2] += np.uint8(100)
    return images, labels


_COMMON: dict[str, Any] = {
    "schema_version": 1,
    "version": 1,
    "tier": "micro",
    "seeds": [0, 1],
    "horizon": 3,
    "threads": 1,
    "init": "previous",
}
_TEXT: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny Llama on sentences from a grammar",
    "data": {"source": "local", "path": "text.txt", "documents": "paragraph"},
    "splits": {"test": 0.1, "selection": 0.05},
    "policy": {"name": "replace", "size": 32},
    "workload": {
        "kind": "text",
        "vocab_size": 320,
        "block": 16,
        "model": {"hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2},
        "training": {
            "batch_size": 8,
            "first": {"updates": 30, "learning_rate": 1.0e-2, "decay": "cosine"},
            "later": {"updates": 12, "learning_rate": 5.0e-3, "decay": "linear"},
        },
        "sampler": {"prompt_tokens": 4, "temperature": 0.9, "batch_size": 32},
        "evaluation": {"test_windows": 24, "selection_windows": 12, "pairs": 20, "batch_size": 32},
    },
    "scored": {
        "perplexity": {"reference": 60.0, "floor": 200.0},
        "next_token_accuracy": {"reference": 0.15, "floor": 0.05},
        "pair_accuracy": {"reference": 0.65, "floor": 0.5},
    },
}

_IMAGES: dict[str, Any] = {
    "data": {"source": "local-images", "path": "images"},
    "splits": {"test_images": 40, "selection_images": 20},
    "policy": {"name": "replace", "size": 48},
}
_IMAGE_TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "weight_decay": 0.0,
    "first": {"updates": 30, "learning_rate": 5.0e-3, "decay": "cosine"},
    "later": {"updates": 12, "learning_rate": 2.0e-3, "decay": "linear"},
}
_IMAGE_EVALUATION: dict[str, Any] = {"samples": 40, "extractors": ["classifier"], "classifier": None}

_VAE: dict[str, Any] = _IMAGES | {
    "name": "tiny-vae",
    "title": "A tiny VAE on bars and crosses",
    "workload": {
        "kind": "vae",
        "image_size": SIDE,
        "model": {"channels": [4, 8], "latent": 3},
        "training": _IMAGE_TRAINING,
        "sampler": {"pixels": "means"},
        "evaluation": _IMAGE_EVALUATION,
    },
    "scored": {
        "negative_elbo": {"reference": 50.0, "floor": 90.0},
        "fd_classifier": {"reference": 0.05, "floor": 5.0},
    },
}

_DIFFUSION: dict[str, Any] = _IMAGES | {
    "name": "tiny-diffusion",
    "title": "A tiny diffusion model on bars and crosses",
    "workload": {
        "kind": "diffusion",
        "image_size": SIDE,
        "model": {"channels": [4, 8], "groups": 2},
        "schedule": {"train_steps": 100, "sample_steps": 4},
        "training": _IMAGE_TRAINING,
        "sigma": 0.5,
        "evaluation": _IMAGE_EVALUATION,
    },
    "scored": {
        "fd_classifier": {"reference": 0.05, "floor": 5.0},
        "coverage": {"reference": 0.4, "floor": 0.0},
    },
}

_GMM: dict[str, Any] = {
    "name": "tiny-gmm",
    "title": "Two Gaussians",
    "data": {"source": "mixture", "weights": [0.8, 0.2], "means": [-2.0, 2.0], "scales": [1.0, 0.5], "points": 200},
    "policy": {"name": "replace", "size": 100},
    "workload": {
        "kind": "gmm",
        "model": {"weights": [0.5, 0.5], "means": [-1.0, 1.0], "scales": [1.0, 1.0]},
        "training": {
            "batch_size": 100,
            "weight_decay": 0.0,
            "clip_norm": None,
            "first": {"updates": 60, "learning_rate": 5.0e-2, "decay": "cosine"},
            "later": {"updates": 20, "learning_rate": 2.0e-2, "decay": "cosine"},
        },
    },
    "scored": {
        "kl_to_truth": {"reference": 0.01, "floor": 0.25},
        "minority_mass": {"reference": 0.2, "floor": 0.0},
    },
}

_MARKOV: dict[str, Any] = {
    "name": "tiny-markov",
    "title": "A chain of 14 states",
    "data": {"source": "markov", "states": 14, "seed": 0, "sure": 4, "sequences": 120},
    "policy": {"name": "replace", "size": 64},
    "workload": {
        "kind": "markov",
        "length": 9,
        "training": {
            "batch_size": 16,
            "weight_decay": 0.0,
            "clip_norm": None,
            "first": {"updates": 30, "learning_rate": 0.3, "decay": "cosine"},
            "later": {"updates": 12, "learning_rate": 0.2, "decay": "cosine"},
        },
        "selection_sequences": 20,
    },
    "scored": {
        "transition_kl": {"reference": 0.2, "floor": 1.0},
        "rare_mass": {"reference": 0.9, "floor": 0.0},
    },
}

_PRETRAINED: dict[str, Any] = {
    "name": "tiny-lm",
    "title": "A tiny model from a folder on sentences from a grammar",
    "data": {"source": "local-splits", "path": "data"},
    "policy": {"name": "regenerate-fresh", "size": 64},
    "workload": {
        "kind": "pretrained-lm",
        "block": 16,
        "model": {
            "path": "model",
            "parameters": 18016,
            "architecture": {
                "hidden_size": 32,
                "layers": 1,
                "heads": 4,
                "kv_heads": 2,
                "intermediate_size": 48,
                "vocab_size": 320,
            },
        },
        "training": {"epochs": 1, "batch_size": 8, "micro_batch": 4, "learning_rate": 5.0e-3, "precision": "float32"},
        "sampler": {"method": "beam", "context": 24, "new_tokens": 8, "beams": 2, "repetition_penalty": 1.5},
        "evaluation": {
            "test_windows": 24,
            "selection_windows": 12,
            "oldest_windows": 12,
            "knowledge": {"file": "knowledge.json"},
            "harness": [{"name": "pairs", "file": "pairs.jsonl", "format": "blimp", "chance": 0.5}],
        },
    },
    "scored": {
        "oldest_perplexity": {"reference": 200.0, "floor": 300.0},
        "harness_pairs": {"reference": 0.6, "floor": 0.5},
    },
}

_SPECS = {
    "text": _TEXT,
    "pretrained-lm": _PRETRAINED,
    "vae": _VAE,
    "diffusion": _DIFFUSION,
    "gmm": _GMM,
    "markov": _MARKOV,
}


def tiny_spec(kind: str = "text", **changes: Any) -> dict[str, Any]:
    """The content of a tiny task's file, with changes by dotted path: ``tiny_spec(**{"policy.name": "mix"})``."""
    spec = copy.deepcopy(_COMMON | _SPECS[kind])
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = spec
        for parent in parents:
            section = section[parent]
        section[key] = copy.deepcopy(value)
    return spec


def write_tiny_task(folder: Path, kind: str = "text", **changes: Any) -> Path:
    """Write a task file and its data into a folder; return the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = tiny_spec(kind, **changes)
    if kind == "text":
        (folder / "text.txt").write_text("\n\n".join(paragraphs(200)), "utf-8")
    elif kind == "pretrained-lm":
        write_language_model(folder / "model")
        write_splits(folder / "data")
    elif kind in ("vae", "diffusion"):
        write_bars(folder / "images")
        spec["workload"]["evaluation"]["classifier"] = write_classifier(folder)
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    return file


# Changes that make a tiny task, as `tiny_spec` takes them, one whose generations all start from a base model.
_BASE_OF_IMAGES: dict[str, Any] = {  # it knows bars of other places
    "file": "base.safetensors",
    "sha256": None,
    "data": {"source": "local-images", "path": "others"},
    "training": {
        "batch_size": 16,
        "weight_decay": 0.0,
        "first": {"epochs": 2, "learning_rate": 5.0e-3, "decay": "cosine"},
    },
}
BASED: dict[str, dict[str, Any]] = {
    "text": {  # bytes; the model knows its letters, and not one word of what it is then trained on
        "name": "tiny-based",
        "title": "A tiny Llama on bytes, every generation from a base model",
        "horizon": 2,
        "init": "base",
        "base": {
            "file": "base.safetensors",
            "sha256": None,
            "data": {"source": "local", "path": "base.txt", "documents": "paragraph"},
            "training": {"batch_size": 16, "first": {"epochs": 4, "learning_rate": 1.0e-2, "decay": "cosine"}},
        },
        "splits.test": 0.2,
        "workload.vocab_size": 257,
        "workload.block": 32,
        "workload.training": {"batch_size": 8, "first": {"epochs": 4, "learning_rate": 1.0e-2, "decay": "cosine"}},
        "workload.sampler": {"prompt_tokens": 8, "temperature": 1.0, "batch_size": 64},
        "workload.evaluation": {
            "test_windows": 64,
            "selection_windows": 8,
            "pairs": 0,
            "batch_size": 64,
            "by_byte": True,
        },
        "scored": {"nll_per_byte": {}, "next_token_accuracy": {}},
    },
    "markov": {  # a table without rare transitions
        "name": "tiny-markov-based",
        "title": "A chain of 14 states, every generation from a base table",
        "horizon": 2,
        "init": "base",
        "base": {
            "file": "base.safetensors",
            "sha256": None,
            "data": _MARKOV["data"] | {"power": 2, "sequences": 1000},
            "training": {
                "batch_size": 64,
                "weight_decay": 0.0,
                "clip_norm": None,
                "first": {"epochs": 10, "learning_rate": 0.3, "decay": "cosine"},
            },
        },
        "workload.training.first": {"epochs": 4, "learning_rate": 0.3, "decay": "cosine"},
        "workload.training.later": None,
    },
    "vae": {  # black and white
        "name": "tiny-vae-based",
        "title": "A tiny VAE on bars and crosses, every generation from a base model",
        "horizon": 2,
        "init": "base",
        "base": _BASE_OF_IMAGES,
        "policy.size": 64,
        "workload.pixels": "drawn",
        "workload.training.rescale": True,
        "workload.model": {"hidden": [24], "latent": 3},
        "workload.training.first": {"epochs": 4, "learning_rate": 1.0e-2, "decay": "cosine"},
        "workload.training.later": None,
        "workload.sampler": {"pixels": "draws"},
        "scored": {"negative_elbo": {}},
    },
    "diffusion": {
        "name": "tiny-diffusion-based",
        "title": "A tiny diffusion model on bars and crosses, every generation from a base model",
        "horizon": 2,
        "init": "base",
        "base": _BASE_OF_IMAGES,
        "policy.size": 64,
        "workload.training.rescale": True,
        "workload.training.first": {"epochs": 4, "learning_rate": 1.0e-2, "decay": "cosine"},
        "workload.training.later": None,
        "workload.schedule": {"train_steps": 10, "beta_schedule": "squaredcos_cap_v2", "sample_steps": 10},
        "workload.sampler": {"process": "ancestral"},
        "scored": {"denoising_loss": {}},
    },
}


def write_based_task(folder: Path, kind: str = "text", train: bool = True, **changes: Any) -> Path:
    """Write a tiny task that starts from a base model, and train that; return the path of the task file.

    Args:
        kind: one of `BASED`. train: False leaves the base model to be trained. changes: as `tiny_spec` takes them.
    """
    file = write_tiny_task(folder, kind, **(BASED[kind] | changes))
    if kind == "text":
        strange = [" ".join(word[::-1] for word in text.split()) for text in paragraphs(100, seed=8)]
        (folder / "base.txt").write_text("\n\n".join(strange), "utf-8")
    if kind in ("vae", "diffusion"):
        write_bars(folder / "others", 100, seed=8)
    if train:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train_base(load_task(file), folder / "base.safetensors", "cpu", lambda *_: None)
        torch.set_num_threads(threads)
    return file


def write_language_model(folder: Path, vocab_size: int = 320) -> None:
    """A Llama of random weights with grouped heads, and a BPE tokeniser, as `transformers` saves them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(paragraphs(200), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)


def write_splits(folder: Path) -> None:
    """Text in three splits, items of a knowledge test about it, and minimal pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    found = paragraphs(200)
    for name, part in (("train", found[:120]), ("validation", found[120:160]), ("test", found[160:])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n", "utf-8")
    items = [
        {
            "context": text.split(".")[0] + ".",
            "sentence_true": text.split(". ")[1],
            "sentence_false": found[-1 - i].split(". ")[1],
            "location": 10 * i,
        }
        for i, text in enumerate(found[:10])
    ]
    (folder / "knowledge.json").write_text(json.dumps(items), "utf-8")
    pairs = [{"sentence_good": t.split(".")[0], "sentence_bad": t.split(".")[0][::-1]} for t in found[:12]]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs), "utf-8")


def write_bars(folder: Path, n: int = 200, seed: int = 7) -> None:
    """A folder of PNG files, one sub-folder per class."""
    for i, (image, label) in enumerate(zip(*bars(n, seed), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i}.png")


def write_classifier(folder: Path) -> dict[str, Any]:
    """A classifier that has learned nothing, whose features still tell images apart; its section of the task file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(SmallClassifier(1, 3).state_dict(), folder / "classifier.safetensors")
    sha256 = hashlib.sha256((folder / "classifier.safetensors").read_bytes()).hexdigest()
    return {"file": "classifier.safetensors", "sha256": sha256, "accuracy": 0.3333}


def results(run: Path) -> dict[str, bytes]:
    """Every file of a run's generations but the clock's, by its path below the run."""
    files = sorted(file for file in run.glob("gen-*/*") if file.name != "timing.json")
    return {str(file.relative_to(run)): file.read_bytes() for file in files}
