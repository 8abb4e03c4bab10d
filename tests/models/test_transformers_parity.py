"""The adapters answer as transformers' own processors and models do, on the same random weights of small models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.sam_inputs import prompt_of, smooth_image

from promptseg.errors import ConfigError, IntegrityError, UnavailableError
from promptseg.models._loading import import_torchvision
from promptseg.models.sam import sam2_hf, sam_hf
from promptseg.models.sam._segmenter import FramedImage, SamSegmenter, encoder_input
from promptseg.segmenter import Image, Prompt, Request, Runtime
from promptseg.specs import ModelSpec
from promptseg.testing import check_model

SIZES_HW = [(60, 150), (150, 60), (49, 54), (650, 550), (128, 128)]  # wide, tall, tiny, larger than the square, as is
DIM = 32


@dataclass(frozen=True)
class Case:
    """A kind of model: how transformers is told to build a small one, and who answers for it.

    Attributes:
        adapter: the module under test.
        config: of what a published checkpoint holds.
        published: class of the model whose checkpoint is published.
        model: class of the model that answers.
        processor: makes transformers' own processor.
        renamed: what a published checkpoint calls a weight of ``published``.
    """

    adapter: Any
    config: Callable[[], Any]
    published: str
    model: str
    processor: Callable[[], Any]
    renamed: Callable[[str], str] = str


def transformers() -> Any:
    """Import transformers, as the adapters do."""
    import_torchvision()
    import transformers

    return transformers


DECODER = {"hidden_size": DIM, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": DIM}
PROMPTS = {"hidden_size": DIM, "image_size": 128}
LEVELS = [[32, 32], [16, 16], [8, 8]]


def sam_config(kind: str = "Sam") -> Any:
    """Return a small SAM or SAM-HQ: two layers, one windowed and one global."""
    vision = {
        "hidden_size": DIM,
        "output_channels": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "global_attn_indexes": [1],
        "num_pos_feats": DIM // 2,
        "window_size": 5,
    }
    # The adapter decodes with 1e-5, as the authors do; tests/models/test_sam_parity.py shows that it must.
    decoder = {**DECODER, "layer_norm_eps": 1e-5} | ({"vit_dim": DIM} if kind == "SamHQ" else {})
    config = getattr(transformers(), f"{kind}Config")
    return config(vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=decoder)


def memory() -> dict[str, Any]:
    """Return the small memory of a video model, which no image needs."""
    return {
        "image_size": 128,
        "memory_attention_hidden_size": DIM,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": DIM,
        "memory_encoder_hidden_size": DIM,
        "memory_encoder_output_channels": 8,
        "mask_downsampler_embed_dim": DIM,
        "memory_fuser_embed_dim": DIM,
        "memory_fuser_intermediate_dim": DIM,
    }


def sam2_config() -> Any:
    """Return a small SAM 2 for videos, as the published checkpoints are."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 12,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [12, 24, 48, 96],
        "num_attention_heads_per_stage": [1, 1, 2, 4],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": LEVELS,
        "fpn_hidden_size": DIM,
    }
    return transformers().Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER, **memory()
    )


def edgetam_config() -> Any:
    """Return a small EdgeTAM for videos, as the published checkpoint is."""
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "num_classes": 1000,
        "model_args": {
            "in_chans": 3,
            "features_only": True,
            "out_indices": [0, 1, 2, 3],
            "embed_dim": [8, 16, 24, 32],
            "depth": [1, 1, 1, 1],
        },
    }
    vision = {
        "model_type": "edgetam_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [32, 24, 16, 8],
        "backbone_feature_sizes": LEVELS,
        "fpn_hidden_size": DIM,
    }
    return transformers().EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config=PROMPTS,
        mask_decoder_config=DECODER,
        **memory(),
        perceiver_resampler_hidden_size=8,
        perceiver_resampler_mlp_intermediate_size=8,
        perceiver_resampler_attention_head_dim=8,
    )


