"""The phantoms: the same pixels everywhere, every kind of target, noise of the right nature."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from promptseg.datasets_registry import _phantom_grid, phantom
from promptseg.datasets_registry._phantom_shapes import CASES
from promptseg.samples import Samples

SPECS = {spec.name: spec for spec in (phantom.CT, phantom.MRI, phantom.US, phantom.XRAY)}

# sha256 over all images and label maps. Another value means other pixels: then raise phantom.VERSION too.
PIXELS = {
    "phantom_ct": "f01cab5fbfed03bfea952a4fb43378948540e2fa9ac156d2f7d7fd378c603548",
    "phantom_mri": "ac15a33641637ca6985cae4203e7eb13e5ab8d14492fb6094083af5a49a1ce24",
    "phantom_us": "c38c7740e08b11e91c00cfab96c18c3fc89c3a6b9fd02c92e1b06ad06f330115",
    "phantom_xray": "671d669fe7f5b9db0b2dc4737565324bd303f6a1572367a6903da1b91bf2580e",
}

# Numpy functions whose results IEEE 754 fixes to the last bit, or that do not compute with floats at all.
EXACT = {
    "abs", "arange", "argsort", "asarray", "cumsum", "float64", "floor", "full", "int64", "maximum", "minimum", "ones",
    "pad", "random", "roll", "rot90", "sqrt", "take", "uint64", "uint8", "where", "zeros",
}  # fmt: skip


@pytest.fixture(params=SPECS)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each phantom data set in turn."""
    return str(request.param)


@pytest.fixture
def samples(name: str) -> Samples:
    """Return the cases of that data set."""
    return phantom.load(SPECS[name], None)


def parts(labels: np.ndarray) -> int:
    """Return the number of 8-connected components."""
    return int(cv2.connectedComponents(labels.astype(np.uint8), connectivity=8)[0]) - 1


def test_pixels_are_the_same_on_every_machine(name: str, samples: Samples) -> None:
    """All images and label maps together have the pinned hash."""
    digest = hashlib.sha256()
    for case_id in samples.ids():
        digest.update(case_id.encode() + samples.image(case_id).tobytes() + samples.labels(case_id).tobytes())
    assert digest.hexdigest() == PIXELS[name]


def test_only_exact_arithmetic_is_used() -> None:
    """No function enters whose last bit a maths library or a vector unit chooses."""
    paths = sorted(Path(_phantom_grid.__file__).parent.glob("_phantom_*.py"))
    assert "_phantom_grid.py" in [path.name for path in paths]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert node.attr in EXACT | {"ndarray", "bool_"}, f"{path.name}:{node.lineno} uses np.{node.attr}"
            assert not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Pow | ast.MatMult), path.name
            if isinstance(node, ast.Attribute) and node.attr in ("sum", "mean", "std", "dot"):
                assert path.name == "_phantom_grid.py", f"{path.name}:{node.lineno} adds up floats"


def test_images_and_labels_keep_the_contract(samples: Samples) -> None:
    """Twelve cases of several sizes, each with a target, normalised to 255."""
    assert samples.ids() == sorted(CASES)
    for case_id in samples.ids():
        image, labels = samples.image(case_id), samples.labels(case_id)
        assert (image.shape, image.dtype.name, image.max()) == ((*CASES[case_id][1], 3), "uint8", 255)
        assert (labels.shape, labels.dtype.name) == (CASES[case_id][1], "uint8")
        assert set(np.unique(labels)) == {0, 1}
        assert samples.subject(case_id) == case_id


def test_every_kind_of_target_is_there(samples: Samples) -> None:
    """Large, tiny, thin, in parts, at the border and hollow mean what they say, in every modality."""
    for case_id in samples.ids():
        target = samples.labels(case_id)
        share, kind = target.mean(), CASES[case_id][0]
        edge = target[0].any() or target[-1].any() or target[:, 0].any() or target[:, -1].any()
        widest = cv2.distanceTransform(np.pad(target, 1), cv2.DIST_L2, 5).max()
        assert parts(target) == {"parts_00": 3, "parts_01": 5}.get(case_id, 1)
        assert edge == (kind == "border")
        assert (share > 0.075) == (kind == "large") or kind == "border"
        assert (target.sum() < 100) == (kind == "tiny")
        assert (widest < 4) == (kind == "thin") or kind == "tiny"
        assert (parts(1 - target) == 2) == (kind == "hollow") or kind == "border"


