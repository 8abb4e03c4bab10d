"""Checkpoints as the authors of the click models write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(path: Path, state: Mapping[str, torch.Tensor], class_name: str, params: Mapping[str, Any]) -> None:
    """Write weights and the config that names the class and its arguments."""
    config = {name: {"type": "builtin", "value": value, "specified": True} for name, value in params.items()}
    torch.save({"state_dict": dict(state), "config": {"class": class_name, "params": config}}, path)
