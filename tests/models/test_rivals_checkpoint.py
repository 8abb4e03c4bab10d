"""The authors' checkpoints: read without running anything, converted once, refused with a reason."""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from promptseg.errors import ConfigError, IntegrityError
from promptseg.models.click import _checkpoint, ritm
from promptseg.specs import ModelSpec, Origin

MINE = ModelSpec(
    name="mine",
    family="toy",
    load="toy:load",
    licence="MIT",
    accepts=frozenset({"points"}),
    origin=Origin(host="local", repo="."),
)
STATE = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), count=torch.tensor(7), half=torch.ones(2).half())
HRNET = "isegm.model.is_hrnet_model.HRNetModel"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def loss(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """An object of a class that lies in a module of the authors, which only the writer of a file can import."""

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ignored, self.reduce = {255}, torch.nn.functional.relu

    module: Any = types.ModuleType("isegm_losses")
    module.Loss = Loss
    Loss.__module__, Loss.__qualname__ = "isegm_losses", "Loss"
    monkeypatch.setitem(sys.modules, "isegm_losses", module)
    return Loss()


def save(path: Path, params: dict[str, Any], *, legacy: bool = False) -> Path:
    """Write a file as the authors' training does."""
    config = {name: {"type": "builtin", "value": value, "specified": True} for name, value in params.items()}
    content = {"state_dict": STATE, "config": {"class": HRNET, "params": config}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def read(path: Path, class_name: str = "HRNetModel") -> _checkpoint.Checkpoint:
    """Read a file for a model named ``mine``."""
    return _checkpoint.read_checkpoint(MINE, path, class_name)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_and_plain_params_come_out(tmp_path: Path, *, legacy: bool) -> None:
    """Both formats of torch.save; floating point tensors as float32, integers as they are."""
    found = read(save(tmp_path / "a.pth", {"width": 18, "size": (448, 448)}, legacy=legacy))
    assert found.params == {"width": 18, "size": [448, 448]}
    assert found.class_name == HRNET
    assert {name: value.dtype for name, value in found.state.items()} == {
        "weight": torch.float32,
        "count": torch.int64,
        "half": torch.float32,
    }
    assert torch.equal(found.state["weight"], STATE["weight"])


def test_an_object_of_the_authors_becomes_a_placeholder(
    tmp_path: Path, loss: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class is not imported: it is not even there when the file is read."""
    path = save(tmp_path / "a.pth", {"head": {"loss_decode": loss, "channels": 256}})
    monkeypatch.delitem(sys.modules, "isegm_losses")
    assert read(path).params == {"head": {"loss_decode": {"object": "isegm_losses.Loss"}, "channels": 256}}
    assert "isegm_losses" not in sys.modules


def test_a_file_is_converted_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later loads read safetensors and JSON alone; the place is the sum of the file, so a copy shares it."""
    first = read(save(tmp_path / "a.pth", {"width": 18}))
    (folder,) = (cache / "converted").iterdir()
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "model.safetensors"]
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())

    def refuse(*_: object) -> object:
        raise AssertionError("the pickle was read again")

    monkeypatch.setattr(_checkpoint, "_unpickled", refuse)
    again = read(tmp_path / "b.pth")
    assert again.params == first.params
    assert all(torch.equal(again.state[name], value) for name, value in first.state.items())


def test_a_conversion_that_was_changed_is_refused(tmp_path: Path, cache: Path) -> None:
    """Its sum is kept beside it."""
    path = save(tmp_path / "a.pth", {"width": 18})
    read(path)
    (folder,) = (cache / "converted").iterdir()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"not the file that was pinned.*it is made again"):
        read(path)


