"""``--seg-timeout``: a model that hangs is given up, and everything else goes on."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from support.project import Project

from promptseg.errors import ModelError
from promptseg.runner.timeout import limited
from promptseg.segmenter import Image, Prediction, Request
from promptseg.specs import ModelSpec

SPEC = ModelSpec(
    name="sleepy", family="test", load="x:load", licence="none", accepts=frozenset({"boxes"}), embedded=True
)
IMAGE = np.ones((4, 4, 3), dtype=np.uint8)


class Sleepy:
    """Waits for its release where an image is dark, and fails where it is grey."""

    spec = SPEC

    def __init__(self) -> None:
        self.release = threading.Event()
        self.calls: list[tuple[str, str]] = []

    def embed(self, images: Sequence[Image]) -> list[int]:
        """Return the first pixel of each image."""
        self.calls.append(("embed", threading.current_thread().name))
        if any(image[0, 0, 0] == 0 for image in images):
            self.release.wait(30)
        if any(image[0, 0, 0] == 9 for image in images):
            raise ValueError("grey")
        return [int(image[0, 0, 0]) for image in images]

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer with a full mask."""
        self.calls.append(("predict", threading.current_thread().name))
        return [Prediction(np.ones((1, 4, 4), dtype=bool)) for _ in requests]


def test_without_a_limit_the_model_itself_is_used() -> None:
    """Nobody pays for what nobody asked for."""
    model = Sleepy()
    assert limited(model, None) is model


def test_answers_and_errors_come_through() -> None:
    """All calls are made by one thread, the model's own."""
    inner = Sleepy()
    model = limited(inner, 30)
    assert model.spec is SPEC
    assert list(model.embed([IMAGE, 2 * IMAGE])) == [1, 2]
    with pytest.raises(ValueError, match="grey"):
        model.embed([9 * IMAGE])
    assert len(model.predict([])) == 0
    assert inner.calls == [(call, "promptseg-model") for call in ("embed", "embed", "predict")]


def test_after_the_first_call_that_is_late_all_fail_at_once() -> None:
    """The message names the model, the call, the limit and what is kept."""
    inner = Sleepy()
    model = limited(inner, 0.1)
    message = r"model 'sleepy' did not answer embed\(\) of 1 images within 0.1 s \(--seg-timeout\); it is not called a"
    with pytest.raises(ModelError, match=message):
        model.embed([0 * IMAGE])
    began = time.monotonic()
    for call in (lambda: model.embed([IMAGE]), lambda: model.predict([])) * 50:
        with pytest.raises(ModelError, match=message):
            call()
    assert time.monotonic() - began < 1
    inner.release.set()
    assert len(inner.calls) == 1


def test_a_model_that_is_dropped_leaves_neither_thread_nor_memory() -> None:
    """Else the next model would not fit beside it; nor may an error that was raised hold it."""
    inner = Sleepy()
    model = limited(inner, 30)
    with pytest.raises(ValueError, match="grey"):
        model.embed([9 * IMAGE])
    threads = [t for t in threading.enumerate() if t.name == "promptseg-model"]
    gone = weakref.ref(inner)
    gc.disable()
    try:
        del model, inner
        for thread in threads:
            thread.join(timeout=10)
    finally:
        gc.enable()
    gc.collect()  # pytest.raises keeps what it caught until then
    assert gone() is None
    assert not [t for t in threading.enumerate() if t.name == "promptseg-model"]


HANGS = """
[models.hangs]
adapter = "hanging:load"
[models.swift]
adapter = "adapters:load"
"""
HANGING = """
import threading
from pathlib import Path
from adapters import Bright

class Hangs(Bright):  # at its fifth case; before it counts, six images are asked about in company
    def embed(self, images):
        found = super().embed(images)
        self.seen = getattr(self, "seen", 0) + len(images)
        if self.seen > 6 + 4 and not Path("mended").exists():
            threading.Event().wait()
        return found

def load(spec, files, runtime):
    return Hangs(spec, files, runtime)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_model_that_hangs_costs_one_timeout_and_no_finished_case(project: Project, workers: tuple[str, ...]) -> None:
    """Its other cases fail by name, the next model is scored, the process ends; mended, it does only the rest."""
    project.configure(HANGS)
    project.pytester.makepyfile(hanging=HANGING)
    cells = ("--seg-models", "hangs,swift", "--seg-tasks", "squares", "--seg-modes", "box_all")
    began = time.monotonic()
    scores = project.scores(*cells, *workers, "--seg-timeout", "1.5", apart=True)
    assert time.monotonic() - began < 30
    lost, swift = scores["hangs-squares-box_all"], scores["swift-squares-box_all"]
    assert lost["n"] in (3, 4)  # the fourth was encoded, and may not have been prompted yet
    assert (lost["n"] + lost["n_errors"], lost["outcome"]) == (10, "failed")
    assert "did not answer embed() of 1 images within 1.5 s (--seg-timeout)" in lost["reason"]
    assert (swift["n"], swift["n_errors"], swift["outcome"]) == (10, 0, "skipped")
    assert len(project.calls("embed")) == 5 + 10 + 2 * 6  # six images of each model were asked about in company
    (project.pytester.path / "mended").touch()
    mended = project.scores(*cells, "--seg-timeout", "20")["hangs-squares-box_all"]
    assert (mended["n"], mended["mean_iou"]) == (10, swift["mean_iou"])
    assert len(project.calls("embed")) == lost["n_errors"]
