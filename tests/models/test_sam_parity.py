"""The SAM adapters answer as the official SamPredictor does, on the same random weights of a small configuration."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from support.sam_inputs import prompt_of, smooth_image
from support.tiny_sam import DIM, SIDE, tiny_architecture, tiny_sam

from promptseg import prompts
from promptseg.errors import ConfigError, IntegrityError
from promptseg.evaluation import grid
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob
from promptseg.models._loading import import_torchvision
from promptseg.models.sam import sam, sam_hf
from promptseg.models.sam._segmenter import SamSegmenter
from promptseg.prompts import tight_box_xyxy
from promptseg.registry import modes
from promptseg.segmenter import Image, Prediction, Prompt, Request, Runtime
from promptseg.specs import ModelSpec, PromptMode, TaskSpec

SIZES_HW = [(120, 300), (300, 120), (49, 54), (1300, 1100), (256, 256)]  # wide, tall, tiny, larger than 1024, as is
PROMPTS = ["point", "points", "box", "box_and_points"]


# What transformers calls the official weights, in this order.
RULES = [
    (r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0", r".\1.proj_in"),
    (r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1", r".\1.layers.0"),
    (r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2", r".\1.proj_out"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"neck\.0", "neck.conv1"),
    (r"neck\.1", "neck.layer_norm1"),
    (r"neck\.2", "neck.conv2"),
    (r"neck\.3", "neck.layer_norm2"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"point_embeddings", "point_embed"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"\.norm", ".layer_norm"),
    (r"\.blocks\.", ".layers."),
    (r"^image_encoder\.", "vision_encoder."),
]


def transformers_name(name: str) -> str:
    """Return the name that transformers gives to an official weight."""
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def transformers_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights as a checkpoint of transformers holds them: the shared tensor once."""
    state = {transformers_name(name): value for name, value in model.state_dict().items()}
    state["shared_image_embedding.positional_embedding"] = state.pop(
        "prompt_encoder.shared_embedding.positional_embedding"
    )
    return {name: value.contiguous() for name, value in state.items()}


def write_config(path: Path) -> Path:
    """Write the config.json of the tiny model."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=DIM,
        output_channels=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        global_attn_indexes=[1],
        num_pos_feats=DIM // 2,
    )
    prompt = SamPromptEncoderConfig(hidden_size=DIM, image_size=SIDE)
    decoder = SamMaskDecoderConfig(hidden_size=DIM, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=DIM)
    SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    ).to_json_file(path)
    return path


@pytest.fixture(scope="module")
def official() -> Any:
    """Return the tiny official model."""
    return tiny_sam()


@pytest.fixture(scope="module")
def hf_files(official: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the same weights as transformers has them."""
    folder = tmp_path_factory.mktemp("hf")
    save_file(transformers_state(official), folder / "model.safetensors")
    return {"checkpoint": folder / "model.safetensors", "config": write_config(folder / "config.json")}


@pytest.fixture(scope="module", params=["sam", "sam_hf"])
def segmenter(request: pytest.FixtureRequest, official: Any, hf_files: dict[str, Path]) -> SamSegmenter:
    """Return each adapter with the weights of the tiny model."""
    if request.param == "sam":
        return sam.wrap(sam.SAM_VIT_B, official, Runtime())
    return sam_hf.load(sam_hf.SAM_HF_VIT_B, hf_files, Runtime())


def ask_official(predictor: Any, prompt: Prompt) -> tuple[Any, Any, Any]:
    """Return the official predictor's logits at the image's size, predicted IoUs and low resolution logits."""
    n_points = len(prompt.points_xy)
    answer: tuple[Any, Any, Any] = predictor.predict(
        point_coords=prompt.points_xy if n_points else None,
        point_labels=prompt.labels if n_points else None,
        box=prompt.box_xyxy,
        multimask_output=True,
        return_logits=True,
    )
    return answer


