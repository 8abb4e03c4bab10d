"""Checkpoints as people save them: taken by a documented rule, or refused for what they are with a fitting remedy."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from promptseg.errors import IntegrityError
from promptseg.models import _weights
from promptseg.models._weights import load_weights
from promptseg.specs import ModelSpec, Origin

ADVICE = ("weights_only", "\x1b", "pull it again", "Remove ")


class Net(nn.Module):
    """Two layers and a counter, under names of two segments."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(2, width)
        self.norm = nn.BatchNorm1d(width)


def spec_of(host: str = "local") -> ModelSpec:
    """Return a model whose files are the user's own, or come from the Hub."""
    return ModelSpec(
        name="mine",
        family="toy",
        load="toy:load",
        licence="MIT",
        accepts=frozenset({"points"}),
        origin=Origin(host="local", repo=".") if host == "local" else Origin(host="hub", repo="a/b"),
    )


def weights(width: int = 3) -> dict[str, Tensor]:
    """Return weights whose numbers tell one tensor from another."""
    torch.manual_seed(width)
    return {k: torch.rand(v.shape) if v.is_floating_point() else v for k, v in Net(width).state_dict().items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return weights with something before each name."""
    return {f"{prefix}{name}": tensor for name, tensor in (state or weights()).items()}


def loaded(path: Path, **options: Any) -> nn.Module:
    """Return the network with the weights of a file."""
    with torch.device("meta"):
        net = Net()
    load_weights(net, spec_of(), path, **options)
    return net


def refusal(path: Path, *, host: str = "local", **options: Any) -> str:
    """Return what is said of a file that is refused; it names the file, and never gives torch's advice."""
    with pytest.raises(IntegrityError) as caught:
        load_weights(Net(), spec_of(host), path, **options)
    message = str(caught.value)
    assert message.startswith(f"model mine: {path} ")
    if host == "local":
        assert not any(words in message for words in ADVICE)
    return message


def saved(path: Path, content: object, *, legacy: bool = False) -> Path:
    """Write a file of torch.save."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def assert_same(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Compare all weights."""
    assert all(torch.equal(tensor, state[name].to(tensor.dtype)) for name, tensor in net.state_dict().items())


# ------------------------------------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("legacy", [False, True])
def test_the_content_decides_not_the_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, legacy: bool) -> None:
    """Safetensors and files of torch.save are read whatever they are called, and nothing is said about it."""
    state = weights()
    save_file(state, tmp_path / "one.bin")
    saved(tmp_path / "two.safetensors", state, legacy=legacy)
    for name in ("one.bin", "two.safetensors"):
        assert_same(loaded(tmp_path / name), state)
    assert not caplog.messages


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Counters stay integers."""
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights().items()}
    save_file(state, tmp_path / "a")
    net = loaded(tmp_path / "a")
    assert net.get_parameter("stem.weight").dtype == torch.float32
    assert net.get_buffer("norm.num_batches_tracked").dtype == torch.int64
    assert_same(net, state)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            lambda s: {"iteration": 9, "net": s, "optim": {"state": {0: {"exp_avg": torch.ones(3)}}}},
            "'net'; .*optim",
        ),
        (lambda s: {"a": {"b": {"weights": s}}}, "under 'a.b.weights'"),
        (lambda s: {"model_state_dict": s, "criterion": {"weight": torch.ones(2)}}, "under 'model_state_dict'"),
        (lambda s: prefixed("net.", s), "taken off its names: net."),
        (lambda s: prefixed("_orig_mod.module.", s), "taken off its names: _orig_mod.module."),
        (lambda s: prefixed("model.segmenter.", s), "taken off its names: model.segmenter."),
        (lambda s: {k.replace("stem.", "stem._orig_mod."): v for k, v in s.items()}, "names: _orig_mod."),
        (
            lambda s: {"state_dict": prefixed("module.", s), "lr": 0.1},
            "'state_dict'.*lr; taken off its names: module.",
        ),
        (lambda s: {**s, "epoch": 3}, "left aside: epoch"),
    ],
)
def test_what_fits_alone_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    """Nested under a key, or with something before the names, as long as there is one that fits."""
    state = weights()
    assert_same(loaded(saved(tmp_path / "a.pt", content(state))), state)
    (message,) = caplog.messages
    assert message.startswith("model mine: a.pt: ")
    assert re.search(said, message)
    assert caplog.records[0].levelno == logging.WARNING


# ------------------------------------------------------------------------------------------------ what is refused


def test_two_that_fit_are_a_choice_of_the_user(tmp_path: Path) -> None:
    """Weights and their running mean give other numbers: neither is taken."""
    path = saved(tmp_path / "a", {"model": weights(), "model_ema": prefixed("module.", weights())})
    said = refusal(path)
    assert "holds weights that fit under 'model' and 'model_ema'" in said
    assert """torch.save(checkpoint['model'], "weights.pth")""" in said


def test_a_prefix_of_some_names_is_said(tmp_path: Path) -> None:
    """What is beside the weights may change the answer: a head, or adapters of another kind."""
    said = refusal(saved(tmp_path / "a", {**prefixed("net."), "loss.weight": torch.ones(1)}))
    assert "under names that begin with 'net.', and others: loss.weight" in said
    assert "{k.removeprefix('net.'): v for k, v in state.items() if k.startswith('net.')}" in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"base_model.model.stem.lora_A.weight": torch.ones(1, 2)}, "LoRA adapters without the model"),
        ({"w_a_000": torch.ones(1), "w_b_000": torch.ones(1)}, "LoRA adapters without the model"),
        ({**weights(), "stem.lora_B.default.weight": torch.ones(1)}, "LoRA adapters that are not merged"),
    ],
)
def test_adapters_must_be_merged(tmp_path: Path, state: dict[str, Tensor], said: str) -> None:
    """Alone or beside their base, by the names of peft and of others."""
    save_file(state, tmp_path / "adapter_model.safetensors")
    message = refusal(tmp_path / "adapter_model.safetensors")
    assert said in message
    assert "merge_and_unload()" in message


def test_another_size_names_the_architecture_that_fits(tmp_path: Path) -> None:
    """Where it is known; shapes are named where it is not."""
    path = saved(tmp_path / "a", weights(5))
    said = refusal(path, others=lambda: [("narrow", Net(3)), ("wide", Net(5))])
    assert "It is of architecture wide: set that option" in said
    assert "stem.bias (5,) instead of (3,)" in said
    assert refusal(path, hint="Look at the config").endswith("Look at the config.")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("image_encoder.blocks.0.norm1.", "use the adapter sam."),
        ("image_encoder.trunk.blocks.0.", "convert it to transformers' Sam2Model"),
        ("vision_encoder.layers.0.", "use the adapter sam_hf."),
    ],
)
def test_names_of_another_program_name_its_adapter(tmp_path: Path, names: str, said: str) -> None:
    """A checkpoint of transformers given to the adapter of the official package, and the other way round."""
    save_file({f"{names}weight": torch.ones(1), "prompt_encoder.x": torch.ones(1)}, tmp_path / "a")
    assert said in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, "the state of an optimizer"),
        ({"epoch": 3, "metrics": [0.5]}, "holds epoch, metrics and no weights"),
        ([torch.ones(2)], "holds a list and no weights"),
        (torch.ones(2), "holds a Tensor and no weights"),
        ({}, "no weights under names"),
        ({"encoder": weights(5)}, "'encoder' does not fit the architecture"),
        ({k: v.to(torch.int8) if v.ndim == 2 else v for k, v in weights().items()}, "quantised"),
        ({k: v.to_sparse() if v.ndim == 2 else v for k, v in weights().items()}, "quantised"),
        ({k: v.to("meta") for k, v in weights().items()}, "quantised"),
    ],
)
def test_content_without_the_weights_is_named(tmp_path: Path, content: object, said: str) -> None:
    """What is there is listed."""
    assert said in refusal(saved(tmp_path / "a", content))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_are_none_are_refused_by_name(tmp_path: Path, value: float) -> None:
    """Also those that float32 cannot hold."""
    state = {name: tensor.double() for name, tensor in weights().items() if name != "norm.num_batches_tracked"}
    state["stem.bias"][1] = value
    path = saved(tmp_path / "a", {**state, "norm.num_batches_tracked": torch.tensor(0)})
    assert "NaN or infinity in 1 of 7 tensors: stem.bias" in refusal(path)


# ------------------------------------------------------------------------------------------------ pickles


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_model_is_named_by_its_class(tmp_path: Path, *, legacy: bool) -> None:
    """Nothing is imported; the remedy is its state_dict."""
    said = refusal(saved(tmp_path / "a", Net(), legacy=legacy))
    assert f"is a pickled model of class {Net.__module__}.Net" in said
    assert "torch.save(model.state_dict()" in said


def test_an_object_beside_the_weights_is_named(tmp_path: Path) -> None:
    """The options of the training, say."""
    said = refusal(saved(tmp_path / "a", {"model": weights(), "args": argparse.Namespace(lr=1)}))
    assert "holds, beside tensors, an object of class argparse.Namespace" in said


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_named_and_not_run(tmp_path: Path, *, legacy: bool) -> None:
    """The remedy is not to load it at all."""
    path = saved(tmp_path / "a", {"model": weights(), "x": Call(os.mkdir, str(tmp_path / "bait"))}, legacy=legacy)
    assert "would call posix.mkdir when it is unpickled" in refusal(path).replace("nt.mkdir", "posix.mkdir")
    assert not (tmp_path / "bait").exists()


@pytest.mark.parametrize("function", [bytearray, torch.Tensor, torch.UntypedStorage])
def test_a_number_that_asks_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., object]
) -> None:
    """Before torch reads the file at all."""
    path = saved(tmp_path / "a", {"model": weights(), "x": Call(function, 1 << 20)})
    monkeypatch.setattr(_weights, "read_torch", lambda _: pytest.fail("it was read"))
    assert "would allocate memory by" in refusal(path)


def test_storages_larger_than_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the format of before torch 1.6, torch allocates what the pickle claims."""
    content = saved(tmp_path / "whole", {"a": torch.zeros(70000)}, legacy=True).read_bytes()
    claim = pickle.dumps(70000, 2)[2:-1]
    assert claim in content
    (tmp_path / "a").write_bytes(content.replace(claim, b"J" + (1 << 30).to_bytes(4, "little")))
    monkeypatch.setattr(_weights, "read_torch", lambda _: pytest.fail("it was read"))
    assert f"claims a tensor of {1 << 30} elements" in refusal(tmp_path / "a")


def test_a_file_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path) -> None:
    """torch.save does not compress: zeros that were packed by something else can be of any size."""
    saved(tmp_path / "whole", {"a": torch.zeros(1 << 18)})
    with zipfile.ZipFile(tmp_path / "whole") as old, zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert "claims 1.1 MB of content in a file of" in refusal(tmp_path / "a").replace("1.0 MB", "1.1 MB")


def test_expanded_tensors_take_no_memory_before_they_fit(tmp_path: Path) -> None:
    """A view of one number is of any shape."""
    said = refusal(saved(tmp_path / "a", {**weights(), "stem.weight": torch.zeros(1).expand(1 << 40)}))
    assert "stem.weight (1099511627776,) instead of (3, 2)" in said


# ------------------------------------------------------------------------------------------------ whose file it is


def test_a_broken_transfer_is_fetched_again_where_promptseg_fetched_it(tmp_path: Path) -> None:
    """Only then may the file be removed; what a person saved is theirs."""
    path = tmp_path / "a.pth"
    path.write_bytes(b"")
    assert f"Remove {path} and run `promptseg pull mine`" in refusal(path, host="hub")
    assert "Copy it again" in refusal(path)
    assert "promptseg pull" not in refusal(saved(path, Net()), host="hub")
