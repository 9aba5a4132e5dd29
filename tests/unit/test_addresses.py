"""What this machine is called: the first name that was given is told, every name and address is in the certificate."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from controller.errors import UserError
from controller.identity.addresses import LOOPBACK, Names, bracketed, choose, machine_addresses, stranger
from controller.settings import Settings

ADDRESSES = ["127.0.0.1", "169.254.3.4", "fe80::1", "2001:db8::7", "192.168.1.5", "10.0.0.9", "::1"]


def _chosen(addresses: list[str] = ADDRESSES, host_name: str = "box", **settings: Any) -> Names:
    return choose(Settings(data=Path("data"), lan=True, **{"host": "::", **settings}), host_name, addresses)


@pytest.mark.parametrize(
    ("settings", "public"),
    [
        ({"names": ("Fleet.Example.org", "10.9.9.9")}, "fleet.example.org"),
        ({"names": ("10.9.9.9", "fleet.example.org"), "host": "192.168.1.5"}, "10.9.9.9"),
        ({"host": "192.168.1.5"}, "192.168.1.5"),
        ({"host": "2001:DB8:0::7"}, "2001:db8::7"),
        ({}, "192.168.1.5"),
        ({"addresses": ["::1", "2001:db8::7", "fe80::1"]}, "2001:db8::7"),
        ({"addresses": ["127.0.0.1", "fe80::1"]}, "fe80::1"),
        ({"addresses": ["127.0.0.1", "::1"]}, "127.0.0.1"),
    ],
)
def test_devices_are_told_the_first_name_else_the_host_else_an_address_that_they_can_reach(
    settings: dict[str, Any], public: str
) -> None:
    assert _chosen(**settings).public == public


def test_the_certificate_is_for_every_name_and_address_once() -> None:
    every = _chosen(names=("fleet.test",)).every
    assert set(every) == {"fleet.test", "box", *LOOPBACK, *ADDRESSES}
    assert len(every) == len(set(every))


def test_the_order_of_interfaces_changes_nothing() -> None:
    assert _chosen().every == _chosen(list(reversed(ADDRESSES))).every


@pytest.mark.parametrize("host_name", ["", "grüße", "a b", "x" * 64, "-a"])
def test_a_host_name_that_no_certificate_can_hold_is_left_out(host_name: str) -> None:
    assert host_name not in _chosen(host_name=host_name).every


@pytest.mark.parametrize("name", ["", "a b", "https://fleet.test", "fleet.test:8000", "*", "ü.de", "a" * 64, "fleet_"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="neither a name nor an address"):
        _chosen(names=(name,))


def test_this_machine_has_addresses_without_interface_names() -> None:
    found = machine_addresses()
    assert "127.0.0.1" in found
    assert all(ipaddress.ip_address(address) for address in found)


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("a:b", "a:b"),
    ],
)
def test_a_stranger_counts_by_address_and_in_ipv6_by_network(peer: str, counted: str) -> None:
    assert stranger(peer) == counted


def test_ipv6_stands_in_brackets() -> None:
    assert (bracketed("::1"), bracketed("127.0.0.1"), bracketed("box")) == ("[::1]", "127.0.0.1", "box")
