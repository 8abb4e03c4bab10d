"""The parts that all SAM adapters share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptseg.errors import ConfigError, IntegrityError, ModelError
from promptseg.models import _loading
from promptseg.models.sam import _segmenter, _upsampling
from promptseg.models.sam._segmenter import Features, Frame, FramedImage, Prompts, SamSegmenter, SquashedFrame
from promptseg.models.sam._upsampling import masks_and_stability
from promptseg.segmenter import Image, Prompt, Request, Runtime, check_prediction
from promptseg.specs import ModelSpec

SIDE = 64


def spec_with(**options: object) -> ModelSpec:
    """Return a spec that only these tests use."""
    return ModelSpec(
        name="toy",
        family="sam",
        load="toy:load",
        licence="MIT",
        accepts=frozenset({"points", "boxes"}),
        options=options,
    )


def image_of(height: int, width: int, seed: int = 0) -> Image:
    """Return noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def click(*points: tuple[float, float]) -> Prompt:
    """Return a prompt of foreground points."""
    return Prompt(points_xy=np.array(points, np.float32), labels=np.ones(len(points), np.int64))


def box(*corners: float) -> Prompt:
    """Return a prompt of one box."""
    return Prompt(box_xyxy=np.array(corners, np.float32))


def encode(batch: torch.Tensor) -> Features:
    """Return features that hold the brightness of the image in every pixel."""
    return (batch.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 1, 4, 4),)


class Recorder:
    """A decoder that marks the pixel of the low resolution map under the first point, and notes its batches."""

    def __init__(self, fill: float = -1.0) -> None:
        self.batches: list[Prompts] = []
        self.fill = fill

    def __call__(self, features: Features, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, 3, 16, 16) logits and (B, 3) scores."""
        self.batches.append(prompts)
        logits = torch.full((len(features[0]), 3, SIDE // 4, SIDE // 4), self.fill)
        corners = prompts.points_xy[:, 0] if prompts.points_xy is not None else _first_corner(prompts)
        for i, (x, y) in enumerate(corners.tolist()):
            logits[i, :, int(y / 4), int(x / 4)] = 30.0
        return logits, torch.arange(3.0).expand(len(features[0]), 3)


def _first_corner(prompts: Prompts) -> torch.Tensor:
    assert prompts.boxes_xyxy is not None
    return prompts.boxes_xyxy[:, :2]


def segmenter_of(decoder: Any, **runtime: Any) -> SamSegmenter:
    """Return a segmenter with the toy encoder."""
    return SamSegmenter(spec_with(), encode, decoder, Runtime(**runtime), side=SIDE)


@pytest.mark.parametrize(
    ("image_hw", "inner_hw"),
    [
        ((512, 512), (1024, 1024)),
        ((49, 54), (929, 1024)),
        ((1, 2048), (1, 1024)),  # half a row is rounded up
        ((3, 4096), (1, 1024)),
        ((2000, 1000), (1024, 512)),
    ],
)
def test_inner_size_rounds_halves_up(image_hw: tuple[int, int], inner_hw: tuple[int, int]) -> None:
    """The resized image has the longest side of the square, the other one rounded half up."""
    assert Frame(image_hw, 1024).inner_hw == inner_hw


@pytest.mark.parametrize("image_hw", [(49, 54), (300, 80), (80, 300), (1400, 1100), (1024, 1024)])
def test_resize_and_coordinates_are_the_official_ones(image_hw: tuple[int, int]) -> None:
    """Pixels and points equal those of the official ResizeLongestSide, bit for bit."""
    _loading.import_torchvision()
    from segment_anything.utils.transforms import ResizeLongestSide

    official, frame, image = ResizeLongestSide(1024), Frame(image_hw, 1024), image_of(*image_hw)
    points_xy = np.random.default_rng(1).uniform(0, 50, (7, 2)).astype(np.float32)
    assert np.array_equal(frame.image_to_inner(image), official.apply_image(image))
    expected = torch.as_tensor(official.apply_coords(points_xy, image_hw), dtype=torch.float)
    assert np.array_equal(frame.to_inner(points_xy), expected.numpy())
    boxes = torch.as_tensor(official.apply_boxes(points_xy[:2].reshape(1, 4), image_hw), dtype=torch.float)
    assert np.array_equal(frame.box_to_inner(points_xy[:2].reshape(4)), boxes.numpy()[0])


def test_padding_comes_after_normalisation() -> None:
    """A black image is the negative mean over the deviation where it lies, and exactly zero in the padding."""
    frame = Frame((16, 32), SIDE)
    image = FramedImage.of(np.zeros((16, 32, 3), np.uint8), frame)
    values = _segmenter.encoder_input(image, torch.device("cpu"))
    assert values.shape == (3, SIDE, SIDE)
    assert values[0, :32].eq(torch.tensor(-123.675) / 58.395).all()
    assert values[:, 32:].eq(0).all()


def masks_of(low_res: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return the masks of the image."""
    return masks_and_stability(low_res, *frame.steps, stability=False)[0]


