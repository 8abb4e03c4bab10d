"""promptseg evaluates promptable segmentation models on medical images, as pytest tests.

The public names are loaded when they are first used, so that pytest starts without numpy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptseg.errors import CaseError, ModelError, PromptsegError, UnavailableError
    from promptseg.segmenter import (
        PackingSegmenter,
        Prediction,
        Prompt,
        Request,
        Runtime,
        Segmenter,
        SingleImageSegmenter,
    )
    from promptseg.specs import (
        Archive,
        Cell,
        DatasetSpec,
        Layout,
        ModelSpec,
        Origin,
        Original,
        PromptMode,
        TaskSpec,
        WeightFile,
    )

_HOME = {
    "promptseg.errors": ("CaseError", "ModelError", "PromptsegError", "UnavailableError"),
    "promptseg.segmenter": (
        "PackingSegmenter",
        "Prediction",
        "Prompt",
        "Request",
        "Runtime",
        "Segmenter",
        "SingleImageSegmenter",
    ),
    "promptseg.specs": (
        "Archive",
        "Cell",
        "DatasetSpec",
        "Layout",
        "ModelSpec",
        "Origin",
        "Original",
        "PromptMode",
        "TaskSpec",
        "WeightFile",
    ),
}

__all__ = [
    "Archive",
    "CaseError",
    "Cell",
    "DatasetSpec",
    "Layout",
    "ModelError",
    "ModelSpec",
    "Origin",
    "Original",
    "PackingSegmenter",
    "Prediction",
    "Prompt",
    "PromptMode",
    "PromptsegError",
    "Request",
    "Runtime",
    "Segmenter",
    "SingleImageSegmenter",
    "TaskSpec",
    "UnavailableError",
    "WeightFile",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'promptseg' has no attribute {name!r}")
