"""promptseg evaluates promptable segmentation models on medical images, as pytest tests."""

from promptseg.errors import CaseError, ModelError, PromptsegError, UnavailableError
from promptseg.segmenter import Prediction, Prompt, Request, Runtime, Segmenter, SingleImageSegmenter
from promptseg.specs import (
    Cell,
    DatasetSpec,
    ModelSpec,
    Origin,
    PromptMode,
    TaskSpec,
    WeightFile,
)

__all__ = [
    "CaseError",
    "Cell",
    "DatasetSpec",
    "ModelError",
    "ModelSpec",
    "Origin",
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