def scores_of(prediction: Prediction) -> list[float]:
    """Return the predicted IoUs."""
    assert prediction.predicted_iou is not None
    scores: list[float] = prediction.predicted_iou.tolist()
    return scores


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_answers_equal_those_of_the_official_predictor(
    segmenter: SamSegmenter, official: Any, size_hw: tuple[int, int]
) -> None:
    """Low resolution logits agree to 1e-4, masks agree but where the official logit is within 1e-3 of zero."""
    from segment_anything import SamPredictor

    predictor, image = SamPredictor(official), smooth_image(*size_hw)
    predictor.set_image(image)
    (embedding,) = segmenter.embed([image])
    for kind in PROMPTS:
        request = Request(embedding, prompt_of(kind, *size_hw))
        logits, scores, low_res = ask_official(predictor, request.prompt)
        ours, our_scores = segmenter.low_res([request])
        (prediction,) = segmenter.predict([request])
        assert np.abs(ours[0].numpy() - low_res).max() < 1e-4, kind
        assert np.abs(our_scores[0].numpy() - scores).max() < 1e-4, kind
        clear = np.abs(logits) > 1e-3
        assert np.array_equal(prediction.masks[clear], (logits > 0)[clear]), kind
        assert 0.02 < (logits > 0).mean() < 0.98, "the comparison needs logits on both sides of zero"


@pytest.fixture(scope="module", params=["sam", "sam_hf"])
def feedback(request: pytest.FixtureRequest, official: Any, hf_files: dict[str, Path]) -> SamSegmenter:
    """Return the variant of each adapter that feeds masks back, with the weights of the tiny model."""
    if request.param == "sam":
        return sam.wrap(sam.SAM_VIT_B_FEEDBACK, official, Runtime())
    return sam_hf.load(sam_hf.SAM_HF_VIT_B_FEEDBACK, hf_files, Runtime())


@pytest.mark.parametrize("size_hw", SIZES_HW[:3], ids=str)
def test_feedback_equals_the_official_mask_input(
    feedback: SamSegmenter, official: Any, size_hw: tuple[int, int]
) -> None:
    """Three steps: three masks at first, then one each, from the logits of the chosen candidate of the step before."""
    from segment_anything import SamPredictor

    predictor, image = SamPredictor(official), smooth_image(*size_hw)
    predictor.set_image(image)
    (embedding,) = feedback.embed([image])
    whole = prompt_of("points", *size_hw)
    mask_input, request = None, Request(embedding, prompt_of("point", *size_hw))
    for step, chosen in enumerate((2, 0, 0)):
        points_xy, labels = whole.points_xy[: step + 1], whole.labels[: step + 1]
        logits, scores, low_res = predictor.predict(
            points_xy, labels, mask_input=mask_input, multimask_output=step == 0, return_logits=True
        )
        request = dataclasses.replace(request, prompt=Prompt(points_xy=points_xy, labels=labels))
        (prediction,) = feedback.predict([request])
        assert len(prediction.masks) == len(logits) == (3 if step == 0 else 1)
        assert np.abs(prediction.state.numpy() - low_res).max() < 1e-4
        assert scores_of(prediction) == pytest.approx(scores.tolist(), abs=1e-4)
        clear = np.abs(logits) > 1e-3
        assert np.array_equal(prediction.masks[clear], (logits > 0)[clear])
        mask_input = low_res[chosen : chosen + 1]
        request = dataclasses.replace(request, state=prediction.state, candidate=chosen)


def test_feedback_takes_the_mask_of_the_chosen_candidate(feedback: SamSegmenter) -> None:
    """Another candidate gives another answer, alone and in one batch with a prompt that feeds nothing back."""
    (embedding,) = feedback.embed([smooth_image(120, 300)])
    first = Request(embedding, prompt_of("point", 120, 300))
    (before,) = feedback.predict([first])
    later = [
        Request(embedding, prompt_of("points", 120, 300), state=before.state, candidate=candidate)
        for candidate in range(3)
    ]
    answers = feedback.predict([later[0], first, later[1], later[2]])
    assert [len(answer.masks) for answer in answers] == [1, 3, 1, 1]
    assert len({scores_of(answer)[0] for answer in (answers[0], *answers[2:])}) == 3
    for request, answer in zip(later, (answers[0], *answers[2:]), strict=True):
        assert scores_of(feedback.predict([request])[0]) == scores_of(answer)


def test_the_plain_models_leave_no_state(segmenter: SamSegmenter) -> None:
    """The reference protocol feeds no mask back: there is nothing that could be."""
    (embedding,) = segmenter.embed([smooth_image(49, 54)])
    (prediction,) = segmenter.predict([Request(embedding, prompt_of("point", 49, 54))])
    assert prediction.state is None
    assert "feedback" not in segmenter.spec.accepts


