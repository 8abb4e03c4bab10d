"""The benchmarks run, and compare things that do the same."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator

import boundary
import cv2
import numpy as np
import plain_loop
import prompt_simulation
import protocol
import pytest
import scaling
import subjects

from promptseg import prompts
from promptseg.segmenter import Image, Mask, Prompt


def targets() -> list[Mask]:
    """Return smoothed noise of many densities and sizes, with parts at edges and of equal areas, and plain shapes."""
    rng, found = np.random.default_rng(0), []
    for size in ((1, 1), (5, 3), (40, 61), (97, 64)):
        for density in (0.1, 0.4, 0.6, 0.9):
            noise = rng.random(size)
            smooth = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, 2, 1)) / 4
            coarse = np.repeat(np.repeat(noise < density, 4, axis=0), 3, axis=1)
            found += [noise < density, smooth < np.quantile(smooth, density), coarse]
    return [target for target in found if target.any()]


def test_simulated_prompts_are_those_of_the_transcribed_rule() -> None:
    """Points and boxes of all five modes and corrective clicks, on whole images with scikit-image's components."""
    simulate = (prompts.point_largest, prompts.point_each, prompts.box_largest, prompts.box_each, prompts.box_all)
    clicks = 0
    for target in targets():
        rng, theirs = (prompts.generator(0, "task", "case", 0) for _ in range(2))
        expected = plain_loop.static_prompts(target, _draw(theirs))
        for mode, (points, boxes) in zip(simulate, expected, strict=True):
            found = mode(target, rng)
            assert [tuple(xy) for xy in found[0].points_xy.astype(int).tolist()] == points
            assert [p.box_xyxy.tolist() for p in found if p.box_xyxy is not None] == [box.tolist() for box in boxes]
        prediction = np.roll(target, 2, axis=1) & (np.arange(target.shape[1]) % 7 > 0)
        error = np.bitwise_xor(target, prediction)
        if error.any():
            click = prompts.next_click(target, prediction, Prompt(), rng)
            assert tuple(click.points_xy[0].astype(int).tolist()) == plain_loop.centre(error, _draw(theirs))
            clicks += 1
    assert clicks > 30


def _draw(rng: np.random.Generator) -> Callable[[int], int]:
    return lambda n: int(rng.bit_generator.random_raw() % n)


@pytest.fixture(autouse=True)
def _without_ipp() -> Iterator[None]:
    """Let the transcription's distances be those of OpenCV itself, as promptseg's are on every machine."""
    in_use = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(in_use)


def test_parts_of_a_target_are_found_once_and_forgotten_with_it() -> None:
    """Only of an array that cannot change; a writeable one is looked at each time."""
    target = np.zeros((9, 9), dtype=bool)
    target[1:3, 1:3] = target[5:8, 5:8] = True
    assert prompts._parts(target) is not prompts._parts(target)
    target[1, 1] = False
    assert prompts.count_components(target) == 2
    target.setflags(write=False)
    assert prompts._parts(target) is prompts._parts(target)
    key = id(target)
    del target
    gc.collect()
    assert key not in prompts._known


def test_the_comparison_of_prompts_prints_both(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On drawn objects."""
    monkeypatch.setattr(sys, "argv", ["prompt_simulation.py", "--images", "2", "--size", "64"])
    prompt_simulation.main()
    out = capsys.readouterr().out
    assert "known beforehand: promptseg" in out
    assert "corrective click: promptseg" in out


class Preparing(scaling.Free):
    """Prepares its images ahead of time."""

    def prepare_image(self, image: Image) -> Image:
        """Return it."""
        return image


def test_the_border_to_a_model_is_measured_apart_from_it() -> None:
    """Of images that are fewer than the cases; each call of the model is counted, through border and guard."""
    samples = boundary.Repeated(subjects.Pictures(None, 2, (scaling.SIDE, scaling.SIDE)), 5)
    assert len(samples.ids()) == 5
    outside, inside, total = boundary.measure(Preparing(), samples, protocol.MODES[:2], 1)
    assert inside.calls >= 5 * 3
    assert 0 < inside.seconds < outside.seconds < total


def test_cost_and_memory_of_many_cases_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few enough to be quick."""
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--cases", "4", "8"])
    scaling.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["4", "8"]
