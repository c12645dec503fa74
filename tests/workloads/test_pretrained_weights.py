"""Pretrained weights and single files of the hub: found, refused with a reason and a way out, loaded as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from no_network import closed_network, raising
from safetensors.torch import load_file, save_file
from tiny_task import write_language_model, write_tiny_task

from collapsebench.data import web_files
from collapsebench.data.hub_files import hub_file
from collapsebench.errors import DataError
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained import supplies
from collapsebench.workloads.pretrained.model import load_pretrained, weights_digest
from collapsebench.workloads.pretrained.settings import PretrainedModel
from collapsebench.workloads.pretrained.supplies import model_place

REVISION = "0123456789" * 4
ARCHITECTURE = {"hidden_size": 32, "layers": 1, "heads": 4, "kv_heads": 2, "intermediate_size": 48, "vocab_size": 320}
SETTINGS = PretrainedModel.model_validate({"path": "model", "parameters": 18016, "architecture": ARCHITECTURE})
WEIGHTS = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And a network that fails the test, unless it is `online`: then hosts answer, and the rest is the test's."""
    yield from closed_network(monkeypatch, tmp_path / "hub")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "urlopen", lambda *_, **__: io.BytesIO())


# Where they are


def saved(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.mark.parametrize("there", [(), WEIGHTS[:1], WEIGHTS[1:], WEIGHTS[::2]])
def test_a_folder_without_weights_names_every_file_that_it_lacks(there: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        model_place(SETTINGS, saved(tmp_path / "model", *there))
    missing = [name.replace("model.", "*.") for name in WEIGHTS if name not in there]
    assert f"lacks {', '.join(missing)}: give a folder" in str(caught.value)


def test_weights_in_one_packed_file_need_the_package_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "model", "small.gguf")
    monkeypatch.setattr(supplies, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"small\.gguf needs the package gguf.*pip install gguf"):
        model_place(SETTINGS, folder)
    monkeypatch.setattr(supplies, "find_spec", lambda name: name)
    assert model_place(SETTINGS, folder) == (str(folder), {"gguf_file": "small.gguf"})
    saved(folder, *WEIGHTS)
    assert model_place(SETTINGS, folder) == (str(folder), {"local_files_only": True}), "not the rounded ones"
    saved(folder, "smaller.gguf")
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"lacks config\.json"):
        model_place(SETTINGS, folder)


ANSWER: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.GatedRepoError("no", response=ANSWER), r"is gated.*co/PAGE and log in with `hf auth login`, or else\."),
        (errors.RepositoryNotFoundError("no", response=ANSWER), r"has no a\.json, or needs a login.*, or else\."),
        (errors.RemoteEntryNotFoundError("no", response=ANSWER), r"has no a\.json, or needs a login.*, or else\."),
        (errors.LocalEntryNotFoundError("cut off"), r"\(LocalEntryNotFoundError: cut off\): check the network, or"),
        (TimeoutError("timed\nout"), r"needed \(a\.json\).*TimeoutError: timed out\): check the network, or"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_the_hub_does_not_give_is_said_with_the_reason_and_a_way_out(
    kind: Any, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", raising(error))
    told = told.replace("PAGE", "a/b" if kind == "model" else "datasets/a/b")
    with pytest.raises(DataError, match=f"^{kind} a/b, revision {REVISION[:12]} .*{told}"):
        hub_file("a/b", "a.json", REVISION, kind, "or else")


def test_a_file_in_the_cache_is_found_without_asking_the_network(tmp_path: Path) -> None:
    file = tmp_path / "hub/models--a--b/snapshots" / REVISION / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert hub_file("a/b", "config.json", REVISION, "model", "or else") == file


def test_whoever_is_offline_on_purpose_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        hub_file("a/b", "config.json", REVISION, "model", "or else")


@pytest.mark.usefixtures("online")
def test_a_file_of_the_hub_is_asked_for_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout < 5)))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **more: asked.append((args, more)) or "file")
    assert hub_file("a/b", "c.json", REVISION, "dataset", "or else") == Path("file")
    assert asked == [
        (f"{constants.ENDPOINT}/datasets/a/b/resolve/{REVISION}/c.json", True),
        (("a/b", "c.json"), {"revision": REVISION, "repo_type": "dataset"}),
    ]


