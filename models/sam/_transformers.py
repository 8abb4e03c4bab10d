"""What the adapters of transformers' models share: config, model without weights, prompts, candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from promptseg.errors import IntegrityError, UnavailableError
from promptseg.models._loading import check_package, import_torchvision, parameters_on_meta
from promptseg.models.sam._segmenter import Prompts


class Kind(NamedTuple):
    """The names of a config's and a model's class in transformers, and of a package that they need beside it."""

    config: str
    model: str
    needs: str | None = None


def read_config(path: Path, kinds: Mapping[str, Kind]) -> tuple[Any, Kind]:
    """Return the config in a config.json and the kind that its ``model_type`` names.

    Raises:
        IntegrityError: the file is not JSON, names another ``model_type``, or transformers cannot use it.
        UnavailableError: a package is missing.
    """
    import_torchvision()
    import transformers

    try:
        kind = kinds[json.loads(path.read_text(encoding="utf-8"))["model_type"]]
        if kind.needs:
            check_package(f"transformers.{kind.model}", kind.needs)
        return getattr(transformers, kind.config).from_json_file(path), kind
    except UnavailableError:
        raise
    except Exception as error:
        models = " or ".join(dict.fromkeys(kind.model for kind in kinds.values()))
        raise IntegrityError(
            f"{path}: not a config of transformers.{models}, whose model_type is {' or '.join(kinds)} "
            f"({type(error).__name__}: {error}). Pull it again."
        ) from error


def build(kind: Kind, config: Any) -> Any:
    """Return the model of ``config``, to be filled by `promptseg.models.sam._segmenter.load_strict`."""
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
