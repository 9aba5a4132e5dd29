"""`lepta device` and `lepta client`: what they ask for, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.contract.messages import ModelState
from controller.commands import device_text, root
from controller.commands.device import changes
from controller.errors import UserError
from tests.rest_double import RestDouble, served


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestDouble]:
    double = RestDouble()
    with served(double, tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield double


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = root.run(arguments)
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def test_add_prints_one_line_with_the_token_the_address_and_whom_to_trust(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(capsys, "device", "add", "--label", "site=north", "--label", "x=", "--uses", "3", "--ask")
    [line] = [line for line in said.splitlines() if "claim-of-the-test" in line]
    assert "join" in line
    assert controller.url in line
    assert "f0" * 32 in line
    assert "lepta device approve" in said
    asked = controller.asked
    assert (asked["labels"], asked["uses"], asked["approve"]) == ({"site": "north", "x": ""}, 3, False)


def test_labels_are_set_with_an_equals_sign_and_removed_with_a_minus() -> None:
    assert changes(["a=b=c", "d=", "e-", "f-g=h"]) == ({"a": "b=c", "d": "", "f-g": "h"}, ["e"])
    for wrong in ("a", "=b", "-", ""):
        with pytest.raises(UserError, match="is no label"):
            changes([wrong])


def test_devices_are_found_by_their_labels(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert "site=north" in _said(capsys, "device", "ls", "-l", "site=north")
    assert "no device has these labels" in _said(capsys, "device", "ls", "-l", "site=north", "-l", "x=1")
    assert "no device has these labels" in _said(capsys, "device", "ls", "-l", "site-")


def test_show_tells_who_a_device_is(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "device", "show", "fpga-1")
    for expected in ("approved", "site=north", "e" * 64, "12345678", "until 1970-01-01"):
        assert expected in said


def test_verbs_reach_their_device(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert "approved" in _said(capsys, "device", "approve", "fpga-1")
    assert controller.asked == {"verb": "approve"}
    assert "site=north" in _said(capsys, "device", "label", "fpga-1", "a=b", "c-")
    assert controller.asked == {"verb": "labels", "put": {"a": "b"}, "remove": ["c"]}
    assert "its certificate is void" in _said(capsys, "device", "revoke", "fpga-1")
    assert "removed" in _said(capsys, "device", "rm", "fpga-1")
    assert controller.asked == {"verb": "rm"}


def test_drain_waits_and_says_when_a_device_can_be_switched_off(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(capsys, "device", "drain", "fpga-1", "--force")
    assert controller.asked == {"verb": "drain", "force": "true"}
    for expected in (
        "gets nothing new; 3 shards moved to other devices",
        "fpga-1 can be switched off",
        "lepta device uncordon fpga-1",
        "Its bindings end when it is switched off: camera",
    ):
        assert expected in said
    assert controller.duties == 2


def test_drain_waits_only_if_it_is_wanted_and_as_long_as_it_is_wanted(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(capsys, "device", "drain", "fpga-1", "--no-wait")
    assert "2 requests and 1 shard still to answer" in said
    assert "can be switched off: lepta device drain fpga-1" in said
    assert controller.duties == 0
    assert root.run(["device", "drain", "fpga-1", "--timeout", "0"]) == 1
    assert "2 requests and 1 shard still to answer" in capsys.readouterr().err


def test_cordon_leaves_a_device_what_it_has_and_uncordon_takes_it_back(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gets nothing new; 2 requests and 1 shard still to answer" in _said(capsys, "device", "cordon", "fpga-1")
    assert controller.asked == {"verb": "cordon", "force": ""}
    assert "gets work again, when it is back" in _said(capsys, "device", "uncordon", "fpga-1")


def test_where_devices_share_a_password_it_is_said_that_the_broker_cannot_shut_one_out(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.by_broker = False
    said = _said(capsys, "device", "revoke", "fpga-1", "--claim")
    assert "The broker cannot shut it out" in said
    assert "2 devices may still join" in said


def test_a_new_client_is_told_how_to_use_what_it_got(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _said(capsys, "client", "add", "shop", "--predictions", "digits")
    assert controller.asked == {"name": "shop", "predictions": ["digits"], "publishes": []}
    for expected in ("10.0.0.5", "8884", "password-of-the-test", "mosquitto_sub -v -t 'lepta/v1/predictions/digits/+'"):
        assert expected in said
    assert not any("mosquitto_" in line and "password-of-the-test" in line for line in said.splitlines())


def test_a_clients_password_can_go_to_files_that_only_their_owner_reads(
    controller: RestDouble, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = _said(capsys, "client", "add", "shop", "--out", str(tmp_path / "shop"))
    assert "password-of-the-test" not in said
    assert f"XDG_CONFIG_HOME={tmp_path / 'shop'} mosquitto_rr" in said
    for tool in ("mosquitto_sub", "mosquitto_pub", "mosquitto_rr"):
        path = tmp_path / "shop" / tool
        assert path.stat().st_mode & 0o777 == 0o600
        assert "-P password-of-the-test" in path.read_text().splitlines()


def test_clients_are_listed_and_removed(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "client", "ls")
    assert "shop" in said
    assert "digits" in said
    assert "removed" in _said(capsys, "client", "rm", "shop")


def test_a_refusal_names_its_cause_first_and_the_device_counts_them() -> None:
    state = ModelState(
        model="digits", version=2, artifact="a1" * 32, manifest="b2" * 32, profile="x86-cpu", state="refused",
        reason="signed by a key that is not trusted here", cause="key",
    )  # fmt: skip
    assert device_text.reason(state) == "key: signed by a key that is not trusted here"
    assert device_text.refusals({"refusals": {"key": 2, "expired": 1}}) == "expired 1, key 2"
    assert device_text.refusals(None) == "-"