def test_batches_across_images_answer_as_one_by_one(segmenter: SamSegmenter) -> None:
    """Prompts of one shape on images of different sizes may share a batch: only rounding differs."""
    embeddings = segmenter.embed([smooth_image(*size_hw) for size_hw in SIZES_HW[:3]])
    requests = [Request(e, prompt_of("points", *e.frame.image_hw)) for e in embeddings]
    together, _ = segmenter.low_res(requests)
    for request, logits in zip(requests, together, strict=True):
        alone, _ = segmenter.low_res([request])
        assert torch.allclose(alone[0], logits, atol=1e-4)


def test_cpu_answers_do_not_depend_on_the_batch(segmenter: SamSegmenter) -> None:
    """On the CPU, masks and predicted IoUs are the same bit for bit, alone or in company, in any order."""
    images = [smooth_image(*size_hw) for size_hw in SIZES_HW[:3]]
    requests = [
        Request(e, prompt_of(kind, *e.frame.image_hw)) for e in segmenter.embed(images) for kind in ("point", "box")
    ]
    together = segmenter.predict(requests[::-1])[::-1]
    for i, image in enumerate(images):
        (embedding,) = segmenter.embed([image])
        alone = segmenter.predict([Request(embedding, requests[2 * i].prompt)])[0]
        assert np.array_equal(alone.masks, together[2 * i].masks)
        assert scores_of(alone) == scores_of(together[2 * i])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_stays_near(official: Any, hf_files: dict[str, Path], dtype: str) -> None:
    """Both encoders run under autocast; their features are those of float32 but for its coarser rounding."""
    runtime, image = Runtime(dtype=dtype), smooth_image(120, 300)
    (exact,) = sam.wrap(sam.SAM_VIT_B, official, Runtime()).embed([image])
    for segmenter in (
        sam.wrap(sam.SAM_VIT_B, official, runtime),
        sam_hf.load(sam_hf.SAM_HF_VIT_B, hf_files, runtime),
    ):
        (embedding,) = segmenter.embed([image])
        difference = (embedding.features[0] - exact.features[0]).abs().max()
        assert 0 < difference < 0.1


def test_official_checkpoint_is_loaded_strictly(official: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole checkpoint gives the model's own answers; one with a missing and a foreign weight is refused."""
    import segment_anything

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", tiny_architecture)
    path, state = tmp_path / "sam.pth", dict(official.state_dict())
    torch.save(state, path)
    image, prompt = smooth_image(49, 54), prompt_of("box", 49, 54)
    loaded = sam.load(sam.SAM_VIT_B, {"checkpoint": path}, Runtime())
    wrapped = sam.wrap(sam.SAM_VIT_B, official, Runtime())
    answers = [s.predict([Request(s.embed([image])[0], prompt)])[0] for s in (loaded, wrapped)]
    assert scores_of(answers[0]) == scores_of(answers[1])

    state["teacher.weight"] = state.pop("mask_decoder.iou_token.weight")
    torch.save(state, path)
    with pytest.raises(IntegrityError, match=r"1 missing: mask_decoder\.iou_token\.weight; 1 unexpected: teacher"):
        sam.load(sam.SAM_VIT_B, {"checkpoint": path}, Runtime())


def test_transformers_checkpoint_is_loaded_strictly(hf_files: dict[str, Path], tmp_path: Path) -> None:
    """The shared tensor may stand under either of its names, or both; anything else that is missing is named."""
    from safetensors.torch import load_file

    state = load_file(hf_files["checkpoint"])
    shared, twin = sam_hf._SHARED
    for extra, dropped in (({twin: state[shared]}, ()), ({twin: state[shared]}, (shared,))):
        kept = {name: value.clone() for name, value in (state | extra).items() if name not in dropped}
        save_file(kept, tmp_path / "model.safetensors")
        sam_hf.load(sam_hf.SAM_HF_VIT_B, hf_files | {"checkpoint": tmp_path / "model.safetensors"}, Runtime())
    del kept["mask_decoder.mask_tokens.weight"]
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"1 missing: mask_decoder\.mask_tokens\.weight"):
        sam_hf.load(sam_hf.SAM_HF_VIT_B, hf_files | {"checkpoint": tmp_path / "model.safetensors"}, Runtime())


