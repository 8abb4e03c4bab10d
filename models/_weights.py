"""From a checkpoint as somebody saved it to the weights of a network: found, fitted strictly, or refused by its cause.

The rule: of all mappings of tensors in the file, under whatever keys, exactly one may fit the network, name by name and
shape by shape. Names may begin with segments that all of them share (``module.``, ``model.sam.``) or hold the segments
of wrappers (``_orig_mod.``). Whatever had to be taken off, or left aside, is said in a notice; nothing is guessed.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptseg.models import _pickles
from promptseg.models._file_kinds import SAVE, Problem, check_weights, is_safetensors, refuse
from promptseg.models._loading import OTHER_ARCHITECTURE, load_strict, misfit
from promptseg.specs import ModelSpec
from promptseg.text import listed, printable

State = dict[str, Tensor]
Adapt = Callable[[State], State]

_DEPTH = 3  # levels of mappings that are looked through
_SHOWN = 5
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_ADAPTERS = re.compile(r"(^|\.)(lora_|lokr_|hada_w|ia3_l)|(^|\.)w_[ab]_\d+$|(^|\.)linear_[ab]_[qkv]\b")
# What names of other layouts begin with, the longest first, and what reads them.
_LAYOUTS = {
    "image_encoder.trunk.": "SAM 2 as its authors store it: convert it to transformers' Sam2Model, for sam2_hf",
    "image_encoder.patch_embed.seq.": "MobileSAM as its authors store it: use the adapter mobile_sam",
    "image_encoder.": "SAM as its authors store it: use the adapter sam",
    "vision_encoder.backbone.": "SAM 2 as transformers stores it: use the adapter sam2_hf",
    "vision_encoder.": "SAM as transformers stores it: use the adapter sam_hf",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Tensors of a checkpoint that may be its weights.

    Attributes:
        key: the keys that lead to their mapping, with dots between; empty for the file itself.
        state: names to tensors.
        beside: keys of the same mapping that hold no tensors.
        off: what was taken off the names, in words; empty if nothing was.
    """

    key: str
    state: State
    beside: tuple[str, ...] = ()
    off: str = ""


def load_weights(
    module: torch.nn.Module,
    spec: ModelSpec,
    path: Path,
    adapt: Adapt = dict,
    *,
    others: Callable[[], Iterable[tuple[str, torch.nn.Module]]] = tuple,
    hint: str = "",
) -> None:
    """Put the weights of a checkpoint into a network, all of them and nothing else, without ever running a pickle.

    Args:
        module: the network; it may have been built on torch's meta device.
        spec: the model, for the messages.
        path: safetensors or a file of torch.save; its content decides, not its suffix.
        adapt: from the names of the checkpoint to those of the network.
        others: names and networks of the architectures that the user could have meant.
        hint: what to look at where names fit and shapes do not, a sentence.

    Raises:
        IntegrityError: the file is not a checkpoint, is not whole, or holds no weights that fit, or several.
    """
    content = read(spec, path)
    mappings = [*_mappings(content)]
    fitting = [found for mapping in mappings if (found := _fitted(mapping, module, adapt))]
    if len(fitting) > 1:
        keys = " and ".join(repr(found.key) for found in fitting)
        raise refuse(
            spec,
            path,
            Problem(
                f"holds weights that fit under {keys}", f"Save the ones you mean alone: {_save_of(fitting[0].key)}"
            ),
        )
    if not fitting:
        raise refuse(spec, path, _diagnosis(content, mappings, module, adapt, others, hint))
    _notify(spec, path, content, fitting[0])
    load_strict(module, adapt(fitting[0].state), spec, path)


