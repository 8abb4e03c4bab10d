"""Code of users, fully annotated: `make types` checks that it agrees with promptseg's own types.

It names what is public alone, and is never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import promptseg
from promptseg import (
    Archive,
    CaseError,
    Cell,
    ConfigError,
    DatasetSpec,
    Image,
    LabelMap,
    Layout,
    Mask,
    ModelSpec,
    Origin,
    Original,
    PackingSegmenter,
    Prediction,
    Prompt,
    PromptMode,
    PromptsegError,
    Request,
    Results,
    Runtime,
    Samples,
    Segmenter,
    SingleImageSegmenter,
    TaskSpec,
    WeightFile,
    load_results,
    normalise,
)
from promptseg.testing import assert_conforms, check_model

MODEL = ModelSpec(
    name="threshold",
    family="classical",
    load="my_package:load",
    licence="Apache-2.0",
    accepts=frozenset({"points", "boxes", "points+boxes", "feedback"}),
    origin=Origin(host="hub", repo="my-lab/my-model", revision="0" * 40),
    weights=(WeightFile(role="checkpoint", path="model.safetensors"),),
    training_data=(),
)
DATASET = DatasetSpec(
    name="discs",
    modality="ct",
    load="my_package:open_discs",
    tasks=(TaskSpec(name="discs", labels=(1,), target="the disc"),),
    licence="CC0-1.0",
    layouts=(Layout(name="as published", expects="pictures", read="my_package:read", options={"a": [1]}),),
    original=Original(page="https://example.org", how="Download it.", archives=(Archive(name="discs.zip"),)),
)
MODE = PromptMode(name="middle", needs="points", simulate="my_package:middle")


class Threshold(SingleImageSegmenter):
    """A model for one image and one prompt at a time."""

    def segment(self, image: Image, prompt: Prompt, state: Any) -> Prediction:
        """Return what is bright in the box."""
        mask: Mask = image[..., 0] > 127
        if prompt.box_xyxy is not None:
            left, top, right, bottom = prompt.box_xyxy.astype(int)
            mask[:, :left] = mask[:, right + 1 :] = mask[:top] = mask[bottom + 1 :] = False
        return Prediction(mask[None], predicted_iou=np.array([0.5], dtype=np.float32), state=state)


class Batched:
    """A model that works on batches, and whose embeddings can be kept."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def embed(self, images: Sequence[Image]) -> Sequence[npt.NDArray[np.float32]]:
        """Return features."""
        return [image.mean(axis=2, dtype=np.float32) for image in images]

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Return one mask for each request."""
        return [Prediction(request.embedding[None] > 127) for request in requests]

    def pack_embedding(self, embedding: Any) -> Mapping[str, npt.NDArray[Any]]:
        """Return the features."""
        return {"features": embedding}

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        """Return the features again."""
        return arrays["features"]


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> Segmenter:
    """Return the model."""
    if runtime.dtype != "float32":
        raise ConfigError(f"{spec.name} computes in float32 only, not in {runtime.dtype}")
    return Threshold(spec) if "checkpoint" in files else Batched(spec)


PACKING: PackingSegmenter = Batched(MODEL)


class Discs:
    """A data set that is drawn."""

    fingerprint = "1"

    def ids(self) -> Sequence[str]:
        """Return the ids."""
        return ["a", "b"]

    def subject(self, case_id: str) -> str | None:
        """Return no patient."""
        return None

    def labels(self, case_id: str) -> LabelMap:
        """Return the label map."""
        if case_id not in self.ids():
            raise CaseError(case_id, "there is no such disc")
        return np.eye(64, dtype=np.uint8)

    def image(self, case_id: str) -> Image:
        """Return the image."""
        return normalise(200 * self.labels(case_id))


def open_discs(spec: DatasetSpec, root: Path | None) -> Samples:
    """Return the samples."""
    return Discs()


def middle(target: Mask, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Return a point on the target."""
    y, x = np.argwhere(target)[rng.integers(target.sum())]
    return (Prompt(points_xy=np.array([[x, y]], dtype=np.float32), labels=np.array([1])),)


def look(folder: Path) -> list[str]:
    """Look at results."""
    try:
        results: Results = load_results(folder)
    except PromptsegError as error:
        return [str(error)]
    results.cells().to_csv("cells.csv")
    best = results.cases().sort_values("iou_confident").tail(1)
    return [*(one.cell.id for one in results.results), str(best), Cell("a", "b", "c").id]


def check() -> None:
    """Ask whether the model keeps the contract."""
    assert_conforms(load(MODEL, {}, Runtime(device="cpu")))
    if not check_model(Threshold(MODEL)).passed:
        raise promptseg.ModelError("broken")
