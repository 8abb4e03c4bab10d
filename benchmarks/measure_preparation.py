"""Measure peak memory and time of a preparation as large as one of the Medical Segmentation Decathlon.

    python benchmarks/measure_preparation.py --volume CT.nii.gz --labels SEG.nii.gz --gigabytes 10

One real volume with its labels is laid side by side until it is 512 x 512 voxels wide and as many slices deep as asked
for; noise in the last bit keeps it from being compressed better than a scan. Copies of it fill an archive in the layout
of MSD Task09. `promptseg data prepare ct_spleen` then reads the archive in a process of its own, whose peak memory is
printed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 512


def tiled(array: npt.NDArray[Any], depth: int) -> npt.NDArray[Any]:
    """Return (SIDE, SIDE, depth), repeated and cut."""
    counts = [-(-wanted // found) for wanted, found in zip((SIDE, SIDE, depth), array.shape, strict=True)]
    return np.tile(array, counts)[:SIDE, :SIDE, :depth]


def nifti(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """Return a compressed NIfTI file."""
    import nibabel

    return gzip.compress(nibabel.Nifti1Image(array, affine).to_bytes(), compresslevel=1)


def files(volume: Path, labels: Path, depth: int) -> tuple[bytes, bytes]:
    """Return the image and the label file of a volume as large as a scan."""
    import nibabel

    image, mask = nibabel.load(volume), nibabel.load(labels)
    noise = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE, depth), dtype=np.int16)
    values = tiled(np.asarray(image.dataobj).astype(np.int16), depth) + noise
    return nifti(values, image.affine), nifti(tiled(np.asarray(mask.dataobj).astype(np.uint8), depth), mask.affine)


def fill(archive: Path, image: bytes, mask: bytes, total: float) -> int:
    """Write an archive of about ``total`` bytes; return the number of volumes."""
    count = max(1, round(total / (len(image) + len(mask))))
    with tarfile.open(archive, "w") as tar:
        for number in range(count):
            for folder, content in (("imagesTr", image), ("labelsTr", mask)):
                member = tarfile.TarInfo(f"Task09_Spleen/{folder}/spleen_{number}.nii.gz")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return count


def main() -> None:
    """Build the archive, prepare it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True, help="a CT volume, NIfTI")
    parser.add_argument("--labels", type=Path, required=True, help="its labels")
    parser.add_argument("--gigabytes", type=float, default=10, help="size of the archive")
    parser.add_argument("--depth", type=int, default=200, help="slices of a volume")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "Task09_Spleen.tar"
        count = fill(archive, *files(given.volume, given.labels, given.depth), given.gigabytes * 1e9)
        print(f"{archive.stat().st_size / 1e9:.2f} GB, {count} volumes of {SIDE} x {SIDE} x {given.depth}")
        promptseg = Path(sys.executable).with_name("promptseg")
        command = [str(promptseg), "data", "prepare", "ct_spleen", "--from", str(archive)]
        began = time.monotonic()
        environment = {**os.environ, "PROMPTSEG_CACHE": str(Path(folder) / "cache")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        print(done.stdout, done.stderr, sep="")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"exit code {done.returncode}, {time.monotonic() - began:.0f} s, peak memory {peak / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