def read(spec: ModelSpec, path: Path) -> Any:
    """Return what a checkpoint holds: mappings, tensors and plain values.

    Raises:
        IntegrityError: the file is not a whole checkpoint, or only running its pickle could read it.
    """
    check_weights(spec, path)
    safe = is_safetensors(path)
    if not safe:
        problem = problem_of_pickle(path)
        if problem:
            raise refuse(spec, path, problem)
    try:
        return _read_safetensors(path) if safe else read_torch(path)
    except Exception as error:  # noqa: BLE001 - both libraries raise whatever a damaged file leads them to
        raise refuse(spec, path, damaged(error)) from None


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def read_torch(path: Path) -> Any:
    """Return the content of a file of torch.save; nothing that it names is imported or called."""
    with path.open("rb") as file:  # given a path, torch would go by the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def problem_of_pickle(path: Path, *, foreign: bool = False) -> Problem | None:
    """Return why the pickle in a file of torch.save is not to be read; ``foreign``: classes of others are no reason."""
    try:
        found = _pickles.look_into(path)
    except Exception as error:  # noqa: BLE001 - pickletools raises whatever a damaged pickle leads it to
        return damaged(error)
    if found.code:
        return Problem(
            f"would call {found.code} when it is unpickled, which no checkpoint needs. Nothing of it was run",
            "Do not load this file with anything else; get it from who made it",
        )
    if found.allocating:
        return Problem(
            f"would allocate memory by {found.allocating} when it is unpickled. Nothing of it was run",
            f"Weights are not stored like that: get the file from who made it, saved by {SAVE}",
        )
    if found.largest_storage > path.stat().st_size:
        return Problem(
            f"claims a tensor of {found.largest_storage} elements in a file of {path.stat().st_size} bytes",
            "Copy or download it again from where it is whole, and compare the sizes",
            lost=True,
        )
    if not found.foreign or foreign:
        return None
    kind = "is a pickled model" if found.whole else "holds, beside tensors, an object"
    return Problem(
        f"{kind} of class {printable(found.foreign)}, which only running its pickle could restore",
        f"In the program that wrote it, save the weights alone: {SAVE}",
    )


def damaged(error: Exception) -> Problem:
    """Return that a file cannot be read to its end. torch's own advice, to read it without care, is left out."""
    lines = _ESCAPES.sub("", str(error).partition("WeightsUnpickler error:")[2] or str(error)).splitlines()
    told = [line.strip() for line in lines if line.strip() and "weights_only" not in line]
    reason = printable(told[0]) if told else type(error).__name__
    return Problem(f"is damaged or cut short ({reason})", "Copy or download it again from where it is whole", lost=True)


# --------------------------------------------------------------------------------- which tensors are the weights


def _mappings(content: Any, key: str = "", depth: int = _DEPTH) -> Iterator[Found]:
    """Yield the mappings that hold tensors under names."""
    if not isinstance(content, Mapping):
        return
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if state:
        yield Found(key, state, tuple(str(name) for name in content if name not in state))
    for name, value in content.items() if depth else ():
        yield from _mappings(value, f"{key}.{name}" if key else str(name), depth - 1)


def _fitted(found: Found, module: torch.nn.Module, adapt: Adapt) -> Found | None:
    """Return what fits the network exactly: the tensors under their own names, or under shorter ones."""
    return next((variant for variant in _variants(found) if not misfit(module, adapt(variant.state))), None)


def _variants(found: Found) -> Iterator[Found]:
    """Yield the tensors under their names, and with whatever all names begin with, or wrappers put in, taken off."""
    yield found
    off = ""
    while shared := _shared_segment(found.state, off):
        off += shared
        yield _without(found, off, [name.removeprefix(off) for name in found.state])
    wrappers = dict.fromkeys(segment for name in found.state for segment in _WRAPPERS.findall(name))
    if wrappers:
        names = [_WRAPPERS.sub("", name) for name in found.state]
        if len(set(names)) == len(names):
            yield from _variants(_without(found, " and ".join(wrappers), names))


def _without(found: Found, off: str, names: Iterable[str]) -> Found:
    """Return the tensors under shorter names."""
    state = dict(zip(names, found.state.values(), strict=True))
    return Found(found.key, state, found.beside, " and ".join(filter(None, (found.off, off))))


def _shared_segment(names: Iterable[str], behind: str) -> str:
    """Return the segment, with its dot, that follows ``behind`` in all names; nothing where they differ."""
    segments = {name.removeprefix(behind).partition(".")[:2] for name in names}
    segment, dot = segments.pop()
    return segment + dot if dot and not segments else ""


def _notify(spec: ModelSpec, path: Path, content: Mapping[str, Any], found: Found) -> None:
    """Say what was taken and what was left aside, where a file is more than its weights."""
    said = []
    if found.key:
        said.append(f"the weights are those under {found.key!r}; it holds {_listed(content)}")
    if found.off:
        said.append(f"taken off its names: {found.off}")
    if found.beside:
        said.append(f"left aside: {_listed(found.beside)}")
    if said:
        _log.warning("model %s: %s: %s", spec.name, path.name, "; ".join(said))


# --------------------------------------------------------------------------------- why none of them fits