def test_logits_lose_the_padding_before_they_are_upsampled() -> None:
    """What a model says in the padding never reaches the image."""
    low_res = torch.full((1, 16, 16), -1.0)
    low_res[:, 9:] = 50.0  # rows 36 to 63 of the square are padding
    masks = masks_of(low_res, Frame((16, 32), SIDE))
    assert masks.shape == (1, 16, 32)
    assert not masks.any()


def blobs(side: int) -> torch.Tensor:
    """Return logits of a small disc, a large one, noise, and nothing at all."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = torch.hypot(y - side * 0.4, x - side * 0.3)
    noise = torch.randn((side, side), generator=torch.Generator().manual_seed(0))
    return torch.stack([side * 0.08 - distance + noise, side * 0.3 - distance + noise, noise, -5 - noise.abs()])


@pytest.mark.parametrize("kind", [Frame, SquashedFrame])
@pytest.mark.parametrize(
    "image_hw", [(256, 256), (120, 300), (300, 120), (49, 54), (1, 90), (700, 600)], ids=lambda hw: f"{hw[0]}x{hw[1]}"
)
def test_masks_and_their_stability_are_those_of_interpolated_logits(
    kind: type[Frame], image_hw: tuple[int, int]
) -> None:
    """As the official code does it with whole maps of floats, but for pixels whose logit is rounding noise."""
    low_res, frame = blobs(64), kind(image_hw, 256)
    maps = low_res
    if kind is Frame:
        height, width = frame.inner_hw
        maps = interpolated(maps, (256, 256))[:, :height, :width]
    maps = interpolated(maps, image_hw)
    masks, stability = masks_and_stability(low_res, *frame.steps, stability=True)
    assert stability is not None
    assert masks.shape == maps.shape
    assert maps[masks != (maps > 0)].abs().lt(1e-4).all()
    inner, outer = ((maps > cut).sum(dim=(1, 2)) for cut in (1, -1))
    assert torch.allclose(stability, inner / outer.clamp(min=1), atol=1e-3)
    assert stability[3] == 0  # below every cut, where the official score is NaN
    assert torch.equal(masks, masks_of(low_res, frame))


def interpolated(maps: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """Return the maps in another size."""
    return torch.nn.functional.interpolate(maps[None], size_hw, mode="bilinear", align_corners=False)[0]


def test_large_masks_are_made_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the strips, the masks are the same; no map of floats is larger than a strip."""
    low_res, frame = blobs(64), Frame((333, 500), 256)
    whole = masks_of(low_res, frame)
    monkeypatch.setattr(_upsampling, "_AT_ONCE", {"cpu": 1})
    assert torch.equal(masks_of(low_res, frame), whole)
    plan = _upsampling._plan((64, 64), *frame.steps, torch.device("cpu"))
    assert {maps.shape[1] for _, maps in _upsampling._strips(low_res, plan, 0.0)} == {1}


