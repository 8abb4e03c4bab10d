"""promptseg evaluates promptable segmentation models on medical images, as pytest tests.

The public names are loaded when they are first used, so that pytest starts without numpy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptseg.api import (
        Results,
        load_results,
    )
    from promptseg.data.images import normalise
    from promptseg.errors import (
        BrokenPluginError,
        CaseError,
        ConfigError,
        IntegrityError,
        ModelError,
        NoAnswerError,
        PrecisionError,
        PromptsegError,
        RegistryError,
        ResultsError,
        UnavailableError,
        UnknownNameError,
        UnsupportedPromptError,
    )
    from promptseg.leaderboard.case_views import open_cell
    from promptseg.samples import (
        LabelMap,
        Samples,
    )
    from promptseg.segmenter import (
        Image,
        Mask,
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
    "promptseg.api": (
        "Results",
        "load_results",
    ),
    "promptseg.data.images": ("normalise",),
    "promptseg.errors": (
        "BrokenPluginError",
        "CaseError",
        "ConfigError",
        "IntegrityError",
        "ModelError",
        "NoAnswerError",
        "PrecisionError",
        "PromptsegError",
        "RegistryError",
        "ResultsError",
        "UnavailableError",
        "UnknownNameError",
        "UnsupportedPromptError",
    ),
    "promptseg.leaderboard.case_views": ("open_cell",),
    "promptseg.samples": (
        "LabelMap",
        "Samples",
    ),
    "promptseg.segmenter": (
        "Image",
        "Mask",
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
    "BrokenPluginError",
    "CaseError",
    "Cell",
    "ConfigError",
    "DatasetSpec",
    "Image",
    "IntegrityError",
    "LabelMap",
    "Layout",
    "Mask",
    "ModelError",
    "ModelSpec",
    "NoAnswerError",
    "Origin",
    "Original",
    "PackingSegmenter",
    "PrecisionError",
    "Prediction",
    "Prompt",
    "PromptMode",
    "PromptsegError",
    "RegistryError",
    "Request",
    "Results",
    "ResultsError",
    "Runtime",
    "Samples",
    "Segmenter",
    "SingleImageSegmenter",
    "TaskSpec",
    "UnavailableError",
    "UnknownNameError",
    "UnsupportedPromptError",
    "WeightFile",
    "load_results",
    "normalise",
    "open_cell",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'promptseg' has no attribute {name!r}")