def sam3_config() -> Any:
    """Return a small SAM 3 tracker for videos."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": DIM,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "pretrain_image_size": 56,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "backbone_feature_sizes": LEVELS,
        "fpn_hidden_size": DIM,
    }
    tracker = transformers().Sam3TrackerVideoConfig(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 112},
        mask_decoder_config=DECODER,
        **memory() | {"image_size": 112},
    )
    return transformers().Sam3VideoConfig(tracker_config=tracker.to_dict())


def sam_processor(kind: str = "Sam") -> Any:
    """Return SAM's or SAM-HQ's processor for the small square."""
    square = {"height": 128, "width": 128}
    images = transformers().SamImageProcessorPil(size={"longest_edge": 128}, pad_size=square)
    return getattr(transformers(), f"{kind}Processor")(images)


def sam2_processor() -> Any:
    """Return SAM 2's processor for the small square."""
    return transformers().Sam2Processor(transformers().Sam2ImageProcessor(size={"height": 128, "width": 128}))


def sam3_processor() -> Any:
    """Return the processor of SAM 3's tracker for the small square."""
    images = transformers().Sam3ImageProcessor(size={"height": 112, "width": 112})
    return transformers().Sam3TrackerProcessor(images)


def sam3_name(name: str) -> str:
    """Return what the checkpoint of all of SAM 3 calls a weight of the tracker."""
    if name.startswith("vision_encoder.backbone."):
        return f"detector_model.{name}"
    if name.startswith("vision_encoder.neck."):
        return f"tracker_neck.{name.removeprefix('vision_encoder.neck.')}"
    return f"tracker_model.{name}"


CASES = {
    "sam": Case(sam_hf, sam_config, "SamModel", "SamModel", sam_processor),
    "sam_hq": Case(sam_hf, lambda: sam_config("SamHQ"), "SamHQModel", "SamHQModel", lambda: sam_processor("SamHQ")),
    "sam2": Case(sam2_hf, sam2_config, "Sam2VideoModel", "Sam2Model", sam2_processor),
    "edgetam": Case(sam2_hf, edgetam_config, "EdgeTamVideoModel", "EdgeTamModel", sam2_processor),
    "sam3": Case(sam2_hf, sam3_config, "Sam3TrackerVideoModel", "Sam3TrackerModel", sam3_processor, sam3_name),
}


def spec_of(**options: object) -> ModelSpec:
    """Return a spec that only these tests use."""
    return ModelSpec(
        name="small",
        family="sam",
        load="small:load",
        licence="MIT",
        accepts=frozenset({"points", "boxes"}),
        options=options,
    )


