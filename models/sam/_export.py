"""Read SAM's prompt encoder and mask decoder out of their official ONNX export.

The export (scripts/export_onnx_model.py of segment-anything, traced) keeps most weights under their names, but
returns one mask only. Its folded constants lose their names; the graph around them shows what they are:

- the weight of a linear layer is the transposed constant of a MatMul, whose result is added to a bias with a name;
- weight and bias of a LayerNorm2d are the constants of a Mul and an Add after the convolution before it;
- the output tokens are one constant that is expanded to the batch;
- ``no_mask_embed`` is the only other constant of shape (1, C, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from promptseg.errors import UnavailableError
from promptseg.models._file_kinds import check_onnx, refuse, unusable_onnx
from promptseg.specs import ModelSpec

Array = npt.NDArray[Any]


def decoder_state(spec: ModelSpec, path: Path) -> dict[str, Array]:
    """Return the weights under the names of segment_anything: ``prompt_encoder.*`` and ``mask_decoder.*``.

    What the graph does not show is left out: loading strictly then names it.

    Raises:
        IntegrityError: the file is not an ONNX file.
        UnavailableError: the package onnx is not installed.
    """
    graph = _Graph(_read(spec, path))
    state = dict(graph.named())
    for part in (graph.linear_weights(), graph.norms(), graph.tokens(), graph.no_mask()):
        state.update(part)
    return state


def _read(spec: ModelSpec, path: Path) -> Any:
    check_onnx(spec, path)
    try:
        import onnx
    except ImportError as error:
        raise UnavailableError(
            'Reading weights out of an ONNX file needs the package onnx: pip install "pytest-promptseg[onnx]"'
        ) from error
    try:
        return onnx.load(path).graph
    except Exception as error:
        raise refuse(spec, path, unusable_onnx("onnx", error)) from error


class _Graph:
    """The constants of a graph and what surrounds them."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._nodes = list(graph.node)
        self._constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self._producer = {name: node for node in self._nodes for name in node.output}

    def named(self) -> Iterator[tuple[str, Array]]:
        """Yield the weights whose names the export kept."""
        for name, value in self._constants.items():
            key = _key(name)
            if key:
                yield key, value

    def linear_weights(self) -> Iterator[tuple[str, Array]]:
        """Yield (out, in) weights of the linear layers that became a MatMul and an Add."""
        for add, bias in self._with_constant("Add"):
            key = _key(bias)
            for product in self._producers(add, "MatMul"):
                for name in filter(self._unnamed, product.input):
                    yield key.removesuffix("bias") + "weight", np.ascontiguousarray(self._constants[name].T)

    def norms(self) -> Iterator[tuple[str, Array]]:
        """Yield weight and bias of each LayerNorm2d: in its sequence it stands one behind a convolution."""
        for add, bias in self._with_constant("Add"):
            for scale in self._producers(add, "Mul") if self._unnamed(bias) else ():
                convolution = self._source(scale, ["Div", "Sub", "Conv"])
                for weight in filter(self._unnamed, scale.input if convolution else ()):
                    prefix = _following(_key(convolution.input[1]))
                    yield f"{prefix}.weight", self._constants[weight].reshape(-1)
                    yield f"{prefix}.bias", self._constants[bias].reshape(-1)

    def tokens(self) -> Iterator[tuple[str, Array]]:
        """Yield the output tokens: one for the IoU, then one for each mask."""
        for _, name in self._with_constant("Expand"):
            table = self._constants[name]
            if self._unnamed(name) and table.ndim == 3:
                yield "mask_decoder.iou_token.weight", table[0, :1]
                yield "mask_decoder.mask_tokens.weight", table[0, 1:]

    def no_mask(self) -> Iterator[tuple[str, Array]]:
        """Yield the embedding that stands for "no mask given"."""
        for _, name in self._with_constant("Mul"):
            table = self._constants[name]
            if self._unnamed(name) and table.ndim == 4 and table.shape[0] == 1 and table.shape[2:] == (1, 1):
                yield "prompt_encoder.no_mask_embed.weight", table.reshape(1, -1)

    def _with_constant(self, op_type: str) -> Iterator[tuple[Any, str]]:
        """Yield nodes of a type with the name of each constant they take."""
        for node in self._nodes:
            if node.op_type == op_type:
                yield from ((node, name) for name in node.input if name in self._constants)

    def _producers(self, node: Any, op_type: str) -> list[Any]:
        sources = (self._producer.get(name) for name in node.input)
        return [source for source in sources if source is not None and source.op_type == op_type]

    def _source(self, node: Any, op_types: list[str]) -> Any:
        """Follow inputs back through nodes whose types begin so (Conv, ConvTranspose); None if there is no way."""
        for op_type in op_types:
            producers = [
                s for s in map(self._producer.get, node.input) if s is not None and s.op_type.startswith(op_type)
            ]
            if not producers:
                return None
            node = producers[0]
        return node

    def _unnamed(self, name: str) -> bool:
        return name in self._constants and not _key(name)


def _key(name: str) -> str:
    """Return the name that segment_anything gives to a weight of the export, empty for an unnamed constant."""
    key = name.removeprefix("model.")
    return key if key.startswith(("prompt_encoder.", "mask_decoder.")) else ""


def _following(weight: str) -> str:
    """Return the prefix of the layer behind a layer of a sequence: ``a.0.weight`` gives ``a.1``."""
    parent, index, _ = weight.rsplit(".", 2)
    return f"{parent}.{int(index) + 1}"
