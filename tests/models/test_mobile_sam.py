"""MobileSAM without its authors' code: its weights, under the authors' names, in timm's TinyViT and SAM's decoder."""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptseg.errors import IntegrityError, UnavailableError
from promptseg.models.sam import mobile_sam
from promptseg.models.sam._segmenter import Frame, SamEmbedding
from promptseg.segmenter import Prompt, Request, Runtime, check_prediction

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")

# Pixels of the authors' encoder for the waves below, from their own code at commit 34bbbfd. (channel, row, column)
PLACES = [(0, 0, 0), (7, 63, 63), (100, 20, 50), (255, 40, 10), (31, 5, 60), (200, 33, 31)]
AUTHORS = [-1.6243725, 0.8536668, 1.0269218, 1.5349560, -1.0096065, 0.1179118]

# What the authors call the weights of timm's TinyViT and of the neck, in this order.
NAMES = [
    (r"^1\.", "neck."),
    (r"^0\.patch_embed\.conv1\.", "patch_embed.seq.0."),
    (r"^0\.patch_embed\.conv2\.", "patch_embed.seq.2."),
    (r"^0\.stages\.1\.downsample\.", "layers.0.downsample."),
    (r"^0\.stages\.2\.downsample\.", "layers.1.downsample."),
    (r"^0\.stages\.3\.downsample\.", "layers.2.downsample."),
    (r"^0\.stages\.", "layers."),
    (r"\.conv\.", ".c."),
]


def authors_name(name: str) -> str:
    """Return what the authors call a weight of the encoder."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def waves(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Return numbers that are the same on every machine."""
    count = torch.arange(math.prod(shape), dtype=torch.float64)
    numbers: torch.Tensor = torch.sin(count * 0.37 + phase).reshape(shape).float()
    return numbers


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a weight of the encoder by its name and shape: of a size that keeps the features near one."""
    values = waves(shape, len(name) + sum(map(ord, name)) % 97)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if "attention_biases" in name:
        return values
    if len(shape) > 1:
        return values * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.3 * values if name.endswith(("weight", "running_var")) else 0.1 * values


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Return a checkpoint as the authors wrote it, the classifier of the TinyViT included."""
    from promptseg.models.sam._decoder import empty_modules
    from promptseg.models.sam._mobile_encoder import _neck, _trunk

    names = {authors_name(k): v for k, v in torch.nn.Sequential(_trunk(), _neck()).state_dict().items()}
    encoder = {f"image_encoder.{k}": weight(k, tuple(v.shape)) for k, v in names.items()}
    classifier = {"norm_head.weight": (320,), "norm_head.bias": (320,), "head.weight": (9, 320), "head.bias": (9,)}
    torch.manual_seed(0)
    decoder = {k: v.clone() for k, v in empty_modules(1024).state_dict().items()}
    return encoder | decoder | {f"image_encoder.{k}": torch.zeros(size) for k, size in classifier.items()}


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write it as a file of torch.save."""
    path = tmp_path_factory.mktemp("mobile_sam") / "mobile_sam.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> Any:
    """Return the loaded model."""
    return mobile_sam.load(mobile_sam.SPEC, {"checkpoint": checkpoint}, Runtime())


@pytest.fixture(scope="module")
def features(segmenter: Any) -> torch.Tensor:
    """Return what the encoder says of the waves."""
    pixels = waves((1, 3, 1024, 1024), 0.0) * torch.linspace(-1, 1, 1024)[None, None, :, None]
    with torch.inference_mode():
        (of_batch,) = segmenter._encoder(pixels)
    of_image: torch.Tensor = of_batch[0]
    return of_image


def test_encoder_computes_what_the_authors_does(features: torch.Tensor) -> None:
    """Given numbers as weights and as an image, six pixels of the features are those of the authors' own code."""
    assert features.shape == (256, 64, 64)
    assert [features[place].item() for place in PLACES] == pytest.approx(AUTHORS, abs=1e-4)


def test_answers_have_three_candidates(segmenter: Any, features: torch.Tensor) -> None:
    """A point and a box on an image that is no square give SAM's three masks, each with a predicted IoU."""
    embedding = SamEmbedding((features,), Frame((40, 70), 1024))
    point = Prompt(points_xy=np.array([[30, 20]], np.float32), labels=np.array([1]))
    box = Prompt(box_xyxy=np.array([10, 5, 50, 30], np.float32))
    for prediction in segmenter.predict([Request(embedding, point), Request(embedding, box)]):
        check_prediction("mobile_sam", prediction, (40, 70))
        assert prediction.masks.shape == (3, 40, 70)
        assert prediction.predicted_iou is not None


def test_checkpoint_is_loaded_strictly(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """A missing weight of either part and a foreign one are named."""
    path = tmp_path / "mobile_sam.pt"
    changed = dict(state)
    changed["image_encoder.teacher.weight"] = changed.pop("image_encoder.neck.0.weight")
    torch.save(changed, path)
    with pytest.raises(
        IntegrityError, match=r"1 missing: image_encoder\.1\.0\.weight; 1 unexpected: \S+\.0\.teacher\."
    ):
        mobile_sam.load(mobile_sam.SPEC, {"checkpoint": path}, Runtime())
    torch.save({k: v for k, v in state.items() if k != "mask_decoder.iou_token.weight"}, path)
    with pytest.raises(IntegrityError, match=r"1 missing: mask_decoder\.iou_token\.weight"):
        mobile_sam.load(mobile_sam.SPEC, {"checkpoint": path}, Runtime())


def test_without_timm_it_says_what_to_install(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that the encoder comes from is an extra."""
    monkeypatch.setattr("promptseg.models._loading.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"mobile_sam needs the package timm: pip install 'pytest-promptseg"):
        mobile_sam.load(mobile_sam.SPEC, {"checkpoint": checkpoint}, Runtime())
