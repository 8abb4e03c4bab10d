"""Where a number comes from: versions, device, commit, date."""

from __future__ import annotations

import datetime
import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from promptseg.errors import ConfigError

_PACKAGES = (
    "pytest-promptseg",
    "torch",
    "numpy",
    "opencv-python-headless",
    "transformers",
    "timm",
    "onnxruntime",
    "scikit-image",
)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can move a score, where installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit(folder: Path) -> str | None:
    """Return the commit checked out in ``folder``, with ``+`` where files differ from it; None without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603 - a fixed command
        ["git", *words],  # noqa: S607 - git is looked up on PATH as everywhere
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def today() -> str:
    """Return the date in UTC, as in 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def device_name(device: str) -> str:
    """Return the GPU's name for a CUDA device, the processor's architecture for the CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return platform.machine()


def resolve_device(wanted: str) -> str:
    """Return ``wanted``, or for ``auto`` a GPU where there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the device or this machine has none of it.
    """
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {wanted!r} cannot be used here: {reason}. Leave it out for auto.") from error
    return wanted