def _diagnosis(
    content: Any,
    mappings: list[Found],
    module: torch.nn.Module,
    adapt: Adapt,
    others: Callable[[], Iterable[tuple[str, torch.nn.Module]]],
    hint: str,
) -> Problem:
    """Return why nothing in a checkpoint fits, by the most specific cause that shows."""
    if not mappings:
        held = f"holds {_listed(content)}" if isinstance(content, Mapping) else f"holds a {type(content).__name__}"
        return Problem(f"{held} and no weights under names", f"Save them alone: {SAVE}")
    if _is_optimizer(content):
        return Problem("is the state of an optimizer, without the weights of a model", f"Save those: {SAVE}")
    variants = [variant for mapping in mappings for variant in _variants(mapping)]
    expected = module.state_dict().keys()
    best = max(variants, key=lambda v: (len(expected & adapt(v.state).keys()), len(v.state)))
    problems = misfit(module, adapt(best.state))
    where = f"holds {_listed(content)}; {best.key!r} " if best.key else ""
    return (
        _adapters(best, where)
        or _other_layout(best, expected, adapt, where)
        or _some_prefixed(best, module, adapt, where)
        or _other_shapes(best, problems, adapt, where, others, hint)
        or Problem(
            f"{where}does not fit the architecture; {problems}",
            OTHER_ARCHITECTURE,
        )
    )


def _is_optimizer(content: Any) -> bool:
    return isinstance(content, Mapping) and {"state", "param_groups"} <= content.keys()


def _adapters(found: Found, where: str) -> Problem | None:
    """Return that there are adapters in it, such as LoRA's, which must be merged into what they adapt."""
    names = [name for name in found.state if _ADAPTERS.search(name)]
    if not names:
        return None
    alone = len(names) == len(found.state)
    held = (
        "holds LoRA adapters without the model that they adapt" if alone else "holds LoRA adapters that are not merged"
    )
    return Problem(
        f"{where}{held} ({_listed(names)})",
        "Merge them first (with peft: `model = PeftModel.from_pretrained(base, FOLDER).merge_and_unload()`), "
        f"then {SAVE}",
    )


def _other_layout(found: Found, expected: Collection[str], adapt: Adapt, where: str) -> Problem | None:
    """Return that the names of an encoder are those of another program, and which adapter reads them."""
    prefix = next((p for p in _LAYOUTS if any(name.startswith(p) for name in found.state)), None)
    if prefix is None:
        return None
    encoder = {name: tensor for name, tensor in found.state.items() if name.startswith(prefix)}
    known = [name in expected for name in adapt(encoder)]
    if 2 * sum(known) >= len(known):
        return None
    return Problem(f"{where}has names such as {_listed(encoder)}", f"It is {_LAYOUTS[prefix]}")


def _some_prefixed(found: Found, module: torch.nn.Module, adapt: Adapt, where: str) -> Problem | None:
    """Return that the weights are there under a prefix, with others beside them."""
    counts = Counter(name.partition(".")[0] + "." for name in found.state if "." in name)
    for prefix, count in counts.items():
        part = {name.removeprefix(prefix): t for name, t in found.state.items() if name.startswith(prefix)}
        if count < len(found.state) and not misfit(module, adapt(part)):
            rest = [name for name in found.state if not name.startswith(prefix)]
            return Problem(
                f"{where}has the weights under names that begin with {prefix!r}, and others: {_listed(rest)}",
                "If the others have no part in the answer, save the weights alone: "
                f"{{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}",
            )
    return None


def _other_shapes(
    found: Found,
    problems: Mapping[str, list[str]],
    adapt: Adapt,
    where: str,
    others: Callable[[], Iterable[tuple[str, torch.nn.Module]]],
    hint: str,
) -> Problem | None:
    """Return that the weights are of a network of another size, and which one where that is known."""
    fitting = [name for name, module in others() if not misfit(module, adapt(found.state))]
    if fitting:
        return Problem(
            f"{where}does not fit the architecture; {problems}", f"It is of architecture {fitting[0]}: set that option"
        )
    if hint and not problems.keys() - {"other shape"}:
        return Problem(f"{where}is of another size than the architecture; {problems}", hint)
    return None


def _save_of(key: str) -> str:
    taken = "".join(f"[{part!r}]" for part in key.split(".")) if key else ""
    return f'torch.save(checkpoint{taken}, "weights.pth")'


def _listed(names: Iterable[Any]) -> str:
    return printable(listed([str(name) for name in names], _SHOWN))