# What they are


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, as it is downloaded; not to be changed."""
    folder = tmp_path_factory.mktemp("weights") / "model"
    write_language_model(folder)
    return folder


def changed(weights: Path, target: Path, name: str, **changes: Any) -> Path:
    """A copy with other entries in one of its JSON files."""
    target.mkdir()
    for file in weights.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    content = json.loads((target / name).read_text("utf-8")) | changes
    (target / name).write_text(json.dumps(content), "utf-8")
    return target


def test_weights_are_loaded_in_float32_and_their_generation_settings_left_out(weights: Path, tmp_path: Path) -> None:
    folder = changed(weights, tmp_path / "model", "generation_config.json", temperature=0.3, repetition_penalty=9.0)
    model, tokenizer = load_pretrained(SETTINGS, folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.generation_config.repetition_penalty in (None, 1.0)
    assert model.generation_config.temperature in (None, 1.0)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0


def test_digest_is_that_of_the_weights_and_not_of_their_file(weights: Path, tmp_path: Path) -> None:
    model, _ = load_pretrained(SETTINGS, weights)
    digest = weights_digest(model)
    model.save_pretrained(changed(weights, tmp_path / "parts", "config.json"), max_shard_size="40KB")
    (tmp_path / "parts/model.safetensors").unlink()
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert weights_digest(load_pretrained(SETTINGS, tmp_path / "parts")[0]) == digest
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-6
    assert weights_digest(model) != digest


def test_model_of_another_size_is_refused(weights: Path) -> None:
    settings = SETTINGS.model_copy(update={"parameters": 135_000_000})
    with pytest.raises(DataError, match=r"holds a model of 18,016 parameters; the task's has 135,000,000"):
        load_pretrained(settings, weights)


@pytest.mark.parametrize("damage", ["cut off", "other shapes", "unknown kind"])
def test_damaged_weights_are_named(damage: str, weights: Path, tmp_path: Path) -> None:
    changes = {"model_type": "no_such_kind"} if damage == "unknown kind" else {}
    folder = changed(weights, tmp_path / "model", "config.json", **changes)
    if damage == "cut off":
        (folder / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes()[:-100])
    if damage == "other shapes":
        changed(weights, tmp_path / "other", "config.json", intermediate_size=64)
        (folder / "config.json").write_bytes((tmp_path / "other/config.json").read_bytes())
    with pytest.raises(DataError, match=f"{folder}.*cannot be loaded: ") as caught:
        load_pretrained(SETTINGS, folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_in_the_file_are_named_and_not_drawn(weights: Path, tmp_path: Path) -> None:
    folder = changed(weights, tmp_path / "model", "config.json")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks weights: model\.norm\.weight; 1 in all"):
        load_pretrained(SETTINGS, folder)


def test_weights_in_one_packed_file_are_the_same_model(weights: Path, tmp_path: Path) -> None:
    write_packed(weights, tmp_path / "tiny.gguf")
    model, tokenizer = load_pretrained(SETTINGS, weights)
    packed, packed_tokenizer = load_pretrained(SETTINGS, tmp_path)
    assert weights_digest(packed) == weights_digest(model)
    text = "The mill in Harwick was built in 1801."
    assert packed_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def write_packed(weights: Path, file: Path) -> None:
    """The model of a folder as one GGUF file, in float32."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(file, "llama")
    for name, value in (
        ("context_length", 2048), ("embedding_length", 32), ("block_count", 1), ("feed_forward_length", 48),
        ("head_count", 4), ("head_count_kv", 2), ("layer_norm_rms_eps", 1e-6), ("rope_dimension_count", 8),
        ("rope_freq_base", 10_000.0), ("vocab_size", 320), ("eos_token_id", 0), ("bos_token_id", 0),
        ("tokenizer_model", "gpt2"), ("tokenizer_pre", "gpt-2"),
    ):  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    bpe = json.loads((weights / "tokenizer.json").read_text("utf-8"))["model"]
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].get))
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * 319)
    writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, tensor in load_file(weights / "model.safetensors").items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads is not None:  # GGUF keeps the two halves of rotated dimensions side by side
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def without_end(weights: Path, target: Path, end: int | list[int] | None) -> Path:
    """A copy whose tokeniser has no end-of-text token; what the model's own configuration says it is."""
    first = changed(weights, target.with_name("first"), "tokenizer_config.json", eos_token=None)
    second = changed(first, target.with_name("second"), "generation_config.json", eos_token_id=end)
    return changed(second, target, "config.json", eos_token_id=end)


@pytest.mark.parametrize("end", [0, [0, 1]])
def test_a_models_end_of_text_token_serves_a_tokeniser_without_one(end: Any, weights: Path, tmp_path: Path) -> None:
    _, tokenizer = load_pretrained(SETTINGS, without_end(weights, tmp_path / "model", end))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)


def test_weights_without_any_end_of_text_token_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the tokeniser at .* has no end-of-text token; add one"):
        load_pretrained(SETTINGS, without_end(weights, tmp_path / "model", None))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"workload.evaluation.max_length": 4096}, 4096),
        ({"workload.sampler.context": 2041}, 2049),
    ],
)
def test_a_model_that_reads_less_than_the_task_needs_is_refused(
    changes: dict[str, Any], wanted: int, tmp_path: Path
) -> None:
    task = load_task(write_tiny_task(tmp_path, "pretrained-lm", **changes))
    with pytest.raises(DataError, match=f"the model reads 2048 tokens at once, the task needs {wanted}"):
        load_workload(task, "cpu")
