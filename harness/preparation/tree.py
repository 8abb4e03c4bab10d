"""The files of a data set as a tree: a folder, an archive, or a folder of archives; nothing is unpacked for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tree(Protocol):
    """Read access to files, from several threads at once.

    Attributes:
        name: the folder or file that was opened, for messages.
    """

    name: str

    def paths(self) -> Sequence[str]:
        """Return the POSIX paths of all files, sorted.

        An archive in a folder, or in another archive, stands as the folder of its name: ``CXR.zip/images/1.png``.
        """

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises `CaseError` where it is damaged."""

    def identity(self, path: str) -> str:
        """Return what tells on this machine, without reading the file, whether it is still the same one."""
