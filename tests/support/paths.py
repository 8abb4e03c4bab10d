"""Folders that tests read from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of this repository."""
SHARED = ROOT.parent / "shared"
"""Real images and weights beside the checkout; tests that use them are skipped where it is absent."""
GOLDEN = ROOT / "tests" / "golden"
PACKAGES = ROOT / "tests" / "packages"
"""Packages of outsiders that tests install."""
