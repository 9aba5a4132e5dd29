"""A machine's id: the board's serial before the system's id before a network card; never what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.hardware import default_name, identify


def _put(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def _card(root: Path, name: str, index: int, address: bytes, *, real: bool = True) -> None:
    _put(root, f"sys/class/net/{name}/address", address + b"\n")
    _put(root, f"sys/class/net/{name}/ifindex", b"%d\n" % index)
    if real:
        (root / f"sys/class/net/{name}/device").mkdir()


def test_the_serial_wins_so_that_a_new_system_on_the_board_is_the_same_machine(tmp_path: Path) -> None:
    _put(tmp_path, "proc/device-tree/serial-number", b"10000000abcdef01\0")
    first = identify(tmp_path)
    _put(tmp_path, "etc/machine-id", b"f" * 32 + b"\n")
    assert identify(tmp_path) == first
    assert len(first) == 32
    assert int(first, 16)
    assert "abcdef01" not in first


def test_a_cloned_card_in_another_board_is_another_machine(tmp_path: Path) -> None:
    ids = set()
    for serial in (b"1", b"2"):
        _put(tmp_path, "etc/machine-id", b"f" * 32)
        _put(tmp_path, "proc/device-tree/serial-number", serial)
        ids.add(identify(tmp_path))
    assert len(ids) == 2


@pytest.mark.parametrize("unset", [b"uninitialized\n", b"", b"0000"])
def test_a_serial_of_zeros_and_an_unset_machine_id_count_as_none(tmp_path: Path, unset: bytes) -> None:
    _put(tmp_path, "proc/device-tree/serial-number", b"0000000000000000\0")
    _put(tmp_path, "etc/machine-id", unset)
    assert identify(tmp_path) == ""


def test_the_first_real_card_counts_and_no_made_up_address(tmp_path: Path) -> None:
    _card(tmp_path, "eth0", 3, b"00:11:22:33:44:55")
    first = identify(tmp_path)
    _card(tmp_path, "aaa0", 12, b"00:11:22:33:44:66")
    _card(tmp_path, "veth1", 1, b"00:11:22:33:44:77", real=False)
    _card(tmp_path, "wlan0", 2, b"02:11:22:33:44:88")
    assert first
    assert identify(tmp_path) == first


def test_a_container_that_looks_like_any_other_has_no_id_and_its_name_is_the_controllers_choice(tmp_path: Path) -> None:
    assert identify(tmp_path) == ""
    assert default_name("") == ""
    assert default_name("0123456789abcdef") == "device-01234567"
