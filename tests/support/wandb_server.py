"""A small server on the loopback interface that takes W&B runs in the shape that wandb sends them."""

import contextlib
import json
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789abcdef0123456789abcdef01234567"


class Server:
    """Takes W&B runs: `told` has what was said of each by its W&B id, `rows` its history."""

    def __init__(self, refuse=()):
        self.told, self.rows, self.requests = {}, {}, 0
        self.refuse = dict(refuse)  # from "graphql" or "file_stream" to a status code
        self.hang_after = None  # W&B runs
        self.hanging = threading.Event()
        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.listener.daemon_threads = True
        threading.Thread(target=self.listener.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.listener.server_port}"

    @property
    def runs(self):
        """By display name: what tells a W&B run apart from others, and its rows without W&B's own columns."""
        return {
            told["displayName"]: {
                **{key: told[key] for key in ("groupName", "jobType", "tags")},
                "config": {key: value for key, value in json.loads(told["config"]).items() if key != "_wandb"},
                "rows": [
                    {key: value for key, value in json.loads(row).items() if not key.startswith("_")}
                    for row in self.rows.get(identity, ())
                ],
            }
            for identity, told in self.told.items()
        }

    def answer(self, path, content):
        self.requests += 1
        if path.endswith("file_stream"):
            history = content.get("files", {}).get("wandb-history.jsonl", {})
            self.rows.setdefault(path.split("/")[-2], []).extend(history.get("content", ()))
            return {"exitcode": None, "limits": {}}
        told = content["variables"]
        if "UpsertBucket" in content["query"]:
            if told["displayName"]:
                if self.hang_after is not None and len(self.told) >= self.hang_after:
                    self.hanging.set()
                    time.sleep(30)
                self.told[told["name"]] = told
            project = {"id": "p", "name": told["project"], "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": told["name"], "displayName": told["displayName"], "sweepName": "",
                      "historyLineCount": 0, "config": "{}", "project": project}  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "CreateRunFiles" in content["query"]:
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}}
        return {"data": {"viewer": {"id": "v", "entity": "someone", "flags": "{}", "teams": {"edges": []}}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server, *arguments):
        self.ours = server
        super().__init__(*arguments)

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.ours.refuse.get(self.path.rpartition("/")[2], 200)
        answer = self.ours.answer(self.path, content) if code == 200 else {"errors": [{"message": "not with me"}]}
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked has been told to stop
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Nothing."""
