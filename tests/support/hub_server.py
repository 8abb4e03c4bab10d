"""A Hub on this machine: it speaks the protocol that huggingface_hub speaks, and fails where it is told to.

Served are repositories of one commit each: their description, their list of files, and the files; a repository can be
made and a commit be uploaded to it. Small files are sent
by the Hub itself, with git's sha1 as their ETag. Large ones, told by their suffix as git-lfs does it, are stated with
their sha256 and sent by a second server, which stands for the storage behind the Hub: to the client it is another
origin. Xet is never offered, so that files come by plain HTTP.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".parquet", ".bin")
_API = re.compile(r"/api/(?P<kind>model|dataset)s/(?P<id>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


def sha256(content: bytes) -> str:
    """Return the sha256 in hex, which the Hub states for a large file."""
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    """Return the name that git gives to content, which the Hub states for a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Request:
    """What a client asked: of the Hub or of its storage, by which method, where, with which headers (lower case)."""

    server: Literal["hub", "storage"]
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.server} {self.method} {self.path}"


@dataclass
class Fault:
    """What goes wrong with the requests whose text, as in ``storage GET /``, holds the expression ``when``.

    Attributes:
        when: regular expression, searched in the text of the request.
        times: how often it happens, None for ever.
        reply: sent instead of the right answer.
        body: sent instead of the right body, of the same length.
        cut_at: bytes of the body after which the connection ends.
        stall: seconds of silence there, or before the body.
    """

    when: str
    times: int | None = None
    reply: Reply | None = None
    body: bytes | None = None
    cut_at: int | None = None
    stall: float = 0.0

    def happens(self, request: Request) -> bool:
        """Return whether this request is hit, and count it."""
        if self.times == 0 or not re.search(self.when, str(request)):
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class Repository:
    """The files of a repository at its only commit, and who may read them.

    Attributes:
        files: path to content.
        readers: tokens that may read the files of a gated repository; None where everybody may.
    """

    files: dict[str, bytes]
    readers: set[str] | None = None


