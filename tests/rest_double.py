"""The controller's REST API without a controller: real HTTP on a free port, answers from memory.

For tests of the client and the command line. It keeps what it was sent, so that tests can look at it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.contract.tensors import Tensor
from controller import oip

TOKEN = "a-token-of-the-test"
PREPROCESSING = {"height": 8, "width": 8, "channels": 1, "scale": 1 / 16, "offset": 0.0, "invert": False}
ARTIFACT = {
    "profile": "x86-cpu",
    "digest": "a" * 64,
    "bytes": 12_345,
    "parameters": 5_000,
    "macs": 100_000,
    "macs_before": 100_000,
    "accuracy_float": 0.98,
    "accuracy_int8": 0.975,
    "latency_ms": 0.05,
    "gate": {"passed": True},
}


class RestDouble:
    """State and routes. `run_polls`: how often a run says `running` before it ends as `run_ends`."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.deployed: dict[str, Any] = {}
        self.imported: dict[str, Any] = {}
        self.cancelled: list[str] = []
        self.polls = 0
        self.run_polls = 2
        self.run_ends: dict[str, Any] = {"state": "done", "rollout": "roll-1"}
        self.rollout_devices: list[dict[str, Any]] = [{"device": "pi-1", "profile": "x86-cpu", "state": "serving"}]
        self.broken_download = False
        self.refuse = False
        """Answer everything with 503."""
        self.by_broker = True
        self.duties = 0
        self.asked: dict[str, Any] = {}
        """The last body of a claim, a device's verb or a client."""

    # -- answers

    def run(self) -> dict[str, Any]:
        base = {"id": "run-1", "model": "digits", "version": 1, "profiles": ["x86-cpu"], "deploy": True}
        if self.polls <= self.run_polls:
            return {**base, "state": "running", "step": "convert", "profile": "x86-cpu", "fraction": 0.5}
        return {**base, "artifacts": [ARTIFACT], "fraction": 1.0, **self.run_ends}

    def rollout(self) -> dict[str, Any]:
        state = "done" if all(d["state"] == "serving" for d in self.rollout_devices) else "failed"
        return {
            "id": "roll-1",
            "release": "rel-1",
            "model": "digits",
            "version": 1,
            "state": state,
            "devices": self.rollout_devices,
        }

    @staticmethod
    def version() -> dict[str, Any]:
        return {
            "model": "digits",
            "version": 1,
            "source": "b" * 64,
            "source_name": "digits.keras",
            "labels": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            "preprocessing": PREPROCESSING,
            "artifacts": [ARTIFACT],
        }

    # -- routes

    async def put_file(self, request: Request) -> Response:
        content = await request.body()
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return JSONResponse({"digest": digest, "size": len(content)}, 201)

    async def get_file(self, request: Request) -> Response:
        content = self.files[request.path_params["digest"]]
        return Response(content[:-1] if self.broken_download else content)

    async def deploy(self, request: Request) -> Response:
        form = await request.form()
        self.deployed = {k: v if isinstance(v, str) else await v.read() for k, v in form.items()}
        await form.close()
        return JSONResponse(self.run(), 202)

    async def get_run(self, request: Request) -> Response:
        self.polls += 1
        return JSONResponse(self.run())

    async def cancel_run(self, request: Request) -> Response:
        self.cancelled.append(request.path_params["id"])
        return JSONResponse({**self.run(), "state": "cancelled"})

    async def run_events(self, request: Request) -> Response:
        self.polls = self.run_polls + 1
        running = {"id": "run-1", "state": "running", "step": "prune", "profile": "x86-cpu", "left_s": 12.0}
        told = [("progress", running), ("end", {"id": "run-1", "state": "done"})]
        body = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n: still here\n\n" for kind, data in told)
        return Response(body, media_type="text/event-stream")

    async def imports(self, request: Request) -> Response:
        self.imported = await request.json()
        return JSONResponse(self.version(), 201)

    async def infer(self, request: Request) -> Response:
        asked = oip.decode(await request.body(), request.headers.get(oip.HEADER_LENGTH))
        rows = asked.tensors[0].shape[0]
        scores = np.tile(np.eye(10, dtype=np.float32)[7] * 0.98 + 0.002, (rows, 1))
        answer = (Tensor("scores", "float32", scores.shape, scores.tobytes()),)
        told = {"version": 1, "artifact": "a" * 64, "device": "pi-1", "runtime": "ai-edge-litert 2.3.0, XNNPACK"}
        body, length = oip.encode(asked, answer, {"model_name": "digits", "id": "req-1", "parameters": told})
        return Response(body, headers={oip.HEADER_LENGTH: str(length)} if length else {})

    async def claim(self, request: Request) -> Response:
        self.asked = await request.json()
        told = {"token": "claim-of-the-test", "expires_at": 1.0, "url": self.url, "ca_fingerprint": "f0" * 32}
        return JSONResponse(told, 201)

    async def device_verb(self, request: Request) -> Response:
        verb = request.path_params.get("verb", "rm")
        self.asked = {"verb": verb, **(await request.json() if verb == "labels" else {})}
        if verb in ("cordon", "drain", "uncordon"):
            self.asked["force"] = request.query_params.get("force", "")
            return JSONResponse(self.duty("serving" if verb == "uncordon" else "draining"))
        out = {"device": "fpga-1", "by_broker": self.by_broker, "claim_uses": 2}
        return JSONResponse(out if verb in ("revoke", "rm") else DEVICE)

    def duty(self, state: str = "") -> dict[str, Any]:
        """`drained` once it was asked for that often enough."""
        if not state:
            self.duties += 1
            state = "drained" if self.duties > 1 else "draining"
        return {"device": "fpga-1", "state": state, "requests": 2, "shards": 1, "moved": 3, "bindings": ["camera"]}

    async def client(self, request: Request) -> Response:
        if request.method == "POST":
            self.asked = await request.json()
            return JSONResponse({**CLIENT, "password": "password-of-the-test"}, 201)
        return JSONResponse([CLIENT] if request.method == "GET" else CLIENT)

    async def metadata(self, request: Request) -> Response:
        if request.path_params["model"] != "digits":
            return _error(404, "user", "no model is called that", "lepta model ls")
        tensor = {"name": "image", "datatype": "INT8", "shape": [-1, 8, 8, 1]}
        return JSONResponse({"name": "digits", "inputs": [tensor], "outputs": []})

    def routes(self) -> list[Route]:
        def fixed(path: str, value: Any, status: int = 200) -> Route:
            async def answer(_: Request) -> Response:
                return JSONResponse(value() if callable(value) else value, status)

            return Route(path, answer, methods=["GET", "POST"])

        api = "/api/v1"
        return [
            fixed("/readyz", {}),
            Route(f"{api}/files", self.put_file, methods=["PUT"]),
            Route(f"{api}/files/{{digest}}", self.get_file),
            Route(f"{api}/deploy", self.deploy, methods=["POST"]),
            Route(f"{api}/runs/{{id}}", self.get_run),
            Route(f"{api}/runs/{{id}}/events", self.run_events),
            fixed(f"{api}/runs/{{id}}/report", {"artifacts": [ARTIFACT], "rejected": []}),
            Route(f"{api}/runs/{{id}}/report.html", _page),
            Route(f"{api}/runs/{{id}}/cancel", self.cancel_run, methods=["POST"]),
            Route(f"{api}/imports", self.imports, methods=["POST"]),
            Route("/v2/models/{model}", self.metadata),
            Route("/v2/models/{model}/infer", self.infer, methods=["POST"]),
            fixed(f"{api}/broker", {"host": "127.0.0.1", "port": 1, "username": "lepta", "password": "secret"}),
            fixed(f"{api}/models", [{"name": "digits", "versions": [1, 2], "serving": 2}]),
            fixed(f"{api}/models/digits/versions/{{version}}", self.version),
            fixed(f"{api}/rollouts/roll-1", self.rollout),
            fixed(f"{api}/rollouts", lambda: [self.rollout()]),
            fixed(f"{api}/devices", [DEVICE]),
            fixed(f"{api}/devices/fpga-1", DEVICE),
            fixed(f"{api}/devices/fpga-1/duty", self.duty),
            Route(f"{api}/devices/fpga-1/{{verb}}", self.device_verb, methods=["POST"]),
            Route(f"{api}/devices/fpga-1", self.device_verb, methods=["DELETE"]),
            Route(f"{api}/claims", self.claim, methods=["POST"]),
            Route(f"{api}/clients", self.client, methods=["GET", "POST"]),
            Route(f"{api}/clients/shop", self.client, methods=["DELETE"]),
            fixed(f"{api}/requests/req-1", REQUEST),
            fixed(f"{api}/jobs", {"id": "job-1", "model": "digits", "state": "queued"}, 202),
            fixed(f"{api}/jobs/job-1", JOB),
            fixed(f"{api}/jobs/job-1/result", [1, 2, 3]),
        ]


