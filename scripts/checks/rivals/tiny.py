"""The numbers that tests compare with: what the authors' repository answers with tiny random weights."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rivals.clicking import Clicks, clicker
from rivals.comparison import predictor_of
from rivals.families import Family, build
from rivals.weights import draw_weights, spread_logits

TINY_SIZES = ((70, 90), (41, 33))
TINY_CLICKS = ((0.5, 0.5, True), (0.3, 0.6, True), (0.8, 0.2, False), (0.55, 0.45, True))
"""(row and column as parts of the image, positive)."""


def tiny_image(size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return an (H, W, 3) image of soft blobs, drawn from NumPy's PCG64."""
    noise = np.random.default_rng(7).uniform(0, 255, (*size_hw, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    least, most = float(blurred.min()), float(blurred.max())
    return ((blurred - least) / (most - least) * 255).astype(np.uint8)


def tiny_clicks(size_hw: tuple[int, int]) -> Clicks:
    """Return `TINY_CLICKS` in pixels."""
    return [(int(row * size_hw[0]), int(column * size_hw[1]), positive) for row, column, positive in TINY_CLICKS]


def probe(probabilities: npt.NDArray[np.float32]) -> list[float]:
    """Return the mean and a few pixels of an (H, W) map."""
    height, width = probabilities.shape
    pixels = [probabilities[int(y * height), int(x * width)] for y, x in ((0.5, 0.5), (0.2, 0.7), (0.9, 0.1))]
    return [round(float(value), 6) for value in (probabilities.mean(), *pixels)]


def golden(family: Family) -> dict[str, Any]:
    """Return what the authors' repository answers with tiny weights: after each click, and to all clicks at once."""
    network = build(family, "tiny")
    draw_weights(network, 0)
    zoom_in = {**family.zoom_in, **family.tiny[0]}
    predictor, forgetful = (predictor_of(family, network, mode, zoom_in) for mode in family.modes)
    factor, shift = spread_logits(network, family, predictor, tiny_image(TINY_SIZES[0]))
    answers = {}
    for size_hw in TINY_SIZES:
        predictor.set_input_image(tiny_image(size_hw))
        clicks = tiny_clicks(size_hw)
        fed_back = [probe(predictor.get_prediction(clicker(clicks[: i + 1]))) for i in range(len(clicks))]
        forgetful.set_input_image(tiny_image(size_hw))
        at_once = probe(forgetful.get_prediction(clicker(clicks)))
        answers["x".join(map(str, size_hw))] = {"fed_back": fed_back, "at_once": at_once}
    return {"factor": factor, "shift": shift, "answers": answers}
