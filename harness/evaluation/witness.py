"""Whether somebody wrote to the arrays of an object: NumPy arrays and torch tensors, wherever it holds them.

A read-only flag does not stop those who have another view of the memory: the owner of a buffer, or torch, which ignores
the flag. So what must not change is compared with what it was, by a checksum that runs at the speed of memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

_DEPTH = 5  # containers within containers that are looked into
_COLUMNS = 251  # words summed apart; a prime, so that rows of an image that change places do not go unnoticed
_LOOKED_AT = 1 << 20  # bytes of a large array of numbers that are looked at; of pixels (one byte each) all are
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type, FunctionType, MethodType, ModuleType, np.generic)


class Span(NamedTuple):
    """Where an array lies: its device, and the bytes from ``low`` up to ``high`` that it may reach."""

    device: str
    low: int
    high: int


class Witness:
    """Knows the arrays of an object as they were, and says whether they still are.

    It looks into dicts, lists, tuples and the attributes of objects, but not into networks and models: what these hold
    is their own. What is added to an object later is not its affair.

    Args:
        thing: whatever holds the arrays.

    Attributes:
        content: a checksum of each array, by the path to it.
    """

    def __init__(self, thing: object) -> None:
        self._thing = thing
        self._seen = {path: (array, _version(array), _checksum(array)) for path, array in arrays_in(thing)}
        self.content = {path: checksum for path, (_, _, checksum) in self._seen.items()}

    @property
    def arrays(self) -> list[Any]:
        """The arrays that it knows."""
        return [array for array, _, _ in self._seen.values()]

    def equals(self, other: Witness) -> bool:
        """Say whether another one knows arrays of the same content, as far as both have looked."""
        return self.content == other.content

    def changed(self) -> str | None:
        """Return where an array is no longer what it was, as Python would write it; None where all are."""
        if not self._seen:
            return None
        now = dict(arrays_in(self._thing))
        for path, (array, version, checksum) in self._seen.items():
            found = now.get(path)
            if found is None or (found is array and _version(found) != version) or _checksum(found) != checksum:
                return path or "itself"
        return None


def arrays_in(thing: object) -> Iterator[tuple[str, Any]]:
    """Yield the arrays and tensors that an object holds, each with the path to it: ``['low'][0]``, ``.features``."""
    yield from _walk(thing, "", ())


def _walk(thing: object, path: str, inside: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, _PLAIN):
        return
    if (isinstance(thing, np.ndarray) and thing.dtype != np.object_) or is_tensor(thing):
        yield path, thing
    elif len(inside) < _DEPTH and id(thing) not in inside:
        for name, part in _parts(thing):
            yield from _walk(part, f"{path}{name}", (*inside, id(thing)))


def _parts(thing: object) -> list[tuple[str, object]]:
    if isinstance(thing, dict):
        return [(f"[{key!r}]", part) for key, part in list(thing.items())]
    if isinstance(thing, list | tuple):
        return [(f"[{i}]", part) for i, part in enumerate(thing)]
    if isinstance(thing, np.ndarray):
        return [(f"[{i}]", part) for i, part in enumerate(thing.flat)]
    if _is_model(thing):
        return []
    slots = [name for kind in type(thing).__mro__ for name in _names(kind.__dict__.get("__slots__", ()))]
    names = [name for name in slots if name not in ("__dict__", "__weakref__") and hasattr(thing, name)]
    return [(f".{name}", getattr(thing, name)) for name in (*names, *getattr(thing, "__dict__", {}))]


def _is_model(thing: object) -> bool:
    """Say whether something is a network or a model."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.nn.Module):
        return True
    return all(callable(getattr(type(thing), method, None)) for method in ("embed", "predict"))


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def is_tensor(thing: object) -> TypeGuard[Any]:
    """Say whether something is a tensor of torch; where nobody has imported torch nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.Tensor)


def _version(array: Any) -> int | None:
    """Return how often torch has written to a tensor; None where nobody counts: of arrays, and in inference mode."""
    if not is_tensor(array) or array.is_inference():
        return None
    return int(array._version)  # noqa: SLF001 - torch documents it for this purpose


def _checksum(array: Any) -> int | None:
    """Return a number that is another one if what is looked at of an array changes; None where that is impossible."""
    step = max(1, array.nbytes // _LOOKED_AT) if array.dtype.itemsize > 1 else 1
    try:
        return _of_tensor(array, step) if is_tensor(array) else _of_array(array, step)
    except (RuntimeError, TypeError, NotImplementedError):  # a sparse or quantised tensor, one without memory
        return None


def _of_array(array: npt.NDArray[Any], step: int) -> int:
    dense = np.asarray(array).transpose(_by_stride(array.strides))
    data = np.ascontiguousarray(dense).reshape(-1).view(np.uint8)
    words = data[: data.size // 8 * 8].view(np.uint64)
    whole = words.size // _COLUMNS * _COLUMNS
    sums = words[:whole].reshape(-1, _COLUMNS)[::step].sum(axis=0)
    rest = data[whole * 8 :]
    return hash((array.shape, array.dtype.str, sums.tobytes(), rest.tobytes()))


def _of_tensor(tensor: Any, step: int) -> int:
    """Return the checksum of a tensor where its memory is: what comes from a device is a few words."""
    import torch

    with torch.inference_mode(tensor.is_inference()):
        flat = tensor.detach().permute(_by_stride(tensor.stride())).contiguous().reshape(-1).view(torch.uint8)
        if flat.device.type == "cpu":
            return hash((tuple(tensor.shape), str(tensor.dtype), _of_array(flat.numpy(), step)))
        words = flat[: flat.numel() // 8 * 8].view(torch.int64)
        whole = words.numel() // _COLUMNS * _COLUMNS
        sums = words[:whole].reshape(-1, _COLUMNS)[::step].sum(dim=0)
        rest = torch.cat([sums.view(torch.uint8), flat[whole * 8 :]]).cpu()
    return hash((tuple(tensor.shape), str(tensor.dtype), rest.numpy().tobytes()))


def _by_stride(strides: Sequence[int]) -> list[int]:
    """Return the order of axes in which memory is read from one end to the other."""
    return sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))


# ---------------------------------------------------------------------------------------------- shared memory


def span(array: Any) -> Span:
    """Return where an array or a tensor lies."""
    if is_tensor(array):
        item, device = array.element_size(), str(array.device)
        low, shape, strides = array.data_ptr(), array.shape, [stride * item for stride in array.stride()]
    else:
        item, device = array.itemsize, "cpu"
        low, shape, strides = array.__array_interface__["data"][0], array.shape, array.strides
    if 0 in shape:
        return Span(device, low, low)
    reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    return Span(device, low + sum(r for r in reach if r < 0), low + sum(r for r in reach if r > 0) + item)


_MOST_WORK = 10_000  # of the exact answer, which may take for ever for odd strides


def share_memory(one: Any, other: Any) -> bool:
    """Say whether two arrays have a byte in common; where that cannot be found out in good time, say that they do.

    Views of one array that do not meet, such as the rows of a batch, do not share memory. Of tensors that are not on
    the CPU their spans decide.
    """
    a, b = span(one), span(other)
    if a.device != b.device or a.low >= b.high or b.low >= a.high:
        return False
    try:
        return bool(np.shares_memory(_on_cpu(one), _on_cpu(other), max_work=_MOST_WORK))  # type: ignore[arg-type]
    except (RuntimeError, TypeError):  # np.exceptions.TooHardError is a RuntimeError
        return True


def _on_cpu(array: Any) -> npt.NDArray[Any]:
    if not is_tensor(array):
        return np.asarray(array)
    detached = array.detach()
    if detached.dtype.itemsize == 2:  # bfloat16 is none of NumPy's
        import torch

        detached = detached.view(torch.int16)
    return np.asarray(detached.numpy())
