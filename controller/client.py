"""A client of the REST API: one method per route, typed answers, errors that say who is at fault and what to do."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast, get_args
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from agent.contract.golden import Array
from agent.contract.manifest import Preprocessing
from controller import locate, replies
from controller.errors import LeptaError, UserError, Who
from controller.locate import Place
from controller.oip_client import HEADER_LENGTH, Answer, AnswerError, decode_answer, encode_request

T = TypeVar("T")
API = "/api/v1"


@dataclass(frozen=True)
class ClientLimits:
    """Seconds."""

    connect_s: float = 5.0
    answer_s: float = 60.0
    """Between two pieces of an answer."""
    upload_s: float = 600.0


class ApiError(LeptaError):
    """The controller refused, or could not do it. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, hint: str | None = None, *, status: int = 0, who: Who = "us") -> None:
        super().__init__(message, hint, who=who)
        self.status = status


class Unreachable(ApiError):
    """Nobody answers at the controller's address."""


class _Error(msgspec.Struct):
    error: str
    who: str = "us"
    hint: str | None = None


class Client:
    """Use as a context manager. Every method raises ApiError."""

    def __init__(self, place: Place, limits: ClientLimits = ClientLimits()) -> None:
        self.place = place
        self._limits = limits
        # A proxy from the environment knows nothing about this machine's own ports.
        self._http = httpx.Client(
            base_url=place.url,
            headers={"Authorization": f"Bearer {place.token()}"},
            timeout=httpx.Timeout(limits.answer_s, connect=limits.connect_s),
            trust_env=not _is_loopback(place.url),
            verify=True if place.ca is None else _trusting(place.ca),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

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
        return _read(response, replies.StoredFile)

    def get_file(self, digest: str, path: Path) -> None:
        """Download into `path`, whole or not at all; raises ApiError where the bytes are not those of the digest."""
        self._download(f"{API}/files/{digest}", path, digest)

    # -- models, runs, releases, rollouts

    def models(self) -> list[replies.Model]:
        return self._get("/models", list[replies.Model])

    def model(self, model: str) -> replies.Model:
        return self._get(f"/models/{_part(model)}", replies.Model)

    def version(self, model: str, version: int | str = "serving") -> replies.Version:
        """`version`: a number, `latest` or `serving`."""
        return self._get(f"/models/{_part(model)}/versions/{version}", replies.Version)

    def add_version(
        self,
        model: str,
        *,
        source: str,
        source_name: str,
        data: str,
        labels: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
    ) -> replies.Version:
        """`source` and `data` are digests of files that were put."""
        body = {
            "source": source,
            "source_name": source_name,
            "data": data,
            "labels": list(labels),
            "preprocessing": preprocessing,
        }
        return self._post(f"/models/{_part(model)}/versions", body, replies.Version)

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
    ) -> replies.Run:
        """The one POST: upload, optimize, release, roll out."""
        fields = {"name": name, "strict": "true" if strict else "false"}
        for key, value in (("labels", list(labels)), ("preprocessing", preprocessing), ("profiles", list(profiles))):
            if value:
                fields[key] = msgspec.json.encode(value).decode()
        with ExitStack() as stack:
            files = {
                key: (path.name, stack.enter_context(_opened(path))) for key, path in (("model", model), ("data", data))
            }
            response = self._send("POST", f"{API}/deploy", data=fields, files=files, timeout=self._limits.upload_s)
        return _read(response, replies.Run)

    def start_run(
        self, model: str, version: int, *, profiles: Sequence[str] = (), strict: bool = False, deploy: bool = False
    ) -> replies.Run:
        body = {"model": model, "version": version, "strict": strict, "deploy": deploy}
        return self._post("/runs", {**body, "profiles": list(profiles) or None}, replies.Run)

    def runs(self) -> list[replies.Run]:
        return self._get("/runs", list[replies.Run])

    def run(self, run: str) -> replies.Run:
        return self._get(f"/runs/{_part(run)}", replies.Run)

    def cancel_run(self, run: str) -> replies.Run:
        return self._post(f"/runs/{_part(run)}/cancel", None, replies.Run)

    def release(self, model: str, version: int) -> replies.Release:
        return self._post("/releases", {"model": model, "version": version}, replies.Release)

    def start_rollout(self, release: str) -> replies.Rollout:
        return self._post("/rollouts", {"release": release}, replies.Rollout)

    def rollouts(self) -> list[replies.Rollout]:
        return self._get("/rollouts", list[replies.Rollout])

    def rollout(self, rollout: str) -> replies.Rollout:
        return self._get(f"/rollouts/{_part(rollout)}", replies.Rollout)

    def abort_rollout(self, rollout: str) -> replies.Rollout:
        return self._post(f"/rollouts/{_part(rollout)}/abort", None, replies.Rollout)

    # -- devices

    def claim(self, *, expires_s: float = 3600.0, uses: int = 1) -> replies.Claim:
        return self._post("/claims", {"expires_s": expires_s, "uses": uses}, replies.Claim)

    def devices(self) -> list[replies.Device]:
        return self._get("/devices", list[replies.Device])

    def device(self, device: str) -> replies.Device:
        return self._get(f"/devices/{_part(device)}", replies.Device)

    # -- jobs and requests

    def start_job(self, model: str, data: str, *, shard_rows: int | None = None, **options: object) -> replies.Job:
        """`data` is the digest of the input; `options`: reduce, version, profile, mixed."""
        body = {"model": model, "input": data, "reduce": "score", "shard_rows": shard_rows, **options}
        return self._post("/jobs", body, replies.Job)

    def jobs(self) -> list[replies.Job]:
        return self._get("/jobs", list[replies.Job])

    def job(self, job: str) -> replies.Job:
        return self._get(f"/jobs/{_part(job)}", replies.Job)

    def cancel_job(self, job: str) -> replies.Job:
        return self._post(f"/jobs/{_part(job)}/cancel", None, replies.Job)

    def job_result(self, job: str, path: Path) -> None:
        self._download(f"{API}/jobs/{_part(job)}/result", path, None)

    def request(self, request: str) -> replies.Request:
        return self._get(f"/requests/{_part(request)}", replies.Request)

    # -- examples and inference

    def start_example(self, name: str, **options: object) -> replies.Example:
        return self._post(f"/examples/{_part(name)}", options, replies.Example)

    def example(self, example: str) -> replies.Example:
        return self._get(f"/examples/{_part(example)}", replies.Example)

    def metadata(self, model: str) -> replies.Metadata:
        return _read(self._send("GET", f"/v2/models/{_part(model)}"), replies.Metadata)

    def infer(self, model: str, inputs: Mapping[str, Array]) -> Answer:
        """`inputs` by name, each (rows, ...)."""
        body, length = encode_request(inputs)
        headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        response = self._send("POST", f"/v2/models/{_part(model)}/infer", content=body, headers=headers)
        try:
            return decode_answer(response.content, response.headers.get(HEADER_LENGTH))
        except AnswerError as error:
            raise _not_lepta(str(error)) from error

    # -- HTTP

    def _get(self, path: str, kind: type[T]) -> T:
        return _read(self._send("GET", API + path), kind)

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        headers = {"Content-Type": "application/json"}
        return _read(self._send("POST", API + path, content=msgspec.json.encode(body or {}), headers=headers), kind)

    def _send(self, method: str, path: str, *, accept: Sequence[int] = (), **options: Any) -> httpx.Response:
        with self._foreign_errors():
            response = self._http.request(method, path, **options)
        if not response.is_success and response.status_code not in accept:
            raise _refused(response)
        return response

    def _download(self, path: str, to: Path, digest: str | None) -> None:
        part = to.with_name(to.name + ".part")
        seen = hashlib.sha256()
        try:
            with self._foreign_errors(), self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(response)
                with part.open("wb") as file:
                    for piece in response.iter_bytes():
                        seen.update(piece)
                        file.write(piece)
            if digest is not None and seen.hexdigest() != digest:
                raise ApiError(f"what came for {digest[:12]} has other bytes", "try again; if it stays, check the disk")
            part.replace(to)
        except OSError as error:
            raise ApiError(f"{to} cannot be written: {error.strerror}", who="user") from error
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise _unreachable(self.place, error) from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"the controller at {self.place.url} did not answer in time", who="network") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _broke(self.place.url, error) from error


