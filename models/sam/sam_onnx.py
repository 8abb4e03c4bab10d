"""SAM-type models whose encoder is an ONNX file, with a decoder of ONNX or of the official modules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from promptseg.errors import ConfigError, IntegrityError, UnavailableError
from promptseg.models._fast import check_fast
from promptseg.models._file_kinds import check_onnx, refuse, unusable_onnx
from promptseg.models._loading import check_options, file_of, load_strict, option
from promptseg.models._weights import load_weights
from promptseg.models.sam._decoder import build_decoder, candidates
from promptseg.models.sam._segmenter import Decoder, Features, Prompts, SamSegmenter
from promptseg.segmenter import Runtime
from promptseg.specs import ModelSpec

DECODERS = ("onnxruntime", "torch")
PROVIDERS = {
    "onnx_tensorrt": "TensorrtExecutionProvider",
    "onnx_cuda": "CUDAExecutionProvider",
    "onnx_openvino": "OpenVINOExecutionProvider",
    "onnx_coreml": "CoreMLExecutionProvider",
    "onnx_directml": "DmlExecutionProvider",
    "onnx_cpu": "CPUExecutionProvider",
}
"""Fast paths to what onnxruntime calls them, in the order in which it is to try them."""

_DECODER_INPUTS = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"}
_CORNERS = (2, 3)  # labels of the top left and the bottom right corner of a box
_PADDING = -1
_log = logging.getLogger(__name__)


def load(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime) -> SamSegmenter:
    """Load an ONNX encoder and its decoder.

    Files: ``encoder`` (one input (B or 1, 3, S, S), RGB normalised as SAM's; one output (B or 1, 256, S/16, S/16)),
    and either ``decoder`` (safetensors with the official names ``prompt_encoder.*``, ``mask_decoder.*``) or
    ``onnx_decoder`` (the official export).

    Options: ``decoder``, for an ``onnx_decoder``: ``onnxruntime`` (default) runs the file, which gives as many
    candidates as it was exported for; ``torch`` reads the weights out of it into the official modules, which always
    give three.

    Raises:
        ConfigError: an unknown option, no decoder or two, or a dtype other than float32.
        IntegrityError: a file is unreadable or is not such a model.
        UnavailableError: onnxruntime, or onnx where it is needed, is not installed.
    """
    check_options(spec, {"decoder"})
    if runtime.dtype != "float32":
        raise ConfigError(
            f"model {spec.name}: an ONNX encoder runs in the precision it was exported in; "
            f"dtype {runtime.dtype} is not available, use --seg-dtype float32."
        )
    check_fast(spec, runtime, {"tf32", *PROVIDERS}, _absent(_onnxruntime()))
    encoder = OnnxEncoder(_session(spec, file_of(spec, files, "encoder"), runtime), runtime.device)
    decoder = _decoder(spec, files, runtime, encoder.side)
    return SamSegmenter(spec, encoder, decoder, runtime, side=encoder.side)


def _decoder(spec: ModelSpec, files: Mapping[str, Path], runtime: Runtime, side: int) -> Decoder:
    if len({"decoder", "onnx_decoder"} & files.keys()) != 1:
        roles = ", ".join(sorted(files))
        raise ConfigError(
            f"model {spec.name}: sam_onnx needs one file with role 'decoder' or 'onnx_decoder', found roles: {roles}."
        )
    engine = option(spec, "decoder", DECODERS, default="onnxruntime")
    if "decoder" in files:
        return build_decoder(lambda modules: load_weights(modules, spec, files["decoder"]), side, runtime.device)
    path = files["onnx_decoder"]
    if engine == "onnxruntime":
        return OnnxDecoder(_session(spec, path, runtime), runtime.device)
    from promptseg.models.sam._export import decoder_state

    # Copied: onnx gives read-only arrays, which torch would warn about.
    state = {key: torch.from_numpy(value.copy()) for key, value in decoder_state(spec, path).items()}
    return build_decoder(lambda modules: load_strict(modules, state, spec, path), side, runtime.device)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            'sam_onnx needs the package onnxruntime: pip install "pytest-promptseg[onnx]"'
        ) from error
    return onnxruntime


def _absent(onnxruntime: Any) -> dict[str, str]:
    """Return the providers that the installed build has not; others, such as onnxruntime-gpu, have others."""
    available = onnxruntime.get_available_providers()
    return {
        name: "the installed onnxruntime does not have it"
        for name, called in PROVIDERS.items()
        if called not in available
    }


def _session(spec: ModelSpec, path: Path, runtime: Runtime) -> Any:
    check_onnx(spec, path)
    onnxruntime = _onnxruntime()
    providers = _providers(onnxruntime, runtime)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # one knob, OMP_NUM_THREADS, for both libraries
    # Encoder and decoder take turns: threads that spin while they wait would only take cores from the other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:
        raise refuse(spec, path, unusable_onnx("onnxruntime", error)) from error


def _providers(onnxruntime: Any, runtime: Runtime) -> list[tuple[str, dict[str, Any]]]:
    """Return the providers and their options, the first choice first; the CPU always comes last."""
    chosen = [name for name in PROVIDERS if name in runtime.fast]
    if not chosen and runtime.device.startswith("cuda"):
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            chosen = ["onnx_cuda"]
        else:
            _log.warning(
                "The installed onnxruntime has no CUDA: ONNX files run on the CPU. pip install onnxruntime-gpu"
            )
    names = dict.fromkeys([*(PROVIDERS[name] for name in chosen), "CPUExecutionProvider"])
    return [(name, _provider_options(name, runtime)) for name in names]


def _provider_options(name: str, runtime: Runtime) -> dict[str, Any]:
    if name != "CUDAExecutionProvider":
        return {}
    return {
        "device_id": torch.device(runtime.device).index or 0,  # 0 by default
        "use_tf32": int("tf32" in runtime.fast),  # on by default, which float32 should not mean
    }


class OnnxEncoder:
    """A `promptseg.models.sam._segmenter.Encoder` run by onnxruntime.

    Args:
        session: its ``InferenceSession``.
        device: where the features go.
    """

    def __init__(self, session: Any, device: str) -> None:
        (self._input, *more), self._session, self._device = session.get_inputs(), session, device
        shape = self._input.shape
        if more or len(shape) != 4 or not isinstance(shape[3], int) or shape[2] != shape[3]:
            raise IntegrityError(
                f"an ONNX encoder must have one input of shape (B, 3, S, S) with a fixed S; "
                f"found {[(i.name, i.shape) for i in session.get_inputs()]}."
            )
        self.side = shape[3]

    def __call__(self, batch: Tensor) -> Features:
        """Return the (B, C, h, w) features; image by image, since most exports fix the batch to one."""
        features = [self._session.run(None, {self._input.name: image[None].cpu().numpy()})[0] for image in batch]
        return (torch.from_numpy(np.concatenate(features)).to(self._device),)


class OnnxDecoder:
    """A `promptseg.models.sam._segmenter.Decoder` run by onnxruntime: the official export, of one mask or of four.

    Args:
        session: its ``InferenceSession``.
        device: where the logits go.
    """

    def __init__(self, session: Any, device: str) -> None:
        found = {i.name: i.shape for i in session.get_inputs()}
        if found.keys() != _DECODER_INPUTS:
            raise IntegrityError(
                f"an ONNX decoder must be the official export with the inputs {', '.join(sorted(_DECODER_INPUTS))}; "
                f"found {', '.join(sorted(found))}."
            )
        self._session, self._device = session, device
        height, width = found["mask_input"][2:]
        self._no_mask = {
            "mask_input": np.zeros((1, 1, height, width), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }

    def __call__(self, features: Features, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Decode as `promptseg.models.sam._segmenter.Decoder` says, one by one: the export fixes the batch to one.

        An export of one mask gives that one: the best of all, chosen by the export itself.
        """
        points_xy, labels = _as_points(prompts)
        masks = [None] * len(features[0]) if prompts.logits is None else prompts.logits
        answers = [self._run(*row) for row in zip(features[0], points_xy, labels, masks, strict=True)]
        logits, scores = (
            torch.from_numpy(np.concatenate(part)).to(self._device) for part in zip(*answers, strict=True)
        )
        kept = candidates(prompts) if logits.shape[1] > 1 else slice(None)
        return logits[:, kept], scores[:, kept]

    def _run(self, features: Tensor, points_xy: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Any, Any]:
        given = {"image_embeddings": features, "point_coords": points_xy, "point_labels": labels}
        inputs = {name: value[None].float().cpu().numpy() for name, value in given.items()}
        inputs["orig_im_size"] = np.ones(2, np.float32)  # the export also upsamples; its upsampled mask is not used
        scores, logits = self._session.run(["iou_predictions", "low_res_masks"], inputs | self._fed_back(mask))
        return logits, scores

    def _fed_back(self, mask: Tensor | None) -> dict[str, npt.NDArray[np.float32]]:
        if mask is None:
            return self._no_mask
        return {"mask_input": mask[None].cpu().numpy(), "has_mask_input": np.ones(1, np.float32)}


def _as_points(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Return (B, N, 2) points and (B, N) labels: a box as two corners, no box as a padding point."""
    extra_xy, extra = _corners_or_padding(prompts)
    if prompts.points_xy is None or prompts.labels is None:
        return extra_xy, extra
    return torch.cat([prompts.points_xy, extra_xy], dim=1), torch.cat([prompts.labels, extra], dim=1)


def _corners_or_padding(prompts: Prompts) -> tuple[Tensor, Tensor]:
    if prompts.boxes_xyxy is not None:
        corners = prompts.boxes_xyxy.reshape(-1, 2, 2)
        return corners, torch.tensor(_CORNERS, device=corners.device).expand(len(corners), -1)
    points = prompts.points_xy
    if points is None:
        raise ValueError("a prompt has points or a box")
    return torch.zeros_like(points[:, :1]), torch.full((len(points), 1), _PADDING, device=points.device)