def random_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return random weights whose logits lie on both sides of zero."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=(parameter[0].numel() + 1) ** -0.5)
        elif not parameter.any():  # biases start at zero and would hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
        if name.endswith("upscale_conv2.weight"):
            torch.nn.init.normal_(parameter, std=1.0)
    return {name: value.clone().contiguous() for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class Pair:
    """The adapter, and transformers with the same files."""

    case: Case
    files: dict[str, Path]
    reference: Any
    processor: Any
    segmenter: SamSegmenter

    def ask_reference(self, images: Sequence[Image], prompts: Sequence[Prompt]) -> tuple[Any, Any, list[Any]]:
        """Return low resolution logits, predicted IoUs and masks of one prompt on each image, all in one batch."""
        points = [[p.points_xy.tolist()] for p in prompts] if len(prompts[0].points_xy) else None
        labels = [[p.labels.tolist()] for p in prompts] if points else None
        boxes = [[p.box_xyxy.tolist()] for p in prompts if p.box_xyxy is not None] or None
        inputs = self.processor(
            images=list(images), input_points=points, input_labels=labels, input_boxes=boxes, return_tensors="pt"
        )
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        inputs = {k: v.float() if v.is_floating_point() else v for k, v in inputs.items()}
        with torch.inference_mode():
            output = self.reference(**inputs, multimask_output=True)
        # SAM's post-processing pads to 1024 pixels unless told otherwise.
        square = {"pad_size": {"height": 128, "width": 128}} if self.case.adapter is sam_hf else {}
        masks = self.processor.post_process_masks(output.pred_masks, *sizes, binarize=False, **square)
        return output.pred_masks[:, 0], output.iou_scores[:, 0], [of_image[0] for of_image in masks]


def mend(decoder: Any) -> None:
    """Mend transformers' decoder of SAM-HQ, which upsamples what goes into its two-way transformer, transposed.

    What comes out is written over what went in, transposed, so that the decoder goes on with the right features.
    """
    attend = decoder.transformer.forward

    def forward(image_embeddings: torch.Tensor, **inputs: Any) -> Any:
        answers, keys = attend(image_embeddings=image_embeddings, **inputs)
        maps = keys.transpose(2, 3).reshape(image_embeddings.shape)
        image_embeddings.copy_(maps.transpose(2, 3))
        return answers, keys

    decoder.transformer.forward = forward


def make_pair(kind: str, folder: Path) -> Pair:
    """Write the files of a small model, and load them both ways."""
    case = CASES[kind]
    config = case.config()
    published = getattr(transformers(), case.published)
    weights = random_weights(published(getattr(config, "tracker_config", config)))
    state = {case.renamed(name): value for name, value in weights.items()}
    config.to_json_file(folder / "config.json")
    save_file(state, folder / "model.safetensors")
    files = {"checkpoint": folder / "model.safetensors", "config": folder / "config.json"}
    model = getattr(transformers(), case.model)
    given = model.config_class.from_json_file(files["config"])
    reference, info = model.from_pretrained(None, config=given, state_dict=state, output_loading_info=True)
    assert not info["missing_keys"]
    if kind == "sam_hq":
        mend(reference.mask_decoder)
    segmenter = case.adapter.load(spec_of(), files, Runtime())
    return Pair(case, files, reference.eval(), case.processor(), segmenter)


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Return each kind of model."""
    if request.param == "edgetam" and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


NEED_TRAINING = {"coordinates", "prompts_respected", "labels_respected"}
KINDS = ["point", "points", "box", "box_and_points"]


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_answers_equal_those_of_transformers(pair: Pair, size_hw: tuple[int, int]) -> None:
    """Logits and predicted IoUs agree to 1e-4, masks agree but where a logit is within 1e-3 of zero."""
    image = smooth_image(*size_hw)
    (embedding,) = pair.segmenter.embed([image])
    for kind in KINDS:
        request = Request(embedding, prompt_of(kind, *size_hw))
        low_res, scores, (logits,) = pair.ask_reference([image], [request.prompt])
        ours, our_scores = pair.segmenter.low_res([request])
        (prediction,) = pair.segmenter.predict([request])
        assert torch.allclose(ours, low_res, atol=1e-4), kind
        assert torch.allclose(our_scores, scores, atol=1e-4), kind
        clear = (logits.abs() > 1e-3).numpy()
        assert prediction.masks.shape == (3, *size_hw)
        assert np.array_equal(prediction.masks[clear], (logits > 0).numpy()[clear]), kind
        assert 0.02 < (logits > 0).float().mean() < 0.98, "the comparison needs logits on both sides of zero"


def test_what_the_encoder_sees_is_what_transformers_shows_it(pair: Pair) -> None:
    """The pixels are the processor's, but for rounding; the resized bytes are equal."""
    for size_hw in SIZES_HW:
        image = smooth_image(*size_hw)
        (embedding,) = pair.segmenter.embed([image])
        ours = encoder_input(FramedImage.of(image, embedding.frame), torch.device("cpu"))
        theirs = pair.processor(images=image, return_tensors="pt")["pixel_values"][0]
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", ["points", "box"])
def test_batches_answer_as_those_of_transformers(pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of different sizes share a batch of the encoder and of the decoder, as off the CPU."""
    monkeypatch.setattr(SamSegmenter, "_batches", lambda self, items: [items])
    images = [smooth_image(*size_hw) for size_hw in SIZES_HW[:3]]
    requests = [Request(e, prompt_of(kind, *e.frame.image_hw)) for e in pair.segmenter.embed(images)]
    low_res, scores, logits = pair.ask_reference(images, [r.prompt for r in requests])
    ours, our_scores = pair.segmenter.low_res(requests)
    assert torch.allclose(ours, low_res, atol=1e-4)
    assert torch.allclose(our_scores, scores, atol=1e-4)
    for prediction, expected in zip(pair.segmenter.predict(requests), logits, strict=True):
        clear = (expected.abs() > 1e-3).numpy()
        assert np.array_equal(prediction.masks[clear], (expected > 0).numpy()[clear])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_stays_near(pair: Pair, dtype: str) -> None:
    """The encoder runs under autocast; its features are those of float32 but for the coarser rounding."""
    segmenter = pair.case.adapter.load(spec_of(), pair.files, Runtime(dtype=dtype))
    image = smooth_image(60, 150)
    exact, coarse = (s.embed([image])[0].features for s in (pair.segmenter, segmenter))
    for expected, found in zip(exact, coarse, strict=True):
        assert found.dtype == torch.float32
        difference = (found - expected).abs().max()
        assert 0 < difference < 0.1 * expected.abs().max()
    (prediction,) = segmenter.predict([Request(segmenter.embed([image])[0], prompt_of("box", 60, 150))])
    assert prediction.masks.any()


def test_contract_is_kept(pair: Pair) -> None:
    """All that the conformance kit asks of any model, but for its questions about the object."""
    failed = {check.name for check in check_model(pair.segmenter).failures}
    assert failed <= NEED_TRAINING


def test_checkpoint_is_loaded_strictly(pair: Pair, tmp_path: Path) -> None:
    """A checkpoint with a missing and a foreign weight is refused, and both are named."""
    state = load_file(pair.files["checkpoint"])
    name = next(name for name in state if name.endswith("mask_decoder.iou_token.weight"))
    state["teacher.weight"] = state.pop(name)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"1 missing: mask_decoder\.iou_token\.weight; 1 unexpected: teacher"):
        pair.case.adapter.load(spec_of(), pair.files | {"checkpoint": tmp_path / "model.safetensors"}, Runtime())


def test_a_config_of_another_model_is_named(pair: Pair, tmp_path: Path) -> None:
    """A config.json of a model that the adapter does not know says which it knows."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(IntegrityError, match=r"config\.json has the model_type 'bert'; this adapter reads sam"):
        pair.case.adapter.load(spec_of(), pair.files | {"config": tmp_path / "config.json"}, Runtime())


def test_transformers_decodes_sam_hq_wrongly(tmp_path: Path) -> None:
    """If this fails, transformers was mended: then `promptseg.models.sam._hq_decoder` can go, and `mend` with it."""
    pair = make_pair("sam_hq", tmp_path)
    image, prompt = smooth_image(60, 150), prompt_of("points", 60, 150)
    right, scores, _ = pair.ask_reference([image], [prompt])
    del pair.reference.mask_decoder.transformer.forward
    wrong, same_scores, _ = pair.ask_reference([image], [prompt])
    assert torch.allclose(scores, same_scores, atol=1e-4)
    assert (right - wrong).abs().max() > 0.5


def waves(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Return numbers that are the same on every machine."""
    numbers: torch.Tensor = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.37 + phase)
    return numbers.reshape(shape).float()


def wave_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a weight by its name and shape: of a size that keeps activations near one."""
    values = waves(shape, len(name) + sum(map(ord, name)) % 97)
    if len(shape) > 1:
        return values * math.sqrt(2 / math.prod(shape[1:]))
    return 0.1 * values + float(name.endswith("weight"))


# Logits at four places of the first mask, and its predicted IoU, from the code of SAM-HQ's authors (SysCV/sam-hq,
# commit fb181f8) with the waves for weights, on smooth_image(60, 150) with the prompt "points".
HQ_PLACES = [(0, 0), (5, 20), (12, 7), (9, 30)]
HQ_AUTHORS = [-0.4041858, -0.2642283, -0.4701549, -0.2250191]
HQ_IOU = 0.2519330


def test_sam_hq_answers_as_its_authors_code(tmp_path: Path) -> None:
    """Given numbers as weights, the first of three masks is the mask that the authors' predictor offers."""
    pair = make_pair("sam_hq", tmp_path)
    state = load_file(pair.files["checkpoint"])
    del state["prompt_encoder.shared_embedding.positional_embedding"]  # one tensor under two names
    weights = {name: wave_weight(name, tuple(value.shape)) for name, value in state.items()}
    save_file(weights, tmp_path / "waves.safetensors")
    segmenter = sam_hf.load(spec_of(), pair.files | {"checkpoint": tmp_path / "waves.safetensors"}, Runtime())
    (embedding,) = segmenter.embed([smooth_image(60, 150)])
    logits, scores = segmenter.low_res([Request(embedding, prompt_of("points", 60, 150))])
    assert [logits[0, 0][place].item() for place in HQ_PLACES] == pytest.approx(HQ_AUTHORS, abs=1e-4)
    assert scores[0, 0].item() == pytest.approx(HQ_IOU, abs=1e-4)


def test_edgetam_without_timm_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that EdgeTAM's encoder comes from is an extra: without it the model is not available."""
    monkeypatch.setattr("promptseg.models._loading.find_spec", lambda name: None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam_video"}))
    files = {"checkpoint": tmp_path / "model.safetensors", "config": tmp_path / "config.json"}
    with pytest.raises(UnavailableError, match=r"EdgeTamModel needs the package timm: pip install 'pytest-promptseg"):
        sam2_hf.load(spec_of(), files, Runtime())


def test_sam2_has_no_options(tmp_path: Path) -> None:
    """The config says everything; an option is a mistake."""
    with pytest.raises(ConfigError, match=r"unknown option architecture\. Known options: none"):
        sam2_hf.load(spec_of(architecture="tiny"), {}, Runtime())


@pytest.mark.parametrize("kind", ["sam", "sam_hq"])
def test_one_candidate_is_the_mask_of_a_single_output(kind: str, tmp_path: Path) -> None:
    """A model that was trained for one mask gives that one, as transformers does with multimask_output=False."""
    pair = make_pair(kind, tmp_path)
    single = sam_hf.load(spec_of(candidates="one"), pair.files, Runtime())
    image = smooth_image(60, 150)
    (embedding,) = single.embed([image])
    request = Request(embedding, prompt_of("box", 60, 150))
    logits, scores = single.low_res([request])
    inputs = pair.processor(
        images=image, input_boxes=[[np.asarray(request.prompt.box_xyxy).tolist()]], return_tensors="pt"
    )
    with torch.inference_mode():
        expected = pair.reference(
            pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False
        )
    assert logits.shape[1] == scores.shape[1] == 1
    assert torch.allclose(logits, expected.pred_masks[:, 0], atol=1e-4)
    assert torch.allclose(scores, expected.iou_scores[:, 0], atol=1e-4)
    with pytest.raises(ConfigError, match="candidates is 'two'; it must be one of three, one"):
        sam_hf.load(spec_of(candidates="two"), pair.files, Runtime())


def test_the_names_of_video_weights_come_from_transformers(tmp_path: Path) -> None:
    """What only videos need is left out of a checkpoint; the same names with a letter changed are refused."""
    pair = make_pair("sam2", tmp_path)
    state = load_file(pair.files["checkpoint"])
    name = next(name for name in state if name.startswith("memory_"))
    state[f"x{name}"] = state[name].clone()
    save_file(state, tmp_path / "changed.safetensors")
    with pytest.raises(IntegrityError, match=f"1 unexpected: x{name}"):
        sam2_hf.load(spec_of(), pair.files | {"checkpoint": tmp_path / "changed.safetensors"}, Runtime())