def test_targets_do_not_stand_out_by_brightness_alone(samples: Samples) -> None:
    """No grey value splits target and background: the best threshold leaves an IoU below 0.9 in nearly every case."""
    scores = []
    for case_id in samples.ids():
        grey, target = samples.image(case_id)[..., 0].ravel(), samples.labels(case_id).ravel().astype(bool)
        inside = np.cumsum(np.bincount(grey[target], minlength=256)[::-1])
        outside = np.cumsum(np.bincount(grey[~target], minlength=256)[::-1])
        bright = (inside / (target.sum() + outside)).max()
        dark = ((inside[-1] - inside) / (target.sum() + outside[-1] - outside)).max()
        scores.append(max(bright, dark))
    assert sorted(scores)[-3] < 0.9


def test_another_load_gives_the_same(name: str, samples: Samples) -> None:
    """Order and history do not matter: a case alone has the pixels that it has after all others."""
    last = [samples.image(case_id) for case_id in samples.ids()][-1]
    phantom._make.cache_clear()
    again = phantom.load(SPECS[name], None)
    np.testing.assert_array_equal(again.image(again.ids()[-1]), last)
    assert again.fingerprint == samples.fingerprint


def test_fingerprints_differ() -> None:
    """Each data set has its own."""
    assert len({phantom.load(spec, None).fingerprint for spec in SPECS.values()}) == 4


def test_the_specs_import_nothing_heavy() -> None:
    """Reading the specs imports none of the modules that draw."""
    code = (
        "import sys; import promptseg.specs; before = set(sys.modules); import promptseg.datasets_registry.phantom\n"
        "print(sorted(m for m in set(sys.modules) - before if 'phantom_' in m or m in ('numpy', 'PIL', 'cv2')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gauss_is_nearly_gaussian() -> None:
    """Mean, spread and tails of the summed bytes are those of a normal distribution."""
    noise = _phantom_grid.Dice("gauss").gauss((400, 500))
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.25
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01


def test_exp_and_log_are_close_enough() -> None:
    """The exact substitutes agree with numpy to a part in a hundred over the range that is used."""
    values = np.linspace(-6, 2, 50)[None]
    np.testing.assert_allclose(_phantom_grid.exp(values), np.exp(values), rtol=0.01)
    np.testing.assert_allclose(_phantom_grid.log(np.exp(values)), values, atol=0.01)


def test_blur_keeps_the_level() -> None:
    """A constant stays what it is, also at the edges, and an impulse keeps its sum."""
    np.testing.assert_array_equal(_phantom_grid.blur(np.full((5, 6), 3.0), 1, 2), 3.0)
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1
    assert _phantom_grid.blur(impulse, 1, 2).sum() == pytest.approx(1)


def test_the_background_of_mri_is_rayleigh() -> None:
    """Magnitude noise without signal has a mean of 1.91 standard deviations; Gaussian noise would have 0."""
    samples = phantom.load(phantom.MRI, None)
    corners = np.concatenate([samples.image(c)[:20, :20, 0].ravel() for c in samples.ids() if c[:2] in ("ti", "th")])
    corners = corners[corners < 60].astype(float)
    assert 1.5 < corners.mean() / corners.std() < 2.2


def test_speckle_of_ultrasound_grows_with_depth() -> None:
    """Under a curved probe speckle is wider, not higher, far from the probe."""
    image = phantom.load(phantom.US, None).image("tiny_00")[..., 0].astype(float)

    def likeness(rows: slice) -> float:
        strip = image[rows, 90:166]
        strip = strip - strip.mean()
        return float((strip[:, 3:] * strip[:, :-3]).mean() / (strip * strip).mean())

    assert likeness(slice(190, 225)) > likeness(slice(80, 115)) + 0.1


def test_noise_of_xray_follows_the_counts() -> None:
    """Where more photons arrive, in the lung, the picture is darker and, after the logarithm, less noisy."""
    image = phantom.load(phantom.XRAY, None).image("tiny_00")[..., 0].astype(float)
    fine = image[1:-1, 1:-1] - (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]) / 4
    lung, spine = (slice(80, 120), slice(60, 85)), (slice(200, 240), slice(122, 134))
    assert image[lung].mean() + 50 < image[spine].mean()
    assert fine[lung].std() < fine[spine].std()