DEVICE = {
    "name": "fpga-1",
    "online": True,
    "profile": "fpga-proxy",
    "simulated": True,
    "facts": {"machine": "x86_64", "cpus": 2, "accelerators": ["fpga"], "overridden": ["accelerators"]},
    "match": [{"profile": "rpi4", "fits": False, "reasons": ["no: machine x86_64, wanted aarch64"]}],
    "load": {"cpu": 0.25, "memory": 0.5},
    "last_seen_s": 0.4,
    "labels": {"site": "north"},
    "key": "e" * 64,
    "hardware": "12345678",
    "certificate_expires": 1.0,
}
CLIENT = {
    "name": "shop",
    "predictions": ["digits"],
    "created_at": 1.0,
    "host": "10.0.0.5",
    "port": 8884,
    "ca": "-----BEGIN CERTIFICATE-----\n",
}
REQUEST = {
    "id": "req-1",
    "model": "digits",
    "version": 1,
    "state": "answered",
    "device": "pi-1",
    "attempts": 1,
    "steps": [
        {"step": name, "ms": 0.5, "detail": ""}
        for name in ("user request", "optimized?", "distribute", "compute", "result?", "response", "store")
    ],
}
JOB = {
    "id": "job-1",
    "model": "digits",
    "version": 1,
    "state": "done",
    "rows": 20,
    "shards": 2,
    "accepted": 2,
    "devices": {"pi-1": {"shards": 2, "rows": 20, "busy_s": 0.1}},
    "makespan_s": 0.2,
    "metrics": {"accuracy": 0.95},
}


