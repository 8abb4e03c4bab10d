"""Feed damaged and made-up files to everything that reads files, guided by coverage (atheris, libFuzzer).

    .venv/bin/python scripts/checks/fuzz.py TARGET [--seconds 60] [--seed 0]

TARGET is image, mask, config, thresholds, journal, result or rle. Whatever comes in, only what a user can be told may
come out: a clean answer or a `PromptsegError`. Anything else is a finding: it ends the run with the traceback and the
bytes, for a line in tests/test_fuzz.py. Needs the extra ``dev``, where it has atheris (Linux).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from promptseg.data.images import decode_image, decode_labels
from promptseg.errors import PromptsegError
from promptseg.registry import config
from promptseg.results.masks import MASKS, MaskStore, SavedMask, encoded
from promptseg.results.parquet import read_parquet, write_parquet
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import JOURNALS, ResultStore
from promptseg.segmenter import Prediction
from promptseg.specs import Cell
from promptseg.verdicts import thresholds

CELL, FINGERPRINT = Cell("model", "task", "box_all"), "ab" * 32
RESULT = CellResult(
    cell=CELL,
    fingerprint=FINGERPRINT,
    rows=tuple(
        ResultRow(
            case_id=f"case {i}",
            iou_first=i / 7,
            iou_confident=i / 8,
            iou_oracle=i / 7,
            predicted_iou=[0.1, 0.9],
            candidate_iou=[i / 7, i / 8],
        )
        for i in range(5)
    ),
    n_examined=5,
    provenance=Provenance.from_json({"seed": 0, "model": {"sha256": {"encoder": "00"}}}),
)
CONFIG = """
[datasets.us]
folder = "path"
modality = "ultrasound"
labels = {tumor = 1, cyst = [2, 3]}
[models.mine]
adapter = "sam"
repo = "org/name"
revision = "0123456789012345678901234567890123456789"
files = {checkpoint = "model.pth"}
sha256 = {checkpoint = "0123456789012345678901234567890123456789012345678901234567890123"}
accepts = ["points", "boxes"]
options = {side = 1024}
"""
THRESHOLDS = '[sam.us.box_all]\nvalue = 0.5\nselect = "first"\ntolerance = 0.02\nsource = "me"\nat_most = 10\n'


# --- targets: they return, or raise a PromptsegError or what is a finding -------------------------------------------


def image(data: bytes) -> None:
    """An image file: three channels of uint8, the brightest 255."""
    found = decode_image(data, "case")
    _expect(found.ndim == 3)
    _expect(found.shape[2] == 3)
    _expect(found.dtype == np.uint8)
    _expect(found.max() == 255)


def mask(data: bytes) -> None:
    """A mask file: label ids, none below zero."""
    found = decode_labels(data, "case")
    _expect(found.ndim == 2)
    _expect(found.dtype.kind in "ui")
    _expect(found.min() >= 0)


def config_file(data: bytes) -> None:
    """A promptseg.toml."""
    with _file(data) as path:
        config.read(path)


def thresholds_file(data: bytes) -> None:
    """A file of thresholds: numbers from 0 to 1."""
    with _file(data) as path:
        _expect(all(0 <= threshold.value <= 1 for threshold in thresholds.read(path).values()))


def journal(data: bytes) -> None:
    """Journals of results and of masks: lines that were written, and a word on each that was not."""
    with tempfile.TemporaryDirectory() as folder:
        notices: list[str] = []
        results, masks = ResultStore(Path(folder), notices.append), MaskStore(Path(folder), notices.append)
        for path in (results.path(CELL).parent / JOURNALS, results.path(CELL).parent / MASKS):
            path.mkdir(parents=True)
            (path / f"{CELL.mode}-{FINGERPRINT[:16]}.1-2.journal").write_bytes(data)
        found = results.finished_cases(CELL, FINGERPRINT)
        lines = data.split(b"\n")[:-1]
        _expect(len(found) <= len(lines))
        _expect(all(_is_possible(row) for rows in found.values() for row in rows))
        masks.cases(CELL, FINGERPRINT)


def result(data: bytes) -> None:
    """A result: the one that was written, or none."""
    with _file(data) as path:
        found = read_parquet(path)
    _expect(all(_is_possible(row) for row in found.rows))


def rle(data: bytes) -> None:
    """The runs of a saved mask: they fill it, or are refused."""
    height, width = (data[0] % 16, data[1] % 16) if len(data) > 1 else (0, 0)
    counts = data[2:].decode("latin-1")
    saved = SavedMask(
        case_id="case", click=0, prompt=0, candidate=0, height=height, width=width, counts=counts, predicted_iou=None
    )
    found = saved.mask()
    _expect(found.shape == (height, width))
    _expect(found.dtype == np.bool_)


def _expect(holds: object) -> None:
    if not holds:
        raise AssertionError("a clean answer that is none")


def _is_possible(row: ResultRow) -> bool:
    scores = (row.iou_first, row.iou_confident, row.iou_oracle)
    return all(s is None or (math.isfinite(s) and 0 <= s <= 1) for s in scores)


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".any") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


# --- what the search begins with ------------------------------------------------------------------------------------


def pictures() -> list[bytes]:
    """Return a tiny image in every format and mode that promptseg has a rule for."""
    ramp = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    grey = Image.fromarray(ramp)
    found = [_encoded(grey, kind) for kind in ("png", "jpeg", "bmp", "tiff", "gif", "ppm", "webp", "tga")]
    found += [_encoded(grey.convert(mode), "png") for mode in ("1", "P", "LA", "RGB", "RGBA")]
    found += [_encoded(Image.fromarray(ramp.astype(np.uint16) * 200), kind) for kind in ("png", "tiff")]
    found += [_encoded(Image.fromarray(ramp.astype(kind)), "tiff") for kind in (np.int32, np.float32)]
    return found


def _encoded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def journals() -> list[bytes]:
    """Return a journal of results and one of masks, of two lines each."""
    masks = [dataclasses.asdict(one) for one in encoded("case 0", 0, [Prediction(np.eye(4, dtype=bool)[None])])]
    rows = [dataclasses.asdict(row) for row in RESULT.rows[:2]]
    of = [CELL.model, CELL.task, f"{CELL.mode}-{FINGERPRINT[:16]}"]
    entries = [
        [{"of": of, "case_id": row["case_id"], "rows": [row]} for row in rows],
        [{"of": of, "case_id": "case 0", "masks": masks}],
    ]
    return [b"".join(_line(entry) for entry in some) for some in entries]


def _line(entry: dict[str, object]) -> bytes:
    return json.dumps({**entry, "crc32": zlib.crc32(json.dumps(entry).encode())}).encode() + b"\n"


def results() -> list[bytes]:
    """Return a result."""
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder) / "r.parquet", RESULT)
        return [(Path(folder) / "r.parquet").read_bytes()]


def runs() -> list[bytes]:
    """Return the runs of some masks, each behind its height and width."""
    squares = [np.eye(4, dtype=bool), np.ones((5, 5), dtype=bool), np.arange(15).reshape(3, 5) % 3 == 0]
    saved = [encoded("case", 0, [Prediction(square[None])])[0] for square in squares]
    return [bytes([one.height, one.width]) + one.counts.encode() for one in saved]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "image": (image, pictures),
    "mask": (mask, pictures),
    "config": (config_file, lambda: [CONFIG.encode()]),
    "thresholds": (thresholds_file, lambda: [THRESHOLDS.encode()]),
    "journal": (journal, journals),
    "result": (result, results),
    "rle": (rle, runs),
}


def survives(target: str, data: bytes) -> bool:
    """Return whether a target gives a clean answer; False where it refuses. Whatever else it raises is a finding."""
    try:
        TARGETS[target][0](data)
    except PromptsegError:
        return False
    return True


def fuzz(target: str, seconds: int, seed: int, folder: Path) -> None:
    """Search until the time is over or something is found; ends the process."""
    import atheris

    warnings.simplefilter("ignore")
    for number, data in enumerate(TARGETS[target][1]()):
        (folder / f"{number:02}").write_bytes(data)
    flags = [f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-artifact_prefix={folder}/found-", "-timeout=20"]
    quiet = ["-print_final_stats=1", "-verbosity=0", "-rss_limit_mb=6000", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *flags, *quiet, str(folder)], lambda data: survives(target, data))
    atheris.Fuzz()


SEARCH = """
import sys
from pathlib import Path
import atheris
with atheris.instrument_imports(include=["promptseg", "tomllib", "PIL"]):
    import fuzz
fuzz.fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
"""


def main() -> int:
    """Search in a process of its own, print the number of inputs tried, and show the findings."""
    parser = argparse.ArgumentParser(description="Feed damaged files to everything that reads files.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SEARCH, arguments.target, str(arguments.seconds), str(arguments.seed), folder]
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=paths)
        findings = [path.read_bytes() for path in sorted(Path(folder).glob("found-*"))]
    tried = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{arguments.target}: {tried[0].split()[-1] if tried else 'unknown'} inputs, {len(findings)} findings")
    if done.returncode or findings:
        print(done.stdout[-4000:], done.stderr[-4000:], *findings, sep="\n")
    return 1 if done.returncode or findings else 0


if __name__ == "__main__":
    sys.exit(main())
