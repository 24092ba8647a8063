"""A small server on the loopback interface that takes W&B runs in the shape that wandb sends them."""

import contextlib
import json
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb

from bench.tracking.wandb_content import flat
from bench.tracking.wandb_settings import PATIENCE

KEY = "0123456789abcdef0123456789abcdef01234567"
SET_BY_CLIENT = ("DIR", "DATA_DIR", "ARTIFACT_DIR", "SILENT", "ERROR_REPORTING", "SAGEMAKER_DISABLE")
"""W&B's variables that this process's client and our sink set."""


def keep_variables(patch):
    """Leaves W&B's variables to be as before once `patch` is undone, and its client with little patience until then."""
    for name in SET_BY_CLIENT:
        patch.setenv(f"WANDB_{name}", "")
    for name, value in PATIENCE.items():
        patch.setenv(f"WANDB_X_{name}", str(value))


@contextlib.contextmanager
def client_of(server, home):
    """Makes W&B's client, which begins and ends with the block, the server's own; in the end nothing listens any more."""
    with pytest.MonkeyPatch.context() as patch:
        keep_variables(patch)
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", server.address)
        patch.setenv("HOME", str(home))
        wandb.teardown()
        yield
        wandb.teardown()
    server.listener.shutdown()


class Server:
    """Takes W&B runs: `told` has what was said of each by its W&B id, `rows` its history, in which offsets count."""

    def __init__(self, refuse=()):
        self.told, self.rows, self.requests = {}, {}, 0
        self.files = {}  # the content by W&B id and name
        self.heard = bytearray()  # headers and contents as they came
        self.refuse = dict(refuse)  # from "graphql" or "file_stream" to a status code
        self.sweeps = {}  # the definition by id
        self.proposals = []  # the parameters of a sweep's next trials, one an agent's request
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

    @property
    def sweep_answers(self):
        """What is answered to `wandb.sweep` and `wandb agent`, by the name of the query."""
        return {
            "UpsertSweep": self.upsert_sweep, "SweepWithRuns": self.sweep, "CreateAgent": self.create_agent,
            "Heartbeat": self.heartbeat,
        }  # fmt: skip

    def upsert_sweep(self, told):
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = told
        project = {"id": "p", "name": told["projectName"], "entity": {"id": "e", "name": "someone"}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def sweep(self, told):
        sweep = {"name": told["sweep"], "config": self.sweeps[told["sweep"]]["config"], "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def create_agent(self, told):
        return {"createAgent": {"agent": {"id": f"agent of {told['sweep']}"}}}

    def heartbeat(self, told):
        """One trial after another, each in a W&B run that is there from now on; then the agent may go."""
        commands = []
        if not json.loads(told["runState"]):
            commands = [self.trial(self.proposals.pop(0))] if self.proposals else [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": told["id"]}, "commands": json.dumps(commands)}}

    def trial(self, parameters):
        """Makes the W&B run of a trial, and returns the command to train it."""
        identity, values = f"trial{len(self.told)}", {name: {"value": value} for name, value in parameters.items()}
        self.told[identity] = {
            "displayName": identity, "config": json.dumps(values), "groupName": None, "jobType": None, "tags": [],
        }  # fmt: skip
        return {"type": "run", "run_id": identity, "program": "oho-bench", "args": values}

    def answer(self, path, content):
        self.requests += 1
        if path.endswith("file_stream"):
            history = content.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            rows, begin = self.rows.setdefault(path.split("/")[-2], []), history["offset"]
            rows[begin : begin + len(history["content"])] = history["content"]
            return {"exitcode": None, "limits": {}}
        told = content.get("variables", {})  # W&B's public client leaves them out where there are none
        for name, answer in self.sweep_answers.items():
            if f"{name}(" in content["query"]:
                return {"data": answer(told)}
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
            elif told["config"] and told["name"] in self.told:  # what is configured later, of a run that a sweep has made
                self.told[told["name"]]["config"] = told["config"]
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
        self.ours.heard += bytes(self.headers) + content
        _, identity, name = self.path.split("/", 2)
        self.ours.files[identity, name] = content
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.ours.heard += bytes(self.headers) + body
        content = json.loads(body)
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