@contextmanager
def served(double: RestDouble, folder: Path) -> Iterator[dict[str, str]]:
    """Serve `double`; yields the environment with which `lepta` finds it."""
    # Logging stays as it is: to set it up anew ends the handlers of others, with the streams that they write to.
    config = uvicorn.Config(_app(double), port=0, log_config=None, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    double.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    token = folder / "api-token"
    token.write_text(TOKEN + "\n")
    try:
        yield {"LEPTA_URL": double.url, "LEPTA_TOKEN_FILE": str(token), "NO_COLOR": "1"}
    finally:
        server.should_exit = True
        thread.join()


def _app(double: RestDouble) -> Any:
    inner = Starlette(routes=double.routes())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        held = dict(scope["headers"]).get(b"authorization", b"").decode()
        if double.refuse:
            await _error(503, "us", "not now", None)(scope, receive, send)
        elif held == f"Bearer {TOKEN}":
            await inner(scope, receive, send)
        else:
            await _error(401, "user", "the token is wrong", "see LEPTA_TOKEN_FILE")(scope, receive, send)

    return app


async def _page(_: Request) -> Response:
    return Response("<!doctype html>", media_type="text/html")


def _error(status: int, who: str, text: str, hint: str | None) -> Response:
    return Response(json.dumps({"error": text, "who": who, "hint": hint}), status, media_type="application/json")
