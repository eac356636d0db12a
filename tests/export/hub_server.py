"""A small hub: the part of the protocol of Hugging Face's hub that its own client needs.

Repositories, files of git and of LFS, commits, branches. Everything is in memory.
"""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

TOKEN = "hf_write"


class Hub(ThreadingHTTPServer):
    """A hub at `address`; `repos`: name -> {"private", "files": {path: bytes}, "sha"}."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.large, self.requests = {}, {}, []
        Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, value=None, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def may_write(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_PUT(self):
        content = self.body()
        self.server.requests.append(f"PUT {self.path}")
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.large[oid] = content
        self.answer({})

    def do_POST(self):
        content, path = self.body(), unquote(self.path.split("?")[0])
        self.server.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.may_write:
            return self.refuse(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            wanted = json.loads(content)
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] == "stranger":
                return self.refuse(403, "", "You don't have the rights to create a model there")
            if name in self.server.repos:
                return self.answer({"error": "exists", "url": self.server.address}, 409)
            private = wanted.get("visibility") == "private" or wanted.get("private", False)
            self.server.repos[name] = {"private": private, "files": {}, "sha": "0" * 40}
            return self.answer({"url": f"{self.server.address}/{name}"})
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = []
            for wanted in json.loads(content)["objects"]:
                href = f"{self.server.address}/upload/{wanted['oid']}"
                objects.append(wanted | {"actions": {"upload": {"href": href}}})
            return self.answer({"transfer": "basic", "objects": objects})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        repo = self.server.repos[match[1]]
        if match[2] == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular" if file["path"].endswith((".md", ".json")) else "lfs",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(content)["files"]
            ]
            return self.answer({"files": files})
        for line in content.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo["files"][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo["files"][value["path"]] = self.server.large[value["oid"]]
        everything = b"".join(sorted(repo["files"].values()))
        repo["sha"] = hashlib.sha1(everything).hexdigest()
        url = f"{self.server.address}/{match[1]}/commit/{repo['sha']}"
        return self.answer({"commitUrl": url, "commitOid": repo["sha"], "hookOutput": ""})

    def do_GET(self):
        path = unquote(self.path.split("?")[0])
        self.server.requests.append(f"{self.command} {path}")
        pattern = r"(?:/api/models)?/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)(?:/(.+))?"
        match = re.fullmatch(pattern, path)
        repo = self.server.repos.get(match[1]) if match else None
        if repo is None or (repo["private"] and not self.may_write):
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if match[3] not in ("main", repo["sha"]):
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        files = repo["files"]
        if match[2] == "revision":
            names = [{"rfilename": name} for name in files]
            about = {"id": match[1], "modelId": match[1], "sha": repo["sha"], "siblings": names}
            return self.answer(about | {"private": repo["private"], "tags": [], "downloads": 0})
        if match[2] == "tree":
            return self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": oid(content)}
                    for name, content in files.items()
                ]
            )
        content = files[match[4]]
        return self.answer(content, ETag=f'"{oid(content)}"', X_Repo_Commit=repo["sha"])

    do_HEAD = do_GET  # noqa: N815


def oid(content):
    return hashlib.sha1(content).hexdigest()
