"""The broker that serves other machines: who comes in, who is put out, and what a change of rights does to the rest."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.errors import Conflict
from tests.benchmarks.devices.lan import DAY_S, SECRET, Lan
from tests.benchmarks.devices.peers import Peer, Refused
from tests.waiting import until

pytestmark = pytest.mark.debian
PREDICTION = "lepta/v1/predictions/digits/pi-a"


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    made = Lan(tmp_path)
    made.add_client("shop")
    with made.running():
        yield made
    assert psutil.Process().children(recursive=True) == []


def _comes_in(lan: Lan, name: str = "pi-a") -> bool:
    with contextlib.suppress(Refused), Peer(lan.device(name)):
        return True
    return False


def test_a_revoked_device_is_put_out_and_stays_out_and_the_others_notice_nothing(lan: Lan) -> None:
    with Peer(lan.device("pi-a")) as revoked, Peer(lan.device("pi-b")) as other, Peer(lan.client("shop")) as client:
        lan.revoked.append(lan.serials["pi-a"])
        lan.admit()
        lan.run(lan.broker.expel("pi-a"))
        assert revoked.lost.wait(5)
        assert not _comes_in(lan)
        assert not other.lost.wait(0.2)
        assert not client.lost.is_set()


def test_a_client_that_is_removed_is_off(lan: Lan) -> None:
    with Peer(lan.client("shop")) as client:
        del lan.clients["shop"]
        lan.admit()
        assert client.lost.wait(5)
    with pytest.raises(Refused), Peer(lan.client("shop")):
        pass


def test_a_client_that_is_added_comes_in_and_nobody_is_disturbed(lan: Lan) -> None:
    with Peer(lan.device("pi-a")) as device, Peer(lan.client("shop")) as shop:
        lan.add_client("till")
        lan.admit()
        with Peer(lan.client("till")):
            assert not device.lost.is_set()
            assert not shop.lost.is_set()


def test_a_grant_counts_at_once(lan: Lan) -> None:
    with Peer(lan.client("shop")) as shop, Peer(lan.controller("Lepta-test")) as controller:
        shop.subscribe(PREDICTION)
        controller.publish([(PREDICTION, b"before")])
        lan.add_client("shop", "digits")
        lan.admit()
    with Peer(lan.client("shop")) as shop, Peer(lan.controller("Lepta-test")) as controller:
        shop.subscribe(PREDICTION)
        assert until(lambda: _hears(controller, shop))
        assert b"before" not in [body for _, body in shop.got]


def _hears(controller: Peer, shop: Peer) -> bool:
    controller.publish([(PREDICTION, b"after")])
    return any(body == b"after" for _, body in shop.got)


def test_rights_and_revocations_outlive_the_broker(lan: Lan) -> None:
    assert _comes_in(lan)
    lan.device("pi-b")
    lan.revoked.append(lan.serials["pi-b"])
    lan.admit()
    (child,) = psutil.Process().children()
    child.kill()
    assert until(lambda: not lan.broker.alive)
    assert until(lambda: lan.broker.alive)
    assert _comes_in(lan, "pi-a")
    assert not _comes_in(lan, "pi-b")


def test_a_renewed_server_certificate_is_shown_without_a_restart(lan: Lan) -> None:
    def serial() -> str:
        context = lan.device("pi-a").tls
        assert context is not None
        with (
            socket.create_connection(("127.0.0.1", lan.broker.agents_port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            return str(wrapped.getpeercert()["serialNumber"])  # type: ignore[index]

    with Peer(lan.device("pi-b")) as peer:
        before = serial()
        lan.authority.server(("127.0.0.1", "localhost", "new.example"), time.time(), 365 * DAY_S)
        lan.admit()
        assert until(lambda: serial() != before)
        assert not peer.lost.is_set()


def test_old_tls_is_refused(lan: Lan) -> None:
    context = lan.trust()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", lan.broker.agents_port), 5) as plain,
        pytest.raises(OSError, match=r".*"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_its_files_are_private_and_its_secrets_on_no_command_line(lan: Lan) -> None:
    folder = lan.folder / "broker"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.iterdir() if path.suffix in (".conf", ".passwd", ".acl", ".pem")]
    assert len(files) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    (child,) = psutil.Process().children()
    assert SECRET not in " ".join(child.cmdline())


@pytest.mark.parametrize("which", ["agents_port", "clients_port"])
def test_a_port_in_use_is_named(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        made = Lan(tmp_path, **{which: port})
        with pytest.raises(Conflict, match=rf"cannot listen on 127\.0\.0\.1:{port}"), made.running():
            pass


def test_all_interfaces_are_served_where_that_is_asked(tmp_path: Path) -> None:
    with Lan(tmp_path, host="::").running() as lan:
        (child,) = psutil.Process().children()
        listening = {c.laddr for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert {ip for ip, port in listening if port == lan.broker.port} == {"127.0.0.1"}
        for port in (lan.broker.agents_port, lan.broker.clients_port):
            assert "0.0.0.0" in {ip for ip, bound in listening if bound == port}
        assert _comes_in(lan)
