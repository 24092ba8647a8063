"""A small server on the loopback interface that takes W&B runs in the shape that wandb sends them."""

import contextlib
import json
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.tracking.wandb_content import flat

KEY = "0123456789abcdef0123456789abcdef01234567"


class Server:
    """Takes W&B runs: `told` has what was said of each by its W&B id, `rows` its history, in which offsets count."""

    def __init__(self, refuse=()):
        self.told, self.rows, self.requests = {}, {}, 0
        self.files = {}  # the content by W&B id and name
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
        """By display name: what tells a W&B run apart from others, and its rows without W&B's own columns and tables."""
        return {
            told["displayName"]: {
                **{key: told[key] for key in ("groupName", "jobType", "tags")},
                "config": {key: value for key, value in json.loads(told["config"]).items() if key != "_wandb"},
                "rows": [
                    {key: value for key, value in flat(json.loads(row)) if not key.startswith(("_", "trials."))}
                    for row in self.rows.get(identity, ())
                ],
            }
            for identity, told in self.told.items()
        }

    def bucket(self, identity):
        """What a client learns that continues a run."""
        if identity not in self.told:
            return None
        rows, told = self.rows.get(identity, []), self.told[identity]
        return {
            "name": identity, "displayName": told["displayName"], "summaryMetrics": "{}", "logLineCount": 0,
            "eventsLineCount": 0, "historyLineCount": len(rows), "historyTail": json.dumps(rows[-1:]), "eventsTail": "[]",
            "config": told["config"], "tags": told["tags"], "notes": None, "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def answer(self, path, content):
        self.requests += 1
        if path.endswith("file_stream"):
            history = content.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            rows, begin = self.rows.setdefault(path.split("/")[-2], []), history["offset"]
            rows[begin : begin + len(history["content"])] = history["content"]
            return {"exitcode": None, "limits": {}}
        told = content["variables"]
        if "RunResumeStatus" in content["query"]:
            bucket = self.bucket(told["name"])
            return {"data": {"model": {"name": told["project"], "entity": {"name": "someone"}, "bucket": bucket}}}
        if "UpsertBucket" in content["query"]:
            if told["displayName"]:
                is_new = told["name"] not in self.told
                if is_new and self.hang_after is not None and len(self.told) >= self.hang_after:
                    self.hanging.set()
                    time.sleep(30)
                self.told[told["name"]] = told
            project = {"id": "p", "name": told["project"], "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": told["name"], "displayName": told["displayName"], "sweepName": "",
                      "historyLineCount": 0, "config": "{}", "project": project}  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "CreateRunFiles" in content["query"]:
            files = [{"name": name, "uploadUrl": f"{self.address}/{told['run']}/{name}"} for name in told["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        return {"data": {"viewer": {"id": "v", "entity": "someone", "flags": "{}", "teams": {"edges": []}}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server, *arguments):
        self.ours = server
        super().__init__(*arguments)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        _, identity, name = self.path.split("/", 2)
        self.ours.files[identity, name] = content
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

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
