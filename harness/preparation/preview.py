"""Draw a contact sheet of a data set: some of its images with the contours of their label maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from promptseg.errors import CaseError
from promptseg.samples import LabelMap, Samples
from promptseg.segmenter import Image

TILE = 240  # pixels: the longer side of an image on the sheet
_CAPTION = 22
_HEADER = 24
_GAP = 6
_COLUMNS = 6
_PAPER = 24
# RGB; Okabe and Ito's colours, which people distinguish whatever their colour vision.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
_UNUSABLE = (213, 94, 0)

Canvas = npt.NDArray[np.uint8]  # (H, W, 3) RGB


def spread(case_ids: Sequence[str], count: int) -> list[str]:
    """Return ``count`` ids evenly spread over all, first and last among them; all where there are fewer."""
    if count >= len(case_ids):
        return list(case_ids)
    return [case_ids[round(place)] for place in np.linspace(0, len(case_ids) - 1, count)]


def contact_sheet(samples: Samples, case_ids: Sequence[str], names: Mapping[int, str]) -> Canvas:
    """Return (H, W, 3) uint8 RGB: a tile for each case, with contours, and its id below.

    A case that cannot be used is an empty tile with its id in red. ``names`` gives the names of label ids; a line at
    the top has their colours, and makes the sheet wider where it must.
    """
    columns = min(_COLUMNS, max(1, len(case_ids)))
    rows = max(1, math.ceil(len(case_ids) / columns))
    side, height = TILE + _GAP, TILE + _CAPTION + _GAP
    sheet = np.full((_HEADER + rows * height + _GAP, columns * side + _GAP, 3), _PAPER, np.uint8)
    for place, case_id in enumerate(case_ids):
        top, left = _HEADER + (place // columns) * height, _GAP + (place % columns) * side
        sheet[top : top + TILE + _CAPTION, left : left + TILE] = _tile(samples, case_id)
    return _with_legend(sheet, names)


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the colour of a label's contours, RGB; the same in every image."""
    return _COLOURS[(label - 1) % len(_COLOURS)]


def _with_legend(sheet: Canvas, names: Mapping[int, str]) -> Canvas:
    from PIL import Image as Pil
    from PIL import ImageDraw

    texts = {label: f"{label} {name}" for label, name in sorted(names.items())}
    lengths = {label: math.ceil(ImageDraw.Draw(Pil.fromarray(sheet)).textlength(text)) for label, text in texts.items()}
    missing = _GAP + sum(length + 4 * _GAP for length in lengths.values()) - sheet.shape[1]
    wide = np.pad(sheet, ((0, 0), (0, max(0, missing)), (0, 0)), constant_values=_PAPER)
    picture, left = Pil.fromarray(wide), _GAP
    draw = ImageDraw.Draw(picture)
    for label, text in texts.items():
        draw.text((left, _GAP), text, fill=colour_of(label))
        left += lengths[label] + 4 * _GAP
    return np.asarray(picture)


def _tile(samples: Samples, case_id: str) -> Canvas:
    tile = np.full((TILE + _CAPTION, TILE, 3), _PAPER, np.uint8)
    try:
        picture = outlined(samples.image(case_id), samples.labels(case_id), TILE)
    except CaseError:
        return _captioned(tile, case_id, _UNUSABLE)
    top, left = (TILE - picture.shape[0]) // 2, (TILE - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return _captioned(tile, case_id, (255, 255, 255))


def outlined(image: Image, labels: LabelMap, longest: int) -> Canvas:
    """Return the image, its longer side ``longest`` pixels, with a line of one pixel round every label's region."""
    import cv2

    scale = longest / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.ascontiguousarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
    for label in (int(value) for value in np.unique(labels) if value):
        region = cv2.resize((labels == label).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(region, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, colour_of(label), 1)
    return picture


def _captioned(tile: Canvas, text: str, colour: tuple[int, int, int]) -> Canvas:
    """Write the text below, its end where it is too long: ids of one volume differ there."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    picture = Pil.fromarray(tile)
    draw = ImageDraw.Draw(picture)
    while draw.textlength(text) > TILE - 4:
        text = "…" + text[2:]
    draw.text((2, TILE + 4), text, fill=colour)
    return np.asarray(picture)
