"""The style of the figures, and writing them to files: the same bytes for the same numbers.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which people with every kind of colour vision can
distinguish; form and place carry the same information, for print without colour. pyplot is not used: nothing is global
and no display is needed. The user's matplotlibrc is ignored, and texts are drawn as paths of matplotlib's own font.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import UnavailableError, package_needed
from promptseg.files.atomic import atomic_file
from promptseg.specs import MaskChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY, BAND = "#666666", "#F2F2F2"
LINES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)  # yellow is too light for a line on paper
FILLS = (SKY, ORANGE, GREEN, YELLOW, VERMILLION, BLUE, PURPLE)
MODE_COLOURS: Mapping[str, str] = {
    "point_largest": SKY,
    "point_each": BLUE,
    "box_largest": ORANGE,
    "box_each": VERMILLION,
    "box_all": GREEN,
}
MARKERS: Mapping[MaskChoice, str] = {"first": "o", "confident": "s", "oracle": "v"}
CHOICES: Mapping[MaskChoice, str] = {"first": "candidate 0", "confident": "most confident mask", "oracle": "oracle"}
FORMATS = ("svg", "png")
_PNG_DPI = 200
_LONGEST = 40  # characters of a name
_SETTINGS: Mapping[Any, Any] = {
    "svg.hashsalt": "promptseg",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "image.interpolation": "nearest",
}


@contextmanager
def settings() -> Iterator[None]:
    """Apply the settings, on matplotlib's own defaults, while figures are made and written.

    Raises:
        UnavailableError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UnavailableError(package_needed("`promptseg figures`", "matplotlib", "figures")) from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # such a character becomes a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def plain(text: str, longest: int = _LONGEST) -> str:
    """Return text from plugins, data or results on one line, without control characters.

    A long text is cut in the middle, as names with the same beginning often have different ends.
    """
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = longest // 2
    return clean if len(clean) <= longest else f"{clean[: longest - half - 1]}…{clean[-half:]}"


def colour_of(model: str, models: Sequence[str]) -> str:
    """Return a model's colour among those that are shown together; after seven models colours repeat."""
    return LINES[list(models).index(model) % len(LINES)]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure in each of `FORMATS`, each file whole or not at all, and return the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in FORMATS]
    for path, kind in zip(paths, FORMATS, strict=True):
        # Neither the date nor the version of matplotlib: they would make equal figures differ.
        metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=_PNG_DPI, metadata=metadata)
    return paths
