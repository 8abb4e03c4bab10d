"""Read the files of a data set from a folder, an archive, or a folder of archives, without unpacking anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from promptseg.errors import CaseError, IntegrityError, UnavailableError
from promptseg.preparation.archives import DAMAGE, SUFFIXES, FileBlob, Member, Spool, located, members_of

_DEEPEST = 4  # archives in archives; there are zips that hold themselves
_IGNORED = ("__MACOSX", "Thumbs.db")


class Tree(Protocol):
    """Read access to files, from several threads at once.

    Attributes:
        name: the folder or file that was opened, for messages.
    """

    name: str

    def paths(self) -> Sequence[str]:
        """Return the POSIX paths of all files, sorted.

        An archive in a folder, or in another archive, appears as a folder of its name: ``CXR.zip/images/1.png``.
        """

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises `CaseError` if it is damaged."""

    def identity(self, path: str) -> str:
        """Return a text that changes on this machine when the file changes, without reading it."""


@dataclass(eq=False)
class _Files:
    """A `Tree` of members."""

    name: str
    members: Mapping[str, Member]

    def paths(self) -> Sequence[str]:
        return sorted(self.members)

    def read(self, path: str) -> bytes:
        try:
            return self.members[path].read()
        except KeyError:
            raise CaseError(path, f"{self.name} holds no such file.") from None
        except DAMAGE as error:
            raise CaseError(
                path,
                f"the file cannot be read from {self.name} ({type(error).__name__}: {error}). It was cut or is "
                "damaged: fetch it again.",
            ) from error

    def identity(self, path: str) -> str:
        return self.members[path].identity


@contextlib.contextmanager
def open_tree(source: Path) -> Iterator[Tree]:
    """Open a folder, a .zip, a .tar or a .tar.gz, with the archives in it, for reading while the context lasts.

    Hidden files, ``__MACOSX`` and ``Thumbs.db`` are ignored. A .tar.gz is unpacked once, in memory and piece by
    piece, to check it and to learn where its members are. In a folder, links are followed.

    Raises:
        UnavailableError: there is no such file or folder, or indexed_gzip is not installed.
        IntegrityError: an archive cannot be used; see `promptseg.preparation.archives`.
    """
    with contextlib.ExitStack() as stack:
        members = _folder(source) if source.is_dir() else members_of(_file(source), str(source))
        files = dict(_expanded(members, (), str(source), Spool(stack)))
        yield _Files(str(source), files)


def _file(path: Path) -> FileBlob:
    try:
        return FileBlob.of(path)
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be opened ({error.strerror}): give the folder or the archive that you downloaded."
        ) from error


def _folder(root: Path) -> Iterator[Member]:
    """Yield the files below a folder; folders that are links are followed once."""
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield located(path.relative_to(root).as_posix(), FileBlob.of(path))


def _expanded(
    members: Iterable[Member], below: tuple[str, ...], source: str, spool: Spool
) -> Iterator[tuple[str, Member]]:
    """Yield path and member of all files; ``below`` names the archives around ``members``."""
    for member in members:
        path = "/".join((*below, member.path))
        if _ignored(member.path):
            continue
        if not member.path.lower().endswith(SUFFIXES):
            yield path, member
        elif len(below) >= _DEEPEST:
            raise IntegrityError(f"{source}: {path} is inside {_DEEPEST} nested archives; unpack it by hand.")
        else:
            inner = members_of(member.locate(spool), f"{source}/{path}")
            yield from _expanded(inner, (*below, member.path), source, spool)


def _ignored(path: str) -> bool:
    return any(part.startswith(".") or part in _IGNORED for part in path.split("/"))
