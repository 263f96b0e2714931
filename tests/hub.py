"""A loopback Hugging Face hub: the part of its HTTP API that the installed clients use, over a folder of files.

    with Hub(folder) as hub:
        subprocess.run(command, env=os.environ | hub.environment(home, token="hf_..."))

What it answers is what the hub answers: files with etag, commit, length and ranges; repository, tree and paths
information; 401 and 403 with the hub's own error codes. Large-file redirects and Xet are left out.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

REPO = r"(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
ROUTES = {
    "whoami": re.compile(r"/api/whoami-v2"),
    "paths": re.compile(rf"/api/{REPO}/paths-info/(?P<revision>[^/]+)"),
    "tree": re.compile(rf"/api/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"),
    "access": re.compile(rf"/api/{REPO}/auth-check"),
    "info": re.compile(rf"/api/{REPO}(?:/revision/(?P<revision>[^/]+))?"),
    "file": re.compile(r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
}
CHUNK = 1 << 20


class RefusedError(Exception):
    """A request that is answered with an error: status, the hub's error code (may be empty) and its message."""


@dataclass
class Hub:
    """A hub on 127.0.0.1 that runs inside a `with` block.

    Attributes:
        root: the files, as root/models/<owner>/<name>/... and root/datasets/<owner>/<name>/...
        gated: ids of repositories whose files need a token with access.
        tokens: the tokens that are valid, each with the ids of the gated repositories it may read.
        cuts: by end of a path, after how many bytes the next answer with this file breaks off; used up by doing so.
        requests: what was asked, as 'METHOD path' and the range if one was asked for, in order.
    """

    root: Path
    gated: frozenset[str] = frozenset()
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens, to be given to clients as HF_ENDPOINT; refuses connections once the block is left."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path, token: str = "") -> dict[str, str]:
        """What makes a child process talk to this hub only, with its cache in `home` and no token but this one."""
        return {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip


class Repository:
    """A folder as the hub sees it: one commit, called main, with its files and their hashes."""

    def __init__(self, root: Path, kind: str, name: str) -> None:
        self.name, self.folder = name, root / kind / name
        self.is_known = self.folder.is_dir()

    @cached_property
    def commit(self) -> str:
        """40 hex digits that change with the repository's files."""
        return hashlib.sha1(json.dumps([self.name, self.entries()]).encode()).hexdigest()

    def entries(self, below: str = "", recursive: bool = True) -> list[dict[str, Any]]:
        """Tree entries of files and folders below a folder."""
        found = (self.folder / below).rglob("*") if recursive else (self.folder / below).glob("*")
        return [self.entry(path) for path in sorted(found)]

    def entry(self, path: Path) -> dict[str, Any]:
        """The tree entry of one file or folder."""
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
        digest = etag(path, path.stat().st_mtime_ns)
        large = {"oid": digest, "size": path.stat().st_size, "pointerSize": 134}
        return {"type": "file", "path": name, "oid": digest[:40], "size": path.stat().st_size, "lfs": large}


@lru_cache
def etag(path: Path, _modified: int) -> str:
    """The SHA-256 of a file, as the hub gives it for large files."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self.hub.requests.append(" ".join([self.command, self.path, self.headers.get("Range", "")]).strip())
        address = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        try:
            for kind, route in ROUTES.items():
                if found := route.fullmatch(address.path):
                    parts = {name: unquote(text) for name, text in found.groupdict(default="").items()}
                    return getattr(self, f"_{kind}")(parts, parse_qs(sent or address.query))
            raise RefusedError(404, "", f"this hub has no {address.path}")
        except RefusedError as refusal:
            status, code, message = refusal.args
            self._answer(b"{}", status, {"X-Error-Code": code, "X-Error-Message": message})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen: what was asked is in the hub's `requests`."""

    # --- one method a route: what stands in its address, and what was asked in query or form --------------------------

    def _whoami(self, _parts: dict[str, str], _asked: dict[str, list[str]]) -> None:
        if self._token() is None:
            raise RefusedError(401, "", "Invalid username or password.")
        self._json({"type": "user", "name": "reader", "auth": {"accessToken": {"role": "read"}}, "orgs": []})

    def _info(self, parts: dict[str, str], _asked: dict[str, list[str]]) -> None:
        repository = self._repository(parts)
        files = [{"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
                 for entry in repository.entries() if entry["type"] == "file"]  # fmt: skip
        gated = "manual" if repository.name in self.hub.gated else False
        self._json({"id": repository.name, "sha": repository.commit, "siblings": files, "gated": gated,
                    "private": False, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def _access(self, parts: dict[str, str], _asked: dict[str, list[str]]) -> None:
        self._check_access(self._repository(parts))
        self._json({})

    def _tree(self, parts: dict[str, str], asked: dict[str, list[str]]) -> None:
        repository = self._repository(parts)
        if not (repository.folder / parts["path"]).is_dir():
            raise RefusedError(404, "EntryNotFound", f"{parts['path']} does not exist on {parts['revision']!r}")
        recursive = asked.get("recursive", ["false"])[0].lower() in ("true", "1")
        self._json(repository.entries(parts["path"], recursive))

    def _paths(self, parts: dict[str, str], asked: dict[str, list[str]]) -> None:
        repository = self._repository(parts)
        paths = [repository.folder / path for path in asked["paths"]]
        self._json([repository.entry(path) for path in paths if path.exists()])

    def _file(self, parts: dict[str, str], _asked: dict[str, list[str]]) -> None:
        repository = self._repository({**parts, "kind": parts["kind"] or "models"})
        self._check_access(repository)
        path, commit = repository.folder / parts["path"], {"X-Repo-Commit": repository.commit}
        if not path.is_file():
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        size = path.stat().st_size
        start, stop, status = 0, size, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop, status = int(asked[1]), min(int(asked[2] or size) + 1, size), 206
            commit["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        tag = etag(path, path.stat().st_mtime_ns)
        self._headers(status, stop - start, {"ETag": f'"{tag}"', "Accept-Ranges": "bytes", **commit})
        if self.command != "HEAD":
            self._send(path, start, stop)

    # --- rights -------------------------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        """The valid token that came with the request, None for none at all."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        return token or None

    def _repository(self, parts: dict[str, str]) -> Repository:
        token, repository = self._token(), Repository(self.hub.root, parts["kind"], parts["repo"])
        if not repository.is_known:
            # without a token nobody is told whether a private repository exists
            raise RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        if parts.get("revision") not in (None, "", "main", repository.commit):
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {parts['revision']}")
        return repository

    def _check_access(self, repository: Repository) -> None:
        name, token = repository.name, self._token()
        if name in self.hub.gated and token is None:
            message = f"Access to {name} is restricted. You must have access to it and be authenticated to access it."
            raise RefusedError(401, "GatedRepo", message)
        if name in self.hub.gated and name not in self.hub.tokens[token]:
            raise RefusedError(403, "GatedRepo", f"You are not in the authorized list of {name}.")

    # --- answers ------------------------------------------------------------------------------------------------------

    def _json(self, content: Any) -> None:
        self._answer(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    def _answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self._headers(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, path: Path, start: int, stop: int) -> None:
        """The bytes of a file from `start` to `stop`, or up to a cut, after which the connection is shut."""
        cut = next((end for end in self.hub.cuts if path.as_posix().endswith(end)), None)
        if cut is not None:
            stop, self.close_connection = min(stop, start + self.hub.cuts.pop(cut)), True
        with path.open("rb") as file:
            file.seek(start)
            for left in range(stop - start, 0, -CHUNK):
                self.wfile.write(file.read(min(CHUNK, left)))
