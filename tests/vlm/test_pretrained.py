import functools
import http.server
import json
import os
import threading

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from store.safefile import read_header
from tests.tiny_clip import TINY_CONFIG, tiny_tensors
from vlm.architecture import resolve_architecture
from vlm.errors import PretrainedUnavailableError, UnknownArchitectureError, UnknownPretrainedError
from vlm.pretrained import convert_checkpoint, fetch_pretrained, list_pretrained, resolve_pretrained


class Trap:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def tiny():
    return resolve_architecture(name="tiny", config=TINY_CONFIG)


def fits(architecture, path):
    header = read_header(path)
    return {name: entry.shape for name, entry in header.tensors.items()} == {
        name: entry.shape for name, entry in architecture.expected_tensors().items()
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
    ],
    ids=["plain", "training checkpoint", "data parallel", "double"],
)
def test_a_torch_checkpoint_becomes_safetensors_with_the_same_values(tmp_path, tiny, wrap):
    torch.save(wrap(tiny_tensors()), tmp_path / "model.pt")
    path = convert_checkpoint(tiny, tmp_path / "model.pt", tmp_path / "base.safetensors")
    assert fits(tiny, path)
    converted = load_file(path)
    assert all(torch.equal(converted[name], tensor) for name, tensor in tiny_tensors().items())


def test_half_precision_is_widened(tmp_path, tiny):
    halves = {name: tensor.half() for name, tensor in tiny_tensors().items()}
    torch.save(halves, tmp_path / "model.pt")
    converted = load_file(convert_checkpoint(tiny, tmp_path / "model.pt", tmp_path / "base.safetensors"))
    assert all(torch.equal(converted[name], tensor.float()) for name, tensor in halves.items())


def test_a_pickle_is_not_executed(tmp_path, tiny):
    torch.save({"state_dict": Trap(str(tmp_path / "sprung"))}, tmp_path / "model.pt")
    with pytest.raises(PretrainedUnavailableError, match="without executing it"):
        convert_checkpoint(tiny, tmp_path / "model.pt", tmp_path / "base.safetensors")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "base.safetensors").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.npz"])
def test_what_is_no_checkpoint_is_refused(tmp_path, tiny, name):
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(PretrainedUnavailableError, match="--weights"):
        convert_checkpoint(tiny, tmp_path / name, tmp_path / "base.safetensors")


def test_weights_of_another_architecture_are_refused(tmp_path, tiny):
    tensors = tiny_tensors()
    del tensors["ln_final.weight"]
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(PretrainedUnavailableError, match=r"ln_final\.weight"):
        convert_checkpoint(tiny, tmp_path / "model.pt", tmp_path / "base.safetensors")


def test_published_weights_bring_their_activation_and_preprocessing():
    openai, laion = (
        resolve_pretrained("ViT-B-32", "openai"),
        resolve_pretrained("ViT-B-32", "laion2b_s34b_b79k"),
    )
    assert openai.config["quick_gelu"] is True
    assert laion.config["quick_gelu"] is False
    assert openai.digest != laion.digest
    assert resolve_pretrained("ViT-L-14", "laion2b_s32b_b82k").preprocessing().mean == (0.5, 0.5, 0.5)
    assert resolve_pretrained("ViT-L-14", "openai").preprocessing().mean == open_clip.OPENAI_DATASET_MEAN


def test_an_unknown_tag_is_refused_and_the_known_ones_are_named(tmp_path):
    with pytest.raises(UnknownPretrainedError, match="openai"):
        resolve_pretrained("ViT-B-32", "nonsense")
    with pytest.raises(UnknownPretrainedError, match="none"):
        fetch_pretrained("ViT-S-32", "openai", tmp_path)
    with pytest.raises(UnknownArchitectureError):
        fetch_pretrained("ViT-nonsense", "openai", tmp_path)
    assert "openai" in list_pretrained("ViT-B-32")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An architecture `tiny` with weights `mine`, published by a server on this machine."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"state_dict": tiny_tensors()}, folder / "tiny.pt")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/tiny.pt"
    tag = {"url": url, "hf_hub": "", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", json.loads(json.dumps(TINY_CONFIG)))  # noqa: SLF001
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"mine": tag})  # noqa: SLF001
    monkeypatch.setenv("HOME", str(tmp_path))
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_published_weights_are_fetched_and_fit(published, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    path = fetch_pretrained("tiny", "mine", into)
    assert list(into.iterdir()) == [path]
    architecture = resolve_pretrained("tiny", "mine")
    assert fits(architecture, path)
    assert architecture.preprocessing().std == (0.4, 0.5, 0.6)
    assert architecture.config["quick_gelu"] is True
    assert torch.equal(load_file(path)["ln_final.weight"], tiny_tensors()["ln_final.weight"])


def test_a_failed_download_says_so_and_names_the_remedy(published, tmp_path):
    (published / "tiny.pt").unlink()
    with pytest.raises(PretrainedUnavailableError, match=r"could not be downloaded.*--weights"):
        fetch_pretrained("tiny", "mine", tmp_path)
