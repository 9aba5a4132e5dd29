"""A client of the REST API: one method per route, typed answers, errors that say who is at fault and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from agent.contract.oip_models import Metadata
from controller import replies, terms
from controller.binding_replies import Binding
from controller.client.http import API as API
from controller.client.http import ApiError as ApiError
from controller.client.http import ClientLimits as ClientLimits
from controller.client.http import Unreachable as Unreachable
from controller.client.http import not_lepta, part, read
from controller.client.kept import KeptCalls
from controller.client.oip import HEADER_LENGTH, Answer, AnswerError, decode_answer, encode_request
from controller.client.pack import as_file
from controller.drain_replies import Duty
from controller.errors import Preparing
from controller.signing_desk import Floor, Paper, ReleaseKeys
from controller.terms import Terms

T = TypeVar("T")


class Client(KeptCalls):
    """Use as a context manager. Every method raises ApiError."""

    # -- the controller itself

    def ready(self) -> bool:
        return self._send("GET", "/readyz", accept=(200, 503)).status_code == 200

    def info(self) -> replies.Info:
        return self._get("/info", replies.Info)

    def broker(self) -> replies.BrokerAccess:
        return self._get("/broker", replies.BrokerAccess)

    # -- files

    def put_file(self, path: Path) -> replies.StoredFile:
        with _opened(path) as file:
            response = self._send("PUT", f"{API}/files", content=file, timeout=self._limits.upload_s)
        return read(response, replies.StoredFile)

    def get_file(self, digest: str, path: Path) -> None:
        """Download into `path`, whole or not at all; raises ApiError where the bytes are not those of the digest."""
        self._download(f"{API}/files/{digest}", path, digest)

    # -- models, runs, releases, rollouts

    def models(self) -> list[replies.Model]:
        return self._get("/models", list[replies.Model])

    def model(self, model: str) -> replies.Model:
        return self._get(f"/models/{part(model)}", replies.Model)

    def version(self, model: str, version: int | str = "serving") -> replies.Version:
        """`version`: a number, `latest` or `serving`."""
        return self._get(f"/models/{part(model)}/versions/{version}", replies.Version)

    def add_version(
        self,
        model: str,
        *,
        source: str,
        source_name: str,
        data: str,
        data_name: str = "",
        labels: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
    ) -> replies.Version:
        """`source` and `data` are digests of files that were put."""
        body = {
            "source": source,
            "source_name": source_name,
            "data": data,
            "data_name": data_name,
            "labels": list(labels),
            "preprocessing": preprocessing,
        }
        return self._post(f"/models/{part(model)}/versions", body, replies.Version)

    def import_version(self, model: str, report: Mapping[str, Any], files: Mapping[str, str]) -> replies.Version:
        """Bring in what an optimizer made elsewhere; `files` maps names to digests of files that were put."""
        return self._post("/imports", {"model": model, "report": report, "files": files}, replies.Version)

    def deploy(
        self,
        model: Path,
        data: Path,
        *,
        name: str,
        labels: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
        profiles: Sequence[str] = (),
        strict: bool = False,
        recipe: str = "",
        compare: bool | None = None,
        trust: bool = False,
        asked: Terms | None = None,
    ) -> replies.Run:
        """The one POST: upload, optimize, release, roll out. Folders are packed. `recipe`: a name, or text."""
        fields = {"name": name, "strict": _word(strict), "recipe": recipe, "trust": _word(trust)}
        if compare is not None:
            fields["compare"] = _word(compare)
        encoded = {"labels": list(labels), "preprocessing": preprocessing, "profiles": list(profiles)}
        for key, value in {**encoded, "terms": terms.plain(asked)}.items():
            if value:
                fields[key] = msgspec.json.encode(value).decode()
        with ExitStack() as stack:
            packed = {key: stack.enter_context(as_file(path)) for key, path in (("model", model), ("data", data))}
            files = {key: (path.name, stack.enter_context(_opened(path))) for key, path in packed.items()}
            response = self._send("POST", f"{API}/deploy", data=fields, files=files, timeout=self._limits.upload_s)
        return read(response, replies.Run)

    def start_run(
        self, model: str, version: int, *, profiles: Sequence[str] = (), **options: bool | str | None
    ) -> replies.Run:
        """`options`: strict, deploy, recipe, compare, trust."""
        body = {"model": model, "version": version, "profiles": list(profiles) or None, **options}
        return self._post("/runs", body, replies.Run)

    def runs(self) -> list[replies.Run]:
        return self._get("/runs", list[replies.Run])

    def run(self, run: str) -> replies.Run:
        return self._get(f"/runs/{part(run)}", replies.Run)

    def run_events(self, run: str) -> Iterator[replies.RunProgress]:
        """How far a run is, whenever that changes; over when the run is, or when the controller stops."""
        for line in self._lines(f"/runs/{part(run)}/events"):
            if line.startswith("data:"):
                yield _event(line.removeprefix("data:"), replies.RunProgress)

    def run_report(self, run: str) -> dict[str, Any]:
        """The optimizer's report.json."""
        return self._get(f"/runs/{part(run)}/report", dict[str, Any])

    def run_page(self, run: str, path: Path) -> None:
        """Download the report as an HTML page."""
        self._download(f"{API}/runs/{part(run)}/report.html", path, None)

    def cancel_run(self, run: str) -> replies.Run:
        return self._post(f"/runs/{part(run)}/cancel", None, replies.Run)

    def pending(self) -> Paper:
        return self._get("/release/pending", Paper)

    def push_signatures(self, paper: Paper) -> Paper:
        return self._post("/release/signatures", {"signed": msgspec.to_builtins(paper.signed)}, Paper)

    def release_keys(self) -> ReleaseKeys:
        return self._get("/release/keys", ReleaseKeys)

    def trust(self, envelope: str) -> ReleaseKeys:
        return self._post("/release/root", {"envelope": envelope}, ReleaseKeys)

    def raise_floor(self, model: str, version: int) -> Floor:
        return self._post("/release/floor", {"model": model, "version": version}, Floor)

    def release(self, model: str, version: int, asked: Terms | None = None) -> replies.Release:
        return self._post(
            "/releases", {"model": model, "version": version, "terms": terms.plain(asked)}, replies.Release
        )

    def start_rollout(self, release: str, extra: Terms | None = None) -> replies.Rollout:
        """Of `extra` its watch and shadow, for this rollout alone."""
        return self._post("/rollouts", {"release": release, **terms.plain(extra)}, replies.Rollout)

    def rollouts(self) -> list[replies.Rollout]:
        return self._get("/rollouts", list[replies.Rollout])

    def rollout(self, rollout: str) -> replies.Rollout:
        return self._get(f"/rollouts/{part(rollout)}", replies.Rollout)

    def abort_rollout(self, rollout: str) -> replies.Rollout:
        return self._post(f"/rollouts/{part(rollout)}/abort", None, replies.Rollout)

    # -- devices

    def claim(
        self,
        *,
        expires_s: float = 3600.0,
        uses: int = 1,
        labels: Mapping[str, str] | None = None,
        approve: bool = True,
        hardware: str = "",
    ) -> replies.Claim:
        body = {"expires_s": expires_s, "uses": uses, "labels": labels or {}, "approve": approve, "hardware": hardware}
        return self._post("/claims", body, replies.Claim)

    def devices(self) -> list[replies.Device]:
        return self._get("/devices", list[replies.Device])

    def device(self, device: str) -> replies.Device:
        return self._get(f"/devices/{part(device)}", replies.Device)

    def approve_device(self, device: str) -> replies.Device:
        return self._post(f"/devices/{part(device)}/approve", None, replies.Device)

    def label_device(self, device: str, put: Mapping[str, str], remove: Sequence[str] = ()) -> replies.Device:
        return self._post(f"/devices/{part(device)}/labels", {"put": put, "remove": list(remove)}, replies.Device)

    def cordon_device(self, device: str, *, move: bool = False, force: bool = False) -> Duty:
        """Nothing new goes there; `move`: what waits there goes elsewhere. `force`: even if nobody else serves."""
        verb = "drain" if move else "cordon"
        return self._post(f"/devices/{part(device)}/{verb}{'?force=true' if force else ''}", None, Duty)

    def uncordon_device(self, device: str) -> Duty:
        return self._post(f"/devices/{part(device)}/uncordon", None, Duty)

    def duty(self, device: str) -> Duty:
        return self._get(f"/devices/{part(device)}/duty", Duty)

    def duty_events(self, device: str) -> Iterator[Duty]:
        """How a device that is drained stands, whenever that changes; over when it can be switched off."""
        for line in self._lines(f"/devices/{part(device)}/duty/events"):
            if line.startswith("data:"):
                yield _event(line.removeprefix("data:"), Duty)

    def revoke_device(self, device: str, *, claim: bool = False) -> replies.Revoked:
        """`claim`: what it joined with is void too."""
        return self._post(f"/devices/{part(device)}/revoke{_too(claim)}", None, replies.Revoked)

    def remove_device(self, device: str, *, claim: bool = False) -> replies.Revoked:
        return read(self._send("DELETE", f"{API}/devices/{part(device)}{_too(claim)}"), replies.Revoked)

    # -- API keys

    def add_key(self, name: str, scopes: Sequence[str], *, expires_s: float | None = None) -> replies.ApiKey:
        """The only answer that holds the key itself."""
        return self._post("/keys", {"name": name, "scopes": list(scopes), "expires_s": expires_s}, replies.ApiKey)

    def api_keys(self) -> list[replies.ApiKey]:
        return self._get("/keys", list[replies.ApiKey])

    def remove_key(self, key: str) -> replies.ApiKey:
        return read(self._send("DELETE", f"{API}/keys/{part(key)}"), replies.ApiKey)

    # -- users' programs at the broker

    def add_client(
        self, name: str, predictions: Sequence[str] = (), publishes: Sequence[str] = ()
    ) -> replies.BrokerClient:
        body = {"name": name, "predictions": list(predictions), "publishes": list(publishes)}
        return self._post("/clients", body, replies.BrokerClient)

    def clients(self) -> list[replies.BrokerClient]:
        return self._get("/clients", list[replies.BrokerClient])

    def remove_client(self, name: str) -> replies.BrokerClient:
        return read(self._send("DELETE", f"{API}/clients/{part(name)}"), replies.BrokerClient)

    # -- bindings

    def add_binding(self, binding: Mapping[str, Any]) -> Binding:
        """`binding`: the fields of the route's body."""
        return self._post("/bindings", binding, Binding)

    def bindings(self) -> list[Binding]:
        return self._get("/bindings", list[Binding])

    def remove_binding(self, name: str) -> Binding:
        return read(self._send("DELETE", f"{API}/bindings/{part(name)}"), Binding)

    # -- jobs and requests

    def start_job(self, model: str, data: str, *, shard_rows: int | None = None, **options: object) -> replies.Job:
        """`data` is the digest of the input; `options`: reduce, settings, format, version, profile, mixed."""
        body = {"model": model, "input": data, "shard_rows": shard_rows, **options}
        # What was uploaded is read through before this answers.
        headers = {"Content-Type": "application/json"}
        content, limit_s = msgspec.json.encode(body), self._limits.upload_s
        return read(self._send("POST", f"{API}/jobs", content=content, headers=headers, timeout=limit_s), replies.Job)

    def jobs(self) -> list[replies.Job]:
        return self._get("/jobs", list[replies.Job])

    def job(self, job: str) -> replies.Job:
        return self._get(f"/jobs/{part(job)}", replies.Job)

    def pause_job(self, job: str) -> replies.Job:
        return self._post(f"/jobs/{part(job)}/pause", None, replies.Job)

    def resume_job(self, job: str) -> replies.Job:
        return self._post(f"/jobs/{part(job)}/resume", None, replies.Job)

    def job_events(self, job: str) -> Iterator[replies.Job]:
        """How far a job is, whenever that changes; over when the job is, or when the controller stops."""
        for line in self._lines(f"/jobs/{part(job)}/events"):
            if line.startswith("data:"):
                yield _event(line.removeprefix("data:"), replies.Job)

    def cancel_job(self, job: str) -> replies.Job:
        return self._post(f"/jobs/{part(job)}/cancel", None, replies.Job)

    def job_result(self, job: str, path: Path) -> None:
        self._download(f"{API}/jobs/{part(job)}/result", path, None)

    def request(self, request: str) -> replies.Request:
        return self._get(f"/requests/{part(request)}", replies.Request)

    # -- examples and inference

    def start_example(self, name: str, **options: object) -> replies.Example:
        return self._post(f"/examples/{part(name)}", options, replies.Example)

    def example(self, example: str) -> replies.Example:
        return self._get(f"/examples/{part(example)}", replies.Example)

    def metadata(self, model: str) -> Metadata:
        return read(self._send("GET", f"/v2/models/{part(model)}"), Metadata)

    def infer(self, model: str, inputs: Mapping[str, Array]) -> Answer:
        """`inputs` by name, each (rows, ...). Raises Preparing where the model is on its way to a device."""
        body, length = encode_request(inputs)
        headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        # Raw tensors hardly shrink.
        headers["Accept-Encoding"] = "identity"
        response = self._send("POST", f"/v2/models/{part(model)}/infer", content=body, headers=headers)
        if response.status_code == 202:
            raise Preparing(f"{model} is being prepared", model)
        try:
            return decode_answer(response.content, response.headers.get(HEADER_LENGTH))
        except AnswerError as error:
            raise not_lepta(str(error)) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ApiError(f"{path} cannot be read: {error.strerror}", who="user") from error
    with file:
        yield file


def _event(data: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise not_lepta(f"an event: {error}") from error


def _word(value: bool) -> str:
    return "true" if value else "false"


def _too(claim: bool) -> str:
    return "?claim=true" if claim else ""