def test_transformers_config_that_is_not_json_is_named(hf_files: dict[str, Path], tmp_path: Path) -> None:
    """A broken config.json is an error that names the file."""
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(IntegrityError, match=r"config\.json is not JSON"):
        sam_hf.load(sam_hf.SAM_HF_VIT_B, hf_files | {"config": tmp_path / "config.json"}, Runtime())


def test_architecture_must_be_known(tmp_path: Path) -> None:
    """The architecture is an option with known values."""
    spec = dataclasses.replace(sam.SAM_VIT_B, options={"architecture": "vit_g"})
    with pytest.raises(ConfigError, match="architecture is 'vit_g'; it must be one of vit_b, vit_l, vit_h"):
        sam.load(spec, {"checkpoint": tmp_path / "none"}, Runtime())


@pytest.mark.parametrize("architecture", sam.ARCHITECTURES)
def test_real_architectures_build_without_memory(architecture: str) -> None:
    """Each registered architecture exists in the package and builds on the meta device in moments."""
    import_torchvision()
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        model = sam_model_registry[architecture]()
    assert all(parameter.is_meta for parameter in model.parameters())


def _suppress(boxes: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Do what torchvision's batched_nms does for boxes of one kind: its compiled part may not fit this torch."""
    left: list[int] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        overlaps = []
        for j in left:
            sides = (torch.minimum(boxes[i, 2:], boxes[j, 2:]) - torch.maximum(boxes[i, :2], boxes[j, :2])).clamp(min=0)
            both = sum(float((box[2:] - box[:2]).prod()) for box in (boxes[i], boxes[j]))
            overlaps.append(float(sides.prod()) / max(both - float(sides.prod()), 1e-9))
        if all(overlap <= iou_threshold for overlap in overlaps):
            left.append(i)
    return torch.tensor(left, dtype=torch.long)


@pytest.fixture(scope="module")
def sure(official: Any) -> Any:
    """Return the tiny model with small masks, some of which are sure and stable enough for the official filters.

    Random weights answer all points nearly alike, unsure, and with masks of the whole image; the numbers change that.
    """
    model = copy.deepcopy(official)
    decoder = model.mask_decoder
    with torch.no_grad():
        for parameter in decoder.transformer.parameters():
            parameter *= 2 if parameter.ndim == 2 else 1
        decoder.iou_prediction_head.layers[-1].bias += torch.tensor([0.88, 0.806, 0.8993, 0.9414])
        decoder.output_upscaling[3].bias[0] = 5  # a constant channel, whose weight moves all logits of a candidate
        for mlp, offset in zip(decoder.output_hypernetworks_mlps, (0, 74, 120, -239), strict=True):
            mlp.layers[-1].weight *= 400
            mlp.layers[-1].bias *= 400
            mlp.layers[-1].bias[0] -= offset / 5
    return model


@pytest.mark.parametrize("adapter", ["sam", "sam_hf"])
def test_everything_equals_the_official_mask_generator(
    adapter: str, sure: Any, hf_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same masks in the same order, with the same predicted IoUs, from a grid of 12 points a side."""
    import segment_anything.automatic_mask_generator as generator

    monkeypatch.setattr(generator, "batched_nms", _suppress)
    image = smooth_image(120, 300)
    wanted = generator.SamAutomaticMaskGenerator(sure, points_per_side=12).generate(image)
    if adapter == "sam":
        segmenter = sam.wrap(sam.SAM_VIT_B, sure, Runtime())
    else:
        save_file(transformers_state(sure), tmp_path / "model.safetensors")
        files = hf_files | {"checkpoint": tmp_path / "model.safetensors"}
        segmenter = sam_hf.load(sam_hf.SAM_HF_VIT_B, files, Runtime())
    (embedding,) = segmenter.embed([image])
    found, passed = grid.GridMasks(), 0
    for prompt in prompts.grid((120, 300), 12):
        (answer,) = segmenter.predict([Request(embedding, prompt, stability=True)])
        assert answer.predicted_iou is not None
        passed += int((answer.predicted_iou > 0.88).sum())
        found.add(answer)
    kept = found.prediction((120, 300))
    assert 3 <= len(wanted) < passed < 3 * 144, "the comparison needs masks that are filtered and some that are not"
    assert scores_of(kept) == pytest.approx([mask["predicted_iou"] for mask in wanted], abs=1e-4)
    for ours, theirs in zip(kept.masks, wanted, strict=True):
        assert np.mean(ours != theirs["segmentation"]) < 1e-3
        assert tight_box_xyxy(ours).tolist() == pytest.approx(_inclusive(theirs["bbox"]), abs=1)


def _inclusive(xywh: list[float]) -> list[float]:
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def test_stability_equals_the_official_score(segmenter: SamSegmenter, official: Any) -> None:
    """For every candidate of every kind of prompt; where it is not asked for there is none."""
    from segment_anything import SamPredictor
    from segment_anything.utils.amg import calculate_stability_score

    predictor, image = SamPredictor(official), smooth_image(120, 300)
    predictor.set_image(image)
    (embedding,) = segmenter.embed([image])
    for kind in PROMPTS:
        request = Request(embedding, prompt_of(kind, 120, 300), stability=True)
        logits, _, _ = ask_official(predictor, request.prompt)
        (answer,) = segmenter.predict([request])
        expected = calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0)
        assert answer.stability is not None
        assert answer.stability.dtype == np.float32
        assert answer.stability.tolist() == pytest.approx(expected.tolist(), abs=1e-3)
        assert segmenter.predict([dataclasses.replace(request, stability=False)])[0].stability is None


class ByPredictor:
    """The official predictor as a promptseg model: ``SamPredictor.predict`` is called with what a mode gives."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        from segment_anything import SamPredictor

        self.spec = spec
        self._predictor = SamPredictor(model)

    def embed(self, images: Sequence[Image]) -> list[Image]:
        """Return the images: the predictor is set anew for each."""
        return list(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Ask for three masks, or for one with the logits of the chosen candidate as mask input."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Prediction:
        prompt, fed_back = request.prompt, request.state is not None
        self._predictor.set_image(request.embedding)
        masks, scores, low_res = self._predictor.predict(
            point_coords=prompt.points_xy if len(prompt.labels) else None,
            point_labels=prompt.labels if len(prompt.labels) else None,
            box=prompt.box_xyxy,
            mask_input=request.state[request.candidate][None] if fed_back else None,
            multimask_output=not fed_back,
        )
        return Prediction(masks, scores, low_res)


class OneImage:
    """An image with an object in three parts."""

    fingerprint = "one"

    def ids(self) -> list[str]:
        """Return its id."""
        return ["a"]

    def subject(self, case_id: str) -> None:
        """Return that the patient is not known."""

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the ellipse of the image and two boxes."""
        y, x = np.mgrid[:60, :90]
        target = (y / 60 - 0.5) ** 2 + (x / 90 - 0.4) ** 2 < 0.08
        target[4:12, 70:80] = target[48:58, 75:88] = True
        return np.asarray(target, dtype=np.uint8)

    def image(self, case_id: str) -> Image:
        """Return the image."""
        return smooth_image(60, 90)


MODES = [value for value in vars(modes).values() if isinstance(value, PromptMode) and value.needs != "everything"]


@pytest.mark.parametrize("fed_back", [False, True], ids=["plain", "feedback"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_every_mode_scores_as_with_the_official_predictor(mode: PromptMode, official: Any, *, fed_back: bool) -> None:
    """Same prompts, IoUs and predicted IoUs to the last click, with and without the previous logits fed back."""
    spec = sam.SAM_VIT_B_FEEDBACK if fed_back else sam.SAM_VIT_B
    found = []
    for model in (sam.wrap(spec, official, Runtime()), ByPredictor(official, spec)):
        job = CellJob(TaskSpec(name="t"), mode)
        evaluated = evaluate(model, OneImage(), [job], order=["a"], seed=0, limit=None, batch_size=1)
        found.append(evaluated.cases[0]["a"])
    assert len(found[0]) == max(1, mode.steps)
    for ours, theirs in zip(*found, strict=True):
        assert theirs.error is None
        assert ours.prompts == theirs.prompts
        assert ours.candidate_iou == pytest.approx(theirs.candidate_iou, abs=1e-3)
        for choice in ("iou_first", "iou_confident", "iou_oracle"):
            assert getattr(ours, choice) == pytest.approx(getattr(theirs, choice), abs=1e-3)
        assert ours.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-4)
    assert len(found[0][-1].predicted_iou or ()) == (1 if fed_back and mode.iterative else 3)