def test_masks_lie_where_the_prompt_is() -> None:
    """A point and a box each come back at their place in the image, x and y not swapped."""
    decoder = Recorder()
    segmenter = segmenter_of(decoder)
    (embedding,) = segmenter.embed([image_of(40, 80)])
    prompts = [click((70, 10)), box(20, 30, 40, 39)]
    predictions = segmenter.predict([Request(embedding, prompt) for prompt in prompts])
    for prediction, (x, y) in zip(predictions, [(70, 10), (20, 30)], strict=True):
        check_prediction("toy", prediction, (40, 80))
        rows, columns = np.nonzero(prediction.masks[0])
        assert abs(columns.mean() - x) < 4
        assert abs(rows.mean() - y) < 4
        assert prediction.state is None


def test_cpu_decodes_prompts_one_by_one_in_order() -> None:
    """On the CPU no prompt shares a batch, and mixed prompts are answered in the order they came."""
    decoder = Recorder()
    segmenter = segmenter_of(decoder)
    embeddings = segmenter.embed([image_of(64, 64, seed) for seed in range(2)])
    prompts = [click((8, 8)), box(40, 40, 50, 50), click((8, 40), (1, 1)), click((40, 8))]
    predictions = segmenter.predict([Request(embeddings[i % 2], p) for i, p in enumerate(prompts)])
    assert [len(_rows(batch)) for batch in decoder.batches] == [1, 1, 1, 1]
    places = [tuple(int(n) // 8 for n in np.argwhere(p.masks[0])[0]) for p in predictions]
    assert places == [(0, 0), (4, 4), (4, 0), (0, 4)]


def _rows(prompts: Prompts) -> torch.Tensor:
    rows = prompts.points_xy if prompts.points_xy is not None else prompts.boxes_xyxy
    assert rows is not None
    return rows


def test_other_devices_batch_prompts_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the CPU, prompts with equally many points share a batch, also across images; no prompt is padded."""
    decoder = Recorder()
    segmenter = segmenter_of(decoder)
    embeddings = segmenter.embed([image_of(64, 64), image_of(32, 64)])
    monkeypatch.setattr(SamSegmenter, "_batches", lambda self, items: [items])
    prompts = [click((8, 8)), box(0, 0, 9, 9), click((40, 16)), click((1, 1), (2, 2))]
    predictions = segmenter.predict([Request(embeddings[i // 2], p) for i, p in enumerate(prompts)])
    assert sorted(tuple(_rows(b).shape) for b in decoder.batches) == [(1, 2, 2), (1, 4), (2, 1, 2)]
    assert [p.masks.shape for p in predictions] == [(3, 64, 64)] * 2 + [(3, 32, 64)] * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    """NaN or infinity in the logits is a ModelError that says what to do, not an empty mask."""
    segmenter = segmenter_of(Recorder(fill=bad))
    (embedding,) = segmenter.embed([image_of(8, 8)])
    with pytest.raises(ModelError, match=r"'toy' returned NaN or infinite logits \(float32 on cpu\).*--seg-dtype"):
        segmenter.predict([Request(embedding, click((1, 1)))])


def test_empty_prompt_is_an_error() -> None:
    """A prompt without points and box is refused."""
    segmenter = segmenter_of(Recorder())
    (embedding,) = segmenter.embed([image_of(8, 8)])
    with pytest.raises(ModelError, match="without points and without a box"):
        segmenter.predict([Request(embedding, Prompt())])


def test_reduced_precision_is_for_the_encoder_alone() -> None:
    """With bfloat16 the encoder runs under autocast, and what it returns is kept as float32."""
    seen: list[torch.dtype] = []

    def encode_linear(batch: torch.Tensor) -> Features:
        features = torch.nn.functional.linear(batch, torch.ones(4, SIDE))
        seen.append(features.dtype)
        return (features,)

    segmenter = SamSegmenter(spec_with(), encode_linear, Recorder(), Runtime(dtype="bfloat16"), side=SIDE)
    (embedding,) = segmenter.embed([image_of(8, 8)])
    assert seen == [torch.bfloat16]
    assert embedding.features[0].dtype == torch.float32


def test_unknown_dtype_names_the_known_ones() -> None:
    """A dtype that SAM cannot run in is a ConfigError with the choices."""
    with pytest.raises(ConfigError, match="'int8' is not known; use one of float32, bfloat16, float16"):
        segmenter_of(Recorder(), dtype="int8")


def test_options_and_roles_are_checked() -> None:
    """An unknown option, an unknown choice and a missing file each name what would be right."""
    with pytest.raises(ConfigError, match=r"model toy: unknown option archtecture\. Known options: architecture"):
        _loading.check_options(spec_with(archtecture="vit_b"), {"architecture"})
    with pytest.raises(ConfigError, match="option architecture is 'vit_x'; it must be one of vit_b, vit_h"):
        _loading.option(spec_with(architecture="vit_x"), "architecture", ["vit_b", "vit_h"])
    with pytest.raises(ConfigError, match="needs a file with role 'checkpoint'; found roles: config"):
        _loading.file_of(spec_with(), {"config": Path("config.json")}, "checkpoint")


def test_parameters_on_meta_take_no_memory_and_buffers_keep_their_values() -> None:
    """What load_strict fills is empty; what a module computes is there; afterwards modules are built as ever."""
    with _loading.parameters_on_meta():
        module = torch.nn.BatchNorm2d(3)
        without_bias = torch.nn.Linear(2, 2, bias=False)
    assert module.weight.is_meta
    assert module.running_var is not None
    assert module.running_var.tolist() == [1, 1, 1]
    assert without_bias.bias is None
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_a_squashed_frame_fills_the_square() -> None:
    """Both sides become the square's, points follow each by its own factor, and logits go back without a detour."""
    frame = SquashedFrame((30, 90), SIDE)
    assert frame.inner_hw == (SIDE, SIDE)
    assert frame.image_to_inner(image_of(30, 90)).shape == (SIDE, SIDE, 3)
    corners = frame.to_inner(np.array([[45, 15], [90, 30]], np.float32))
    assert corners.tolist() == [[SIDE / 2, SIDE / 2], [SIDE, SIDE]]
    low_res = torch.full((1, 16, 16), -1.0)
    low_res[:, 12:] = 50.0  # would be padding where the aspect is kept
    masks = masks_of(low_res, frame)
    assert masks.shape == (1, 30, 90)
    assert masks[0, -1].all()


def test_strict_loading_lists_what_does_not_fit() -> None:
    """Missing and unexpected names and other shapes are all in the message."""
    module = torch.nn.Linear(2, 3)
    with pytest.raises(IntegrityError, match=r"1 missing: bias; 1 unexpected: beta; 1 other shape: weight \(3, 1\)"):
        _loading.load_strict(module, {"weight": torch.ones(3, 1), "beta": torch.ones(3)}, spec_with(), Path("file.pth"))
    state = {"weight": torch.full((3, 2), 7.0), "bias": torch.zeros(3)}
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3)
    _loading.load_strict(module, state, spec_with(), Path("file.pth"))
    assert module(torch.ones(2)).eq(14).all()


def test_torchvision_can_be_imported_again_and_again() -> None:
    """The import works on every installation, and more than once."""
    _loading.import_torchvision()
    _loading.import_torchvision()
    import torchvision

    assert torchvision.__version__


def test_specs_are_cheap_to_list() -> None:
    """Importing the modules that hold specs imports neither numpy nor torch."""
    code = (
        "import sys, promptseg.models.sam.sam, promptseg.models.sam.sam_hf, promptseg.models.sam.minisam; "
        "print([m for m in ('numpy', 'torch', 'PIL', 'transformers', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_weights_lie_where_torch_aligns_them(tmp_path: Path) -> None:
    """Kernels round by the alignment of what they multiply: weights of NumPy's memory made processes differ."""
    bytes_ = np.zeros(4 * 12 + 4, dtype=np.uint8)[4:]  # four bytes beyond where NumPy begins
    module = torch.nn.Linear(4, 3, bias=False)
    _loading.load_strict(
        module, {"weight": torch.from_numpy(bytes_.view(np.float32).reshape(3, 4))}, spec_with(), Path("here")
    )
    assert module.weight.data_ptr() % 64 == 0
