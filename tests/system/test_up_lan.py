"""`lepta up --lan` as a real process: TLS from its own CA for all its names, and tools on this machine that know it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest

from agent.contract.children import environment
from controller.client.locate import CA_FILE, DATA, TOKEN_FILE, URL, Place, in_folder, locate
from controller.client.rest import Client, Unreachable
from controller.identity.authority import Authority
from tests.system.lan import free_ports
from tests.waiting import until

pytestmark = pytest.mark.debian

_LEPTA = "import sys; from controller.cli import main; sys.exit(main())"
_SHORT = """
import sys
from pathlib import Path
from controller.settings import Limits, Settings
from controller.up import run
limits = Limits(server_certificate_s=6.0, certificate_check_s=0.2)
data, port, agents, clients = sys.argv[1:]
ports = {"port": int(port), "agents_port": int(agents), "clients_port": int(clients)}
sys.exit(run(Settings(Path(data), host="::", lan=True, limits=limits, **ports)))
"""


class Up(NamedTuple):
    process: subprocess.Popen[str]
    data: Path
    port: int
    agents_port: int

    @property
    def ca(self) -> Path:
        return self.data / "ca" / "ca.pem"

    @property
    def ready(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            known = msgspec.json.decode((self.data / "controller.json").read_bytes())
            return bool(known["pid"] == self.process.pid)
        return False

    def certificate(self, host: str = "127.0.0.1", name: str | None = None, port: int = 0) -> bytes:
        """What is shown to somebody who connects to `host` and trusts our CA alone; raises ssl.SSLError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        with (
            socket.create_connection((host, port or self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name or host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return shown

    def stop(self) -> tuple[str, str]:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.communicate(timeout=20)


def _started(data: Path, code: str, arguments: list[str], ports: tuple[int, int], **variables: str) -> Up:
    command = [sys.executable, "-c", code, *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment(variables), start_new_session=True
    )
    return Up(process, data, *ports)


def _lan(data: Path, *options: str, **variables: str) -> Up:
    port, agents, clients = free_ports(3)
    ports = ["--port", str(port), "--agents-port", str(agents), "--clients-port", str(clients)]
    arguments = ["up", "--lan", "--data", str(data), *ports, *options]
    return _started(data, _LEPTA, arguments, (port, agents), **variables)


@contextlib.contextmanager
def _up(up: Up) -> Iterator[Up]:
    try:
        assert until(lambda: up.ready or up.process.poll() is not None)
        assert up.process.poll() is None, up.process.communicate()[1]
        yield up
    finally:
        up.stop()


def _lepta(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _LEPTA, *arguments]
    variables = environment({DATA: str(data)})
    return subprocess.run(command, check=False, env=variables, capture_output=True, text=True, timeout=30)


def test_it_speaks_tls_for_all_its_names_on_ipv4_and_ipv6_and_says_what_comes_next(tmp_path: Path) -> None:
    with _up(_lan(tmp_path, "--name", "fleet.test", "--name", "192.0.2.9")) as up:
        shown = {
            up.certificate(),
            up.certificate("::1"),
            up.certificate(name="localhost"),
            up.certificate(name="fleet.test"),
            up.certificate("::1", name="192.0.2.9"),
            up.certificate(port=up.agents_port, name="fleet.test"),
        }
        assert len(shown) == 1
        with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
            up.certificate(name="elsewhere.test")
        fingerprint = Authority.load_or_create(tmp_path / "ca", time.time()).fingerprint
        told, _ = up.stop()
    assert told.splitlines()[0] == f"serving https://fleet.test:{up.port}"
    assert str(up.agents_port) in told
    assert fingerprint in told
    assert told.splitlines()[-1].strip() == "lepta device add"


def test_nobody_talks_plainly_or_in_old_tls_to_it(tmp_path: Path) -> None:
    with _up(_lan(tmp_path)) as up:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{up.port}/healthz", trust_env=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        # Asking for it is deprecated, which is the point.
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", up.port)) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain)
        up.certificate()
        _, said = up.stop()
    assert "Traceback" not in said


def test_tools_trust_the_ca_that_they_are_given_and_no_other(tmp_path: Path) -> None:
    other = Authority.load_or_create(tmp_path / "other", time.time())
    data = tmp_path / "data"
    with _up(_lan(data)) as up:
        with Client(in_folder(data)) as client:
            assert client.ready()
        url, token = f"https://localhost:{up.port}", data / "api-token"
        elsewhere = {URL: url, TOKEN_FILE: str(token), CA_FILE: str(up.ca), DATA: str(tmp_path / "none")}
        with Client(locate(elsewhere)) as client:
            assert client.info().url == f"https://127.0.0.1:{up.port}"
        for ca in (None, other.folder / "ca.pem"):
            with (
                Client(Place(url, token, ca)) as client,
                pytest.raises(Unreachable, match="not to be trusted") as caught,
            ):
                client.info()
            assert CA_FILE in str(caught.value.hint)


def test_the_command_line_works_over_tls(tmp_path: Path) -> None:
    with _up(_lan(tmp_path)):
        listed = _lepta(tmp_path, "device", "ls")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "lepta device add" in listed.stdout
        made = _lepta(tmp_path, "key", "add", "ann", "--scope", "read")
        assert re.fullmatch("lepta_[0-9a-f]{8}_.{43}", made.stdout.strip())


def test_a_second_start_keeps_certificate_keys_and_callers_and_all_files_are_private(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        with _up(_lan(tmp_path)) as up:
            with Client(in_folder(tmp_path)) as client:
                keys = {key.id for key in client.api_keys()}
            kept.append((up.certificate(), up.ca.read_bytes(), (tmp_path / "api-token").read_text(), keys))
            for path in tmp_path.rglob("*"):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            out, said = up.stop()
            assert kept[0][2].strip() not in out + said
            # Told at the first start only, and by its file where nobody sits at a terminal.
            assert (str(tmp_path / "api-token") in said) is (len(kept) == 1)
    assert kept[0] == kept[1]


def test_an_emptied_database_goes_on_with_the_key_in_the_file(tmp_path: Path) -> None:
    with _up(_lan(tmp_path)):
        pass
    for path in tmp_path.glob("lepta.db*"):
        path.unlink()
    (tmp_path / "api-token").write_text("a-token-of-an-older-version\n")
    with _up(_lan(tmp_path)), Client(in_folder(tmp_path)) as client:
        assert [key.scopes for key in client.api_keys()] == [("admin",)]


def test_the_certificate_is_renewed_while_it_runs_for_the_api_and_the_broker(tmp_path: Path) -> None:
    port, agents, clients = free_ports(3)
    arguments = [str(tmp_path), str(port), str(agents), str(clients)]
    with _up(_started(tmp_path, _SHORT, arguments, (port, agents))) as up, Client(in_folder(tmp_path)) as client:
        first = up.certificate()
        assert up.certificate(port=agents) == first
        assert until(lambda: up.certificate() != first)
        assert until(lambda: up.certificate(port=agents) == up.certificate())
        assert client.ready()


@pytest.mark.root
def test_without_mosquitto_it_says_how_to_get_it(tmp_path: Path) -> None:
    """It is looked for in folders of the system too: a mount of our own hides it there."""
    hidden = " && ".join(f"mount --bind /dev/null {path}" for path in _installed("mosquitto"))
    lepta = [sys.executable, "-c", _LEPTA, "up", "--lan", "--port", "0", "--data", str(tmp_path)]
    command = ["unshare", "--mount", "sh", "-c", f'{hidden} && exec "$@"', "sh", *lepta]
    done = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "error: mosquitto is not installed" in done.stderr
    assert "hint: apt install mosquitto" in done.stderr


def _installed(program: str) -> set[str]:
    folders = [*os.environ["PATH"].split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
    return {str(path) for folder in folders if (path := Path(folder).resolve() / program).is_file()}


def test_the_embedded_broker_is_not_for_other_machines(tmp_path: Path) -> None:
    up = _lan(tmp_path, "--broker", "embedded")
    _, said = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    assert "lepta up --lan" in said
    assert "Traceback" not in said


def test_a_terminal_is_told_the_first_key_once(tmp_path: Path) -> None:
    for told in (True, False):
        ours, theirs = os.openpty()
        port, agents, clients = free_ports(3)
        ports = ["--port", str(port), "--agents-port", str(agents), "--clients-port", str(clients)]
        command = [sys.executable, "-c", _LEPTA, "up", "--lan", "--data", str(tmp_path), *ports]
        process = subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
        )
        with _up(Up(process, tmp_path, port, agents)):
            pass
        os.close(theirs)
        seen = os.read(ours, 65536).decode()
        os.close(ours)
        assert ((tmp_path / "api-token").read_text().strip() in seen) is told