def _trusting(ca: Path) -> ssl.SSLContext:
    """TLS with this CA and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise UserError(
            f"the CA in {ca} cannot be read: {error}", f"set {locate.CA_FILE} to the controller's ca.pem"
        ) from error
    return context


def _unreachable(place: Place, error: httpx.ConnectError) -> Unreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{place.url} shows a certificate that is not to be trusted: {cause.verify_message}",
                f"set {locate.CA_FILE} to the ca/ca.pem of that controller's data folder",
                who="user",
            )
        cause = cause.__cause__ or cause.__context__
    if _is_loopback(place.url):
        return Unreachable(locate.NO_CONTROLLER, locate.START_ONE, who="user")
    return Unreachable(f"no controller answers at {place.url}: {error}", "is it running?", who="network")


def _broke(url: str, error: Exception) -> Unreachable:
    plain = url.startswith("http://") and not _is_loopback(url)
    hint = "with --lan a controller answers to https:// only" if plain else "try again"
    return Unreachable(f"the connection to {url} broke: {error}", hint, who="network")


def _read(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise _not_lepta(f"{response.request.url.path}: {error}") from error


def _refused(response: httpx.Response) -> ApiError:
    try:
        told = msgspec.json.decode(response.content, type=_Error)
    except (msgspec.DecodeError, ValueError):
        return _not_lepta(f"status {response.status_code} from {response.request.url.path}", response.status_code)
    who = cast(Who, told.who) if told.who in get_args(Who) else "us"
    return ApiError(told.error, told.hint, status=response.status_code, who=who)


def _not_lepta(found: str, status: int = 0) -> ApiError:
    return ApiError(
        f"the controller's answer cannot be understood: {found}",
        f"check {locate.URL}, and that `lepta --version` fits the controller's",
        status=status,
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ApiError(f"{path} cannot be read: {error.strerror}", who="user") from error
    with file:
        yield file


def _part(name: str) -> str:
    return quote(name, safe="")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
