"""What the adapters of transformers' models share: config, model without weights, prompts, candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from promptseg.models._file_kinds import Problem, problem_of_any, refuse
from promptseg.models._loading import check_package, import_torchvision, parameters_on_meta
from promptseg.models.sam._segmenter import Prompts
from promptseg.specs import ModelSpec

_SAVED_CONFIG = "Name the config.json that `model.save_pretrained` wrote beside these weights"
OTHER_CONFIG = "Its config.json describes another network: name the one that was saved with these weights"
_OF_PROCESSORS = {"image_processor_type", "processor_class", "feature_extractor_type"}


class Kind(NamedTuple):
    """The names of a config's and a model's class in transformers, and of a package that they need beside it."""

    config: str
    model: str
    needs: str | None = None


def read_config(spec: ModelSpec, path: Path, kinds: Mapping[str, Kind]) -> tuple[Any, Kind]:
    """Return the config in a config.json and the kind that its ``model_type`` names.

    Raises:
        IntegrityError: the file is not JSON, names another ``model_type``, or transformers cannot use it.
        UnavailableError: a package is missing.
    """
    import_torchvision()
    import transformers

    kind = kinds[_model_type(spec, path, kinds)]
    if kind.needs:
        check_package(f"transformers.{kind.model}", kind.needs)
    try:
        return getattr(transformers, kind.config).from_json_file(path), kind
    except Exception as error:
        what = f"is no config that transformers.{kind.config} can use ({type(error).__name__}: {error})"
        raise refuse(spec, path, Problem(what, _SAVED_CONFIG)) from error


def _model_type(spec: ModelSpec, path: Path, kinds: Mapping[str, Kind]) -> str:
    """Return what a config.json says that the model is; raise for a file that is none, or of another model."""
    problem = problem_of_any(path)
    if problem:
        raise refuse(spec, path, problem)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise refuse(spec, path, Problem(f"is not JSON ({error})", _SAVED_CONFIG, lost=True)) from error
    found = content.get("model_type") if isinstance(content, dict) else None
    if found in kinds:
        return str(found)
    if isinstance(content, dict) and content.keys() & _OF_PROCESSORS:
        what = "is the config of an image processor, not of a model"
    else:
        what = f"has the model_type {found!r}" if found else "has no model_type"
    raise refuse(spec, path, Problem(f"{what}; this adapter reads {' or '.join(kinds)}", _SAVED_CONFIG))


def build(kind: Kind, config: Any) -> Any:
    """Return the model of ``config``, to be filled by `promptseg.models._weights.load_weights`."""
    import transformers

    with parameters_on_meta():
        return getattr(transformers, kind.model)._from_config(config, attn_implementation="sdpa")  # noqa: SLF001 - no public way without weights


def ready(model: Any, device: str) -> Any:
    """Return the model on its device, for inference."""
    return model.eval().requires_grad_(requires_grad=False).to(device)


def prompt_inputs(prompts: Prompts) -> dict[str, Tensor | None]:
    """Return B prompts as transformers wants them: each row of the batch is an image with one prompt."""
    given = {"input_points": prompts.points_xy, "input_labels": prompts.labels, "input_boxes": prompts.boxes_xyxy}
    return {name: None if value is None else value[:, None] for name, value in given.items()}


def answer(model: Any, prompts: Prompts, *, three: bool = True, **embeddings: Any) -> tuple[Tensor, Tensor]:
    """Return (B, M, h, w) logits and (B, M) predicted IoU for B prompts on as many images; M is 3, or 1.

    It is 1 where the logits of a previous mask are given, as the authors of SAM advise.
    """
    many = three and prompts.logits is None
    output = model(multimask_output=many, input_masks=prompts.logits, **embeddings, **prompt_inputs(prompts))
    return output.pred_masks[:, 0], output.iou_scores[:, 0]