class Touch:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self._reduced = call, args

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("place", ["config", "state", "all"])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, cache: Path, place: str, *, legacy: bool) -> None:
    """Wherever it hides, whatever the format: nothing happens, nothing is kept."""
    bait = tmp_path / "executed"
    code = Touch(os.mkdir, str(bait))
    content: Any = {"state_dict": {"a": code if place == "state" else torch.ones(1)}, "config": {"class": code}}
    torch.save(code if place == "all" else content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(IntegrityError, match=r"mine: .*a\.pth would call (posix|nt)\.mkdir .* Nothing of it was run"):
        read(tmp_path / "a.pth")
    assert not bait.exists()
    assert not (cache / "converted").exists()


@pytest.mark.parametrize("call", [eval, exec, __import__])
def test_builtin_code_is_code(tmp_path: Path, call: Callable[..., object]) -> None:
    """What is built in is named by another module in the protocol that torch writes."""
    torch.save({"config": Touch(call, "1")}, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match=rf"would call (__builtin__|builtins)\.{call.__name__} "):
        read(tmp_path / "a.pth")


def test_a_call_of_foreign_code_builds_an_inert_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of any other package is neither imported nor called."""
    bait = tmp_path / "executed"
    module: Any = types.ModuleType("foreign_code")

    def make(path: str) -> None:
        Path(path).mkdir()

    make.__module__, make.__qualname__ = "foreign_code", "make"
    module.make = make
    monkeypatch.setitem(sys.modules, "foreign_code", module)
    path = save(tmp_path / "a.pth", {"x": Touch(make, str(bait))})
    assert read(path).params == {"x": {"object": "foreign_code.make"}}
    assert not bait.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path: Path, cache: Path, part: float, *, legacy: bool) -> None:
    """Wherever it was cut; nothing is kept."""
    content = save(tmp_path / "whole.pth", {"width": 18}, legacy=legacy).read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(IntegrityError, match=r"mine: .*a\.pth is (damaged or )?cut short.* whole"):
        read(tmp_path / "a.pth")
    assert not (cache / "converted").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "empty"), (b"not a pickle", "neither safetensors nor"), (b"PK\x03\x04 nor a zip", "cut short")],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    """An error page saved under the name of the weights, for example."""
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(IntegrityError, match=found):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"weight": torch.ones(2)}, "no state_dict of tensors"),
        ([torch.ones(2)], "no state_dict of tensors"),
        ({"state_dict": {"a": torch.ones(1)}}, "no config that names its class"),
        ({"state_dict": {"a": torch.ones(1)}, "config": {"class": HRNET}}, "a config without params"),
    ],
)
def test_a_checkpoint_of_others_is_refused(tmp_path: Path, content: object, found: str) -> None:
    """Only weights with their config are what these authors publish."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match=f"as its authors publish it: it holds {found}.*Name a file as"):
        read(tmp_path / "a.pth")


def test_a_checkpoint_of_another_class_is_refused(tmp_path: Path) -> None:
    """A RITM file given for SimpleClick."""
    with pytest.raises(
        IntegrityError, match=r"holds a isegm\.model\.is_hrnet_model\.HRNetModel, this model is a Plain"
    ):
        read(save(tmp_path / "a.pth", {"width": 18}), "PlainVitModel")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    """The message says what the file has and what the model is."""
    path = save(tmp_path / "a.pth", {"width": 18, "ocr_width": 64, "small": False})
    with pytest.raises(IntegrityError, match=r"has {'width': 18, .*}, hrnet32 has {'width': 32, .*show ritm_hrnet32"):
        _checkpoint.check_architecture(read(path), ritm.HRNET32, ritm.ARCHITECTURES)
    _checkpoint.check_architecture(read(path), ritm.HRNET18, ritm.ARCHITECTURES)
    with pytest.raises(ConfigError, match="option architecture is 'hrnet32'; it must be one of a, b"):
        _checkpoint.check_architecture(read(path), ritm.HRNET32, {"a": {}, "b": {}})


def test_the_reader_is_quiet(tmp_path: Path) -> None:
    """Torch warns about much; none of it is for the user."""
    path = save(tmp_path / "a.pth", {"width": 18})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(path)
