"""The libraries of the extra ``data``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from promptseg.errors import UnavailableError


def library(name: str) -> Any:
    """Return the module ``name``. Raises `UnavailableError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(
            f"The package {name.partition('.')[0]} is needed to read these files and cannot be imported ({error}): "
            "pip install 'pytest-promptseg[data]'."
        ) from error
