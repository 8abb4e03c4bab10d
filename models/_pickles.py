"""What a pickle of torch.save names and claims, read from its opcodes: nothing is built, imported or called."""

from __future__ import annotations

import contextlib
import pickletools
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # a long integer, behind the protocol
_LEGACY_PICKLES = 4  # of a file from before torch 1.6: magic number, protocol, machine, object; storages follow
# Of the standard library torch's reader knows these itself; functools.partial can stand for a normalisation layer.
_HARMLESS = {
    ("collections", "OrderedDict"),
    ("collections", "Counter"),
    ("_codecs", "encode"),
    ("functools", "partial"),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "complex")),
}
# torch's reader calls these with whatever number the pickle gives: a kilobyte of file can ask for any memory.
_ALLOCATE = {
    ("builtins", "bytearray"),
    ("__builtin__", "bytearray"),
    ("torch", "Tensor"),
    ("torch.storage", "TypedStorage"),
    ("torch.storage", "UntypedStorage"),
}
_OF_TENSORS = {
    "torch",
    "torch._tensor",
    "torch._utils",
    "torch.cuda",
    "torch.nn.parameter",
    "torch.serialization",
    "torch.storage",
}
_UNUSUAL = {"INST", "EXT1", "EXT2", "EXT4"}
_CONTAINERS = {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"}
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg"}  # the last two: as Python 2 names them in protocol 2
_DATA = {"argparse", "collections", "datetime", "enum", "pathlib"}  # classes that people save beside weights


class Pickled(NamedTuple):
    """What is in the pickle of a file.

    Attributes:
        names: the full names of all classes and functions, in order, each once.
        whole: whether the pickle begins with the first of them: the object itself is of that class.
        largest_storage: the most elements that a tensor's storage claims.
    """

    names: list[tuple[str, str]]
    whole: bool
    largest_storage: int

    @property
    def code(self) -> str | None:
        """The first name that is code of the standard library."""
        return next((".".join(name) for name in self.names if _is_code(name)), None)

    @property
    def allocating(self) -> str | None:
        """The first name that would take memory of any size."""
        return next((".".join(name) for name in self.names if name in _ALLOCATE), None)

    @property
    def foreign(self) -> str | None:
        """The first name that has no part in tensors and plain containers."""
        return next((".".join(n) for n in self.names if n not in _HARMLESS and n[0] not in _OF_TENSORS), None)


def _is_code(name: tuple[str, str]) -> bool:
    module = name[0].partition(".")[0]
    return name not in _HARMLESS | _ALLOCATE and module in _STANDARD - _DATA


def look_into(path: Path) -> Pickled:
    """Return what the pickles of a file name. Raises `ValueError` for damaged ones and unusual opcodes."""
    names: dict[tuple[str, str], None] = {}
    largest, in_container, whole = 0, False, False
    strings, number = ("", ""), 0
    with _pickles(path) as (stream, count):
        for opcode, argument in _opcodes(stream, count):
            if opcode in _UNUSUAL:
                raise ValueError(f"opcode {opcode}, which torch.save does not write")
            in_container = opcode != "PROTO" and (in_container or opcode in _CONTAINERS)  # PROTO begins a pickle
            if opcode in ("GLOBAL", "STACK_GLOBAL"):
                whole |= not names and not in_container
                names[_name(argument, strings)] = None
            elif opcode == "BINPERSID":  # of a storage, whose tuple ends with its number of elements
                largest = max(largest, number)
            elif isinstance(argument, str):
                strings = (strings[1], argument)
            elif isinstance(argument, int) and opcode.startswith(("BININT", "LONG")):
                number = argument
    return Pickled([*names], whole=whole, largest_storage=largest)


def _opcodes(stream: IO[bytes], count: int) -> Iterator[tuple[str, object]]:
    for _ in range(count):
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument


def _name(argument: object, strings: tuple[str, str]) -> tuple[str, str]:
    """Return module and name; STACK_GLOBAL takes the last two strings, which torch's reader refuses to do."""
    if argument is None:
        return strings
    module, _, name = str(argument).partition(" ")
    return module, name


@contextlib.contextmanager
def _pickles(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Yield the stream of a file's pickles and their number."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file, _LEGACY_PICKLES if is_legacy(path) else 1
        return
    with zipfile.ZipFile(path) as archive:
        member = next((n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"), None)
        if member is None:
            raise ValueError("a zip archive without data.pkl")
        with archive.open(member) as file:
            yield file, 1


def is_legacy(path: Path) -> bool:
    """Whether a file was written by torch.save as it was before torch 1.6."""
    with path.open("rb") as file:
        return file.read(len(_LEGACY_MAGIC) + 3)[2:].startswith(_LEGACY_MAGIC)