class HubServer:
    """Two servers on free ports of 127.0.0.1, the Hub and its storage, and a log of what they were asked.

    Attributes:
        repositories: by ``model org/name`` or ``dataset org/name``.
        renamed: old to new name of repositories, both without the kind.
        faults: what goes wrong; the first that happens counts.
        requests: all requests in the order in which they came.
        uploaded: large files by their sha256.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.uploaded: dict[str, bytes] = {}
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._hub = _start(self, "hub")
        self._storage = _start(self, "storage")

    @property
    def address(self) -> str:
        """The value for HF_ENDPOINT."""
        return _address(self._hub)

    def asked(self, pattern: str = "") -> list[str]:
        """Return the texts of the requests that hold a regular expression."""
        return [str(request) for request in self.requests if re.search(pattern, str(request))]

    def close(self) -> None:
        """Stop both servers; what is stalled ends at once."""
        self.closing.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def take(self, request: Request) -> tuple[Reply, Fault | None]:
        """Log a request; return its answer and what shall go wrong with it."""
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.happens(request)), None)
        return (fault.reply if fault and fault.reply else self._answer(request)), fault

    def _answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if request.method in ("POST", "PUT"):
            return self._take_upload(path, request.body)
        if request.server == "storage":
            return self._stored(path.removeprefix("/"))
        for old, new in self.renamed.items():
            if f"/{old}" in path:
                return Reply(307, {"Location": path.replace(old, new)})
        if match := _FILE.fullmatch(path):
            kind = "dataset" if match["kind"] else "model"
            return self._file(f"{kind} {match['id']}", match["revision"], match["path"], request)
        if match := _API.fullmatch(path):
            return self._about(f"{match['kind']} {match['id']}", match["what"], match["revision"], request)
        return Reply(404)

    def _find(self, name: str, revision: str | None, request: Request) -> Repository | Reply:
        if name not in self.repositories:  # strangers are not told whether it is missing or private
            status = 404 if "authorization" in request.headers else 401
            return refusal(status, "RepoNotFound", "Repository not found")
        if revision not in (None, "main", COMMIT):
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.repositories[name]

    def _about(self, name: str, what: str | None, revision: str | None, request: Request) -> Reply:
        found = self._find(name, revision, request)
        if isinstance(found, Reply):
            return found
        if what == "tree":
            return _json([_entry(path, content) for path, content in found.files.items()])
        siblings = [{"rfilename": path} for path in found.files]
        gated = "auto" if found.readers is not None else False
        about = {"id": name.split()[1], "sha": COMMIT, "siblings": siblings, "private": False, "gated": gated}
        return _json({**about, "tags": [], "downloads": 0})

    def _file(self, name: str, revision: str, path: str, request: Request) -> Reply:
        found = self._find(name, revision, request)
        if isinstance(found, Reply):
            return found
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if found.readers is not None and token not in found.readers:
            return refusal(403 if token else 401, "GatedRepo", f"Access to {name} is restricted")
        headers = {"X-Repo-Commit": COMMIT}
        if path not in found.files:
            return Reply(404, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        content = found.files[path]
        if not path.endswith(LARGE):
            return Reply(200, {**headers, "ETag": f'"{git_sha1(content)}"'}, content)
        linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return Reply(302, {**headers, **linked, "Location": f"{_address(self._storage)}/{sha256(content)}"})

    def _take_upload(self, path: str, body: bytes) -> Reply:
        """Make a repository, tell how its files are to be sent, take them, and make a commit of them."""
        if path.startswith("/upload/"):
            self.uploaded[path.rsplit("/", 1)[-1]] = body
            return Reply()
        if path.endswith("/commit/main"):
            return self._commit(path.removeprefix("/api/datasets/").removesuffix("/commit/main"), body)
        asked = json.loads(body)
        if path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(f"dataset {name}", Repository({}))
            return _json({"url": f"{self.address}/datasets/{name}"})
        if path == "/api/validate-yaml":  # the header of a README
            return _json({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            modes = {file["path"]: "lfs" if file["path"].endswith(LARGE) else "regular" for file in asked["files"]}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return _json({"files": files})
        where = f"{_address(self._storage)}/upload"
        objects = [{**one, "actions": {"upload": {"href": f"{where}/{one['oid']}"}}} for one in asked["objects"]]
        return _json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> Reply:
        files = self.repositories[f"dataset {name}"].files
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploaded[value["oid"]]
        return _json(
            {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.address}/datasets/{name}/commit/{COMMIT}"}
        )

    def _stored(self, digest: str) -> Reply:
        contents = (content for repo in self.repositories.values() for content in repo.files.values())
        content = next((content for content in contents if sha256(content) == digest), None)
        return Reply(403) if content is None else Reply(200, {"ETag": '"of-the-storage"'}, content)


def _address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def refusal(status: int, code: str, message: str) -> Reply:
    """Return the Hub's way to say no."""
    return Reply(status, {"X-Error-Code": code, "X-Error-Message": message})


def _json(value: object) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _entry(path: str, content: bytes) -> dict[str, object]:
    """Return a file as the list of a repository's files has it."""
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
    if path.endswith(LARGE):
        pointer = b"version https://git-lfs.github.com/spec/v1\n" + sha256(content).encode()
        entry["oid"] = git_sha1(pointer)
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
    return entry


def _ranged(reply: Reply, wanted: str | None) -> Reply:
    """Return the rest of a body, for a header as in ``bytes=100-``."""
    match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
    if reply.status != 200 or match is None:
        return reply
    start, size = int(match[1]), len(reply.body)
    headers = {**reply.headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return Reply(206, headers, reply.body[start:])


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; the class is made for one of the two servers of a `HubServer`."""

    hub: HubServer
    name: Literal["hub", "storage"]

    def do_GET(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        reply, fault = self.hub.take(Request(self.name, self.command, self.path, headers, body))
        if fault is not None and fault.body is not None:
            reply = Reply(reply.status, reply.headers, fault.body)
        reply = _ranged(reply, headers.get("range"))
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            self._send(reply, fault or Fault(""))

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are http.server's

    def _send(self, reply: Reply, fault: Fault) -> None:
        self.send_response(reply.status)
        for key, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        body = reply.body if self.command != "HEAD" else b""
        self.wfile.write(body[: fault.cut_at or 0])
        self.hub.closing.wait(fault.stall)
        if fault.cut_at is None:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: the requests are in the log of the hub."""


def _start(hub: HubServer, name: Literal["hub", "storage"]) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "name": name})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@contextlib.contextmanager
def running() -> Iterator[HubServer]:
    """Yield a server that is closed at the end."""
    server = HubServer()
    try:
        yield server
    finally:
        server.close()
