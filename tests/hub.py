"""A Hugging Face hub on this machine: requests of huggingface_hub that create, write and read a repository."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

TOKEN = "hf_secret"  # of the only user, who may write


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its files and the name of its last commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repository: str) -> str:
        return digest(json.dumps(sorted(self.files[repository])).encode())


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body, path = self.rfile.read(int(self.headers["Content-Length"])), urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, status=401)
        elif path == "/api/repos/create":
            name = "/".join(filter(None, (json.loads(body).get("organization"), json.loads(body)["name"])))
            self.server.files.setdefault(name, {})
            self._answer({"url": f"{self.server.endpoint}/{name}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        else:
            self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)

    def do_GET(self) -> None:
        self._read(body=True)

    def do_HEAD(self) -> None:
        self._read(body=False)

    def _commit(self, repository: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.server.files[repository][value["path"]] = base64.b64decode(value["content"])
        commit = self.server.commit_of(repository)
        self._answer({"commitUrl": f"{self.server.endpoint}/{repository}/commit/{commit}", "commitOid": commit})

    def _read(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        match = re.fullmatch(r"(?:/api/models)?/(.+?)(?:/(tree|resolve)/(.+)|/revision/.+|)", path)
        assert match
        name, kind, rest = match.groups(default="")
        files, file = self.server.files.get(name), rest.partition("/")[2]
        if files is None or (kind == "resolve" and file not in files):
            self._answer({"error": "not found"}, status=404)
        elif not kind:
            self._answer({"id": name, "sha": self.server.commit_of(name), "siblings": []})
        elif kind == "tree":
            self._answer(
                [{"type": "file", "path": key, "size": len(files[key]), "oid": digest(files[key])} for key in files]
            )
        else:
            headers = {"ETag": f'"{digest(files[file])}"', "X-Repo-Commit": self.server.commit_of(name)}
            self._send(200, files[file], headers, body=body)

    def _answer(self, values: object, *, status: int = 200) -> None:
        self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json"}, body=True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@contextmanager
def local_hub(cache: str, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and huggingface_hub with the settings that `HF_ENDPOINT`, `HF_HOME` and `HF_TOKEN` give it."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
        original = huggingface_hub.constants.ENDPOINT
        patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(original, hub.endpoint)
        )
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub
        hub.shutdown()
