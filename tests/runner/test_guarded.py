"""A model behind the guard: the same methods, each called from the state of the run."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from support.project import Project

from promptseg.errors import BrokenPluginError, ModelError
from promptseg.runner.guarded import guarded, guarded_samples
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.samples import Samples
from promptseg.segmenter import Image, PackingSegmenter, Prediction, Request
from promptseg.specs import ModelSpec

SPEC = ModelSpec(
    name="plain", family="test", load="x:load", licence="none", accepts=frozenset({"boxes"}), embedded=True
)
IMAGE = np.ones((4, 4, 3), dtype=np.uint8)


class Plain:
    """Says in which thread it prepares; its preparation may draw random numbers."""

    spec = SPEC
    weight = 3

    def __init__(self, *, draws: bool = False) -> None:
        self.draws = draws
        self.threads: list[str] = []

    def prepare_image(self, image: Image) -> tuple[int, float]:
        """Return the sum of an image, and a random number where it draws one."""
        self.threads.append(threading.current_thread().name)
        return int(image.sum()), random.random() if self.draws else 0.0  # noqa: S311 - as plugins do

    def embed(self, images: Sequence[Any]) -> Sequence[Any]:
        """Return what was prepared, as a sequence of its own kind."""
        return range(len(images)) if any(isinstance(image, np.ndarray) for image in images) else list(images)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """End the process."""
        os._exit(len(requests))


def _beside(call: Any, *arguments: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call(*arguments)), name="worker")
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("draws", [False, True])
def test_images_are_prepared_beside_only_where_nothing_shared_is_touched(draws: bool) -> None:
    """The first are prepared by the model's thread, which shows what the others may be; the answers are the same."""
    inner = Plain(draws=draws)
    model: Any = guarded(inner, "plain", PluginCalls(0, print))
    answers = [model.embed([_beside(model.prepare_image, IMAGE)])[0] for _ in range(3)]
    assert len(set(answers)) == 1
    assert answers[0][0] == 48
    assert inner.threads == (["MainThread"] * 3 if draws else ["MainThread", "worker", "worker"])


def test_a_model_keeps_what_it_has_and_gets_nothing_else() -> None:
    """Its other attributes are there, methods that it lacks are not; lazy answers are computed within the call."""
    model: Any = guarded(Plain(), "plain", PluginCalls(0, print))
    assert (model.weight, model.spec) == (3, SPEC)
    assert not isinstance(model, PackingSegmenter)
    assert model.embed([IMAGE, IMAGE]) == [0, 1]
    with pytest.raises(ModelError, match=r"model 'plain' called os._exit\(0\) in predict\(\) of 0 prompts"):
        model.predict([])


def test_a_reader_of_a_data_set_cannot_end_the_run() -> None:
    """What it raises is an error of the case; its other attributes are there."""

    class Reader:
        fingerprint = "f"

        def ids(self) -> list[str]:
            return ["a"]

        def subject(self, _: str) -> None:
            return None

        def labels(self, _: str) -> None:
            sys.exit(0)

        def image(self, case_id: str) -> str:
            return case_id

    samples: Any = guarded_samples(cast("Samples", Reader()), "set")
    assert (samples.fingerprint, samples.ids(), samples.subject("a"), samples.image("a")) == ("f", ["a"], None, "a")
    with pytest.raises(BrokenPluginError, match=r"data set 'set' called sys.exit\(0\) in labels\(\)"):
        samples.labels("a")


HABITS = """
import os, sys, warnings
import numpy as np
import torch
from adapters import Bright
from promptseg import Prediction

class Torch(Bright):
    "Its score shows the dtype and the mode that torch has when it is called, and the first random number of a call."
    def predict(self, requests):
        self.number = np.random.rand()
        return super().predict(requests)

    def answer(self, image, prompt):
        kept = np.zeros(image.shape[:2], bool)
        dtype = torch.zeros(1).dtype == torch.float32
        kept[: 10 if dtype and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") else 20] = True
        kept[: int(self.number * 30)] = False
        return Prediction(kept[None])

def load(spec, files, runtime):
    return Torch(spec, files, runtime)

def unruly(spec, files, runtime):
    torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_autocast_enabled("cpu", True)
    np.random.seed(1); os.chdir("/"); sys.stdout.close(); warnings.simplefilter("error")
    return Bright(spec, files, runtime)

class Quits(Bright):
    def answer(self, image, prompt):
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen > 3:
            os._exit(0)
        return super().answer(image, prompt)

def quits(spec, files, runtime):
    return Quits(spec, files, runtime)
"""


def _configure(project: Project, *names: str) -> None:
    project.configure(*(f'[models.{name}]\nadapter = "habits:{name.split("_")[-1]}"' for name in names))
    project.pytester.makepyfile(habits=HABITS)


@pytest.mark.parametrize("timeout", [(), ("--seg-timeout", "60")], ids=["", "timeout"])
def test_a_score_is_the_same_in_any_company(project: Project, timeout: tuple[str, ...]) -> None:
    """Before it runs a model that leaves torch, NumPy and the process in another state: it is named, once."""
    _configure(project, "a_unruly", "z_load")
    cells = ("--seg-tasks", "squares", "--seg-modes", "box_all,point_largest", "--seg-rerun", *timeout)
    alone = project.scores("--seg-models", "z_load", *cells)
    together = project.scores("--seg-models", "a_unruly,z_load", *cells)
    for name, cell in alone.items():
        assert together[name]["mean_iou"] == cell["mean_iou"]
        assert together[name]["fingerprint"] == cell["fingerprint"]
    output = project.run("--seg-models", "a_unruly", *cells).stdout.str()
    assert output.count("model 'a_unruly' changed") == 1
    assert "torch's default dtype (torch.float32 to torch.float64)" in output


def test_a_model_that_exits_fails_its_cases_and_nothing_else(project: Project) -> None:
    """The process goes on; the cases that it finished count, the others name what it did."""
    _configure(project, "a_quits", "z_load")
    cells = ("--seg-models", "a_quits,z_load", "--seg-tasks", "squares", "--seg-modes", "box_all")
    scores = project.scores(*cells)
    quits, other = scores["a_quits-squares-box_all"], scores["z_load-squares-box_all"]
    assert (quits["n"] + quits["n_errors"], quits["outcome"]) == (10, "failed")
    assert "model 'a_quits' called os._exit(0) in predict()" in quits["reason"]
    assert (other["n"], other["n_errors"]) == (10, 0)
