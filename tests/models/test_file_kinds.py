"""What a file is by its bytes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from promptseg.errors import IntegrityError
from promptseg.models._file_kinds import check_onnx, check_weights
from promptseg.models.sam import _transformers
from promptseg.specs import ModelSpec, Origin

SPEC = ModelSpec(
    name="mine",
    family="toy",
    load="toy:load",
    licence="MIT",
    accepts=frozenset({"points"}),
    origin=Origin(host="local", repo="."),
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 52000000\n"


def torch_bytes(content: object) -> bytes:
    """Return a file of torch.save."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def zip_bytes(*names: str) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def tar_bytes() -> bytes:
    """Return a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return stream.getvalue()


def script_bytes() -> bytes:
    """Return a TorchScript archive, as far as its names go."""
    return zip_bytes("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py")


WHOLE = save({"a": torch.ones(40)})
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0"


def _name_content(value: object) -> str | None:
    """Return the id of a parameter: bytes of an archive hold the time, and workers must agree on the names of tests."""
    return "content" if isinstance(value, bytes) else None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes). Copy it again"),
        (POINTER, "is a Git LFS pointer for 52.0 MB, not the file itself. Run `git lfs pull`"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b'{"error": "Repository not found"}', 'is JSON, not weights (it begins with \'{"error": "Repository'),
        (gzip.compress(tar_bytes()), "is a gzip archive"),
        (tar_bytes(), "is a tar archive"),
        (zip_bytes("best/weights.pth", "best/readme.txt"), "is a zip archive (best/readme.txt, best/weights.pth)"),
        (script_bytes(), 'torch.save(torch.jit.load("w.pth").state_dict()'),
        (ONNX, "is an ONNX graph, not weights of torch. To use this model, use the adapter sam_onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file, as Keras"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (pickle.dumps({"a": [1.0]}), "is a plain pickle, not a file of torch.save"),
        (b"\x00\x01 noise \x1b[1m", "is neither safetensors nor a file of torch.save (it begins with"),
        (torch_bytes({"a": torch.ones(300)})[:-40], "is cut short"),
        (torch_bytes(nn.Linear(2, 2).state_dict())[:90], "is cut short"),
        (WHOLE[:-9], "is cut short: its header lists 232 B, the file has 223 B"),
        (WHOLE[:30], "is cut short: its header has"),
        (WHOLE[:8] + b"{" + b"?" * (len(WHOLE) - 9), "its header is damaged"),
        ((9 << 40).to_bytes(8, "little") + b'{"a": 1}', "is cut short: its header has 9895.6 GB"),
    ],
    ids=_name_content,
)
def test_each_kind_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """With a remedy for the user's own file."""
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        check_weights(SPEC, path)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert "Remove" not in str(caught.value)


@pytest.mark.parametrize("content", [WHOLE, torch_bytes({"a": torch.ones(3)})], ids=["safetensors", "torch"])
def test_whole_files_are_let_through(tmp_path: Path, content: bytes) -> None:
    """Whatever their name, also that of an only part."""
    for name in ("a.bin", "model-00001-of-00001.safetensors"):
        (tmp_path / name).write_bytes(content)
        check_weights(SPEC, tmp_path / name)


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "pytorch_model-00002-of-00003.bin"])
def test_a_part_of_a_checkpoint_names_the_others(tmp_path: Path, name: str) -> None:
    """Those that are missing beside it, too."""
    for part in (name, name.replace("00002-", "00001-")):
        (tmp_path / part).write_bytes(WHOLE)
    with pytest.raises(IntegrityError, match=r"one of 3 parts .*, of which \S+-00003-of-00003\.\w+ is not beside it"):
        check_weights(SPEC, tmp_path / name)


def test_an_index_names_its_missing_parts(tmp_path: Path) -> None:
    """It is no checkpoint by itself."""
    index = {"metadata": {}, "weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "x-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=r"checkpoint in 2 parts, of which x-1\S+, x-2\S+ are not beside it"):
        check_weights(SPEC, tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [(POINTER, "Git LFS pointer"), (WHOLE, "not an ONNX graph"), (torch_bytes({}), "not an ONNX graph")],
    ids=_name_content,
)
def test_what_is_certainly_no_onnx_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """What begins as ONNX does is left to its reader."""
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(IntegrityError, match=said):
        check_onnx(SPEC, tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(ONNX)
    check_onnx(SPEC, tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "Git LFS pointer"),
        (b"{'model_type': 'sam'}", "is not JSON"),
        (b'{"feature_extractor_type": "X", "size": 9}', "is the config of an image processor"),
        (b'{"model_type": "clip"}', "has the model_type 'clip'; this adapter reads sam or sam_hq"),
        (b'{"hidden_size": 9}', "has no model_type"),
        (b"[]", "has no model_type"),
        (b'{"model_type": "sam", "vision_config": 3}', r"no config that transformers\.SamConfig can use"),
    ],
)
def test_a_file_that_is_no_config_of_the_model_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """The config of a processor lies beside that of the model, and looks like it."""
    kinds = {name: _transformers.Kind("SamConfig", "SamModel") for name in ("sam", "sam_hq")}
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=said):
        _transformers.read_config(SPEC, tmp_path / "config.json", kinds)
