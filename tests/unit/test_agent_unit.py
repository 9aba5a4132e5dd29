"""The installed service: its unit, what install and wipe do to a disk, and what status and doctor say of it."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from agent.cli import CliError, main
from agent.contract.messages import ModelState
from agent.contract.signing import write_secret
from agent.enroll import Identity
from agent.link import Broker
from agent.service import devices, files, install, logs, places, program, status, unit, wipe
from agent.service.config import Fleet, config_text
from agent.service.logfile import KEPT, handler
from agent.service.look import Seen, look
from agent.service.manager import State, Systemd
from agent.service.presence import Shown
from agent.service.uninstall import take_away
from agent.settings import Limits, read

PLAN = unit.Plan(("/usr/bin/true",), "/etc/lepta/agent.toml", "/var/lib/lepta")
GPU = unit.Device("/dev/dri/renderD128", "video")
SECRET = "not-for-logs"
IDENTITY = Identity(
    agent="edge-7", broker=Broker("127.0.0.1", 9, "lepta", SECRET), controller_key="", release_key="",
    device_token=SECRET, controller="http://127.0.0.1:9",
)  # fmt: skip


class Recorder:
    """A service manager (manager.Manager) that only remembers what it was asked."""

    def __init__(self, active: str = "inactive", *, there: bool = True) -> None:
        self.asked: list[str] = []
        self._active, self._there = active, there

    def runs(self) -> bool:
        return self._there

    def reload(self) -> None:
        self.asked.append("reload")

    def enable(self, *, start: bool) -> None:
        self.asked.append(f"enable {start}")

    def restart(self) -> None:
        self.asked.append("restart")

    def disable(self) -> None:
        self.asked.append("disable")

    def state(self) -> State:
        return State(self._active, "enabled")

    def logs(self, lines: int, *, follow: bool) -> int:
        return 0


@pytest.mark.debian
@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        PLAN._replace(devices=(GPU,), memory_mb=512, token="/etc/lepta/token", program_folders=("/home/pi/tool",)),
    ],
)
def test_systemd_finds_the_unit_sound_and_its_exposure_low(plan: unit.Plan, tmp_path: Path) -> None:
    file = tmp_path / unit.NAME
    file.write_text(unit.system_unit(plan), encoding="utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", file], check=False, capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    limits = ["--offline=true", "--threshold=20", "--no-pager"]
    rated = subprocess.run(["systemd-analyze", "security", *limits, file], check=False, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert found is not None, rated.stdout + rated.stderr
    print(f"exposure {found[1]} of 2.0 allowed")
    assert float(found[1]) <= 2.0
    assert rated.returncode == 0


def test_the_manager_waits_longer_than_the_agent_needs_to_mend_itself_and_to_stop() -> None:
    limits = Limits()
    assert limits.compute + limits.restart_most < unit.WATCHDOG_S
    assert limits.start < unit.START_S
    assert limits.drain < unit.STOP_S
    text = unit.system_unit(PLAN)
    assert "StartLimitIntervalSec=0" in text
    assert "Restart=always" in text
    assert "LimitNICE=20" in text, "without a sign: the raw limit that lets a candidate come back from SCHED_IDLE"


def test_only_named_devices_can_be_opened() -> None:
    assert "PrivateDevices=yes" in unit.system_unit(PLAN)
    text = unit.system_unit(PLAN._replace(devices=(GPU, unit.Device("/dev/fpga0"))))
    assert "PrivateDevices" not in text
    assert "DevicePolicy=closed\nDeviceAllow=/dev/dri/renderD128 rw\nDeviceAllow=/dev/fpga0 rw\n" in text
    assert "SupplementaryGroups=video\n" in text
    assert devices.named(["/dev/fpga0:plugdev"]) == (unit.Device("/dev/fpga0", "plugdev"),)
    for wrong in ("fpga0", "/dev/../etc/shadow", "/dev/a b"):
        with pytest.raises(CliError, match="below /dev"):
            devices.named([wrong])


def test_a_program_in_a_home_or_among_temporary_files_is_reachable_and_nothing_else_there() -> None:
    assert "ProtectHome=yes" in unit.system_unit(PLAN._replace(program_folders=("/usr", "/opt/venv")))
    text = unit.system_unit(PLAN._replace(program_folders=("/home/pi/.local/share/uv/tools/lepta", "/usr")))
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/pi/.local/share/uv/tools/lepta\n" in text
    text = unit.system_unit(PLAN._replace(program_folders=("/tmp/try/.venv", "/var/tmp/x", "/usr")))
    assert "ProtectHome=yes\nBindReadOnlyPaths=/tmp/try/.venv /var/tmp/x\n" in text
    assert program.minimal(["/a/b/c", "/a/b", "/a/bc", "/a/b"]) == ("/a/b", "/a/bc")
    assert any(Path(os.__file__).is_relative_to(folder) for folder in program.installed().folders)


def test_blanks_and_signs_in_paths_reach_the_program_as_they_are() -> None:
    text = unit.system_unit(PLAN._replace(command=("/opt/my tools/100%/$x/lepta-agent",)))
    assert 'ExecStart="/opt/my tools/100%%/$$x/lepta-agent" run --config' in text


def test_the_configuration_says_back_what_it_was_told(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(config_text(Fleet("https://c:8000", '/etc/lepta/"t"', "ab"), "/var/log/x"), encoding="utf-8")
    settings = read(file)
    told = (settings.controller, settings.token_file, settings.ca_fingerprint, settings.log_file)
    assert told == ("https://c:8000", '/etc/lepta/"t"', "ab", "/var/log/x")


def test_an_image_holds_a_fleets_token_and_an_enabled_unit_and_after_wipe_nothing(tmp_path: Path) -> None:
    image, token = tmp_path / "image", tmp_path / "token"
    (image / "etc").mkdir(parents=True)
    (image / "etc/hostname").write_text("kept\n")
    token.write_text(f"{SECRET}\n")
    before = _tree(image)
    fleet = ["--controller", "https://c:8000", "--token-file", str(token), "--ca-fingerprint", "ab" * 32]
    assert main(["install", "--root", str(image), *fleet]) == 0
    kept, link = image / "etc/lepta/token", image / "etc/systemd/system/multi-user.target.wants" / unit.NAME
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_text().strip() == SECRET
    assert str(link.readlink()) == f"/etc/systemd/system/{unit.NAME}"
    text = (image / "etc/systemd/system" / unit.NAME).read_text()
    assert "LoadCredential=token:/etc/lepta/token" in text
    assert SECRET not in text + (image / "etc/lepta/agent.toml").read_text()
    assert main(["install", "--root", str(image)]) == 0, "again: brought up to date"
    assert (image / "etc/systemd/system" / unit.NAME).read_text() == text
    (image / "var/lib/lepta/blobs").mkdir(parents=True)
    (image / "var/lib/lepta/identity.json").write_text("{}")
    assert main(["wipe", "--root", str(image), "--yes"]) == 0
    assert _tree(image) == before


def test_a_user_needs_no_privilege_and_after_wipe_nothing_is_left(tmp_path: Path) -> None:
    where = places.user(tmp_path, data=tmp_path / "data")
    manager = Recorder()
    write_secret(_made(where.data) / "identity.json", "{}")
    assert install.put(where, install.Wishes(), manager) == 0
    assert manager.asked == ["reload", "enable True"]
    text = where.unit.read_text()
    assert "DynamicUser" not in text
    assert "NoNewPrivileges=yes" in text
    assert take_away(where, manager)
    assert manager.asked[2:] == ["disable", "reload"]
    assert where.config.exists()
    assert (where.data / "identity.json").exists(), "uninstalling keeps the identity"


def test_a_service_that_joined_nobody_is_not_started_and_the_user_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manager = Recorder()
    assert install.put(places.user(tmp_path), install.Wishes(), manager) == 0
    assert manager.asked == ["reload", "enable False"]
    assert "lepta device add" in capsys.readouterr().out


def test_installing_again_restarts_the_new_program(tmp_path: Path) -> None:
    where, manager = places.user(tmp_path), Recorder("active")
    write_secret(_made(where.data) / "identity.json", "{}")
    install.put(where, install.Wishes(), manager)
    assert manager.asked == ["reload", "enable True", "restart"]


def test_without_a_service_manager_the_line_for_the_boot_is_printed_and_a_log_file_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = places.user(tmp_path)
    assert install.put(where, install.Wishes(), Recorder(there=False)) == 0
    assert re.search(r"^@reboot \S.* run --config \S+ --data \S+ >/dev/null 2>&1$", capsys.readouterr().out, re.M)
    assert not where.unit.exists()
    assert read(where.config).log_file == str(where.log)
    assert where.data.stat().st_mode & 0o777 == 0o700


def test_what_cannot_work_as_a_service_is_refused_with_the_reason() -> None:
    for changed, reason in (({"data": Path("/srv/x")}, "below /var/lib"), ({"config": Path("/home/x/a.toml")}, "home")):
        with pytest.raises(CliError, match=reason):
            install.put(places.system()._replace(**changed), install.Wishes(), Recorder())  # type: ignore[arg-type]
    with pytest.raises(CliError, match="fingerprint"):
        install.put(places.system(), install.Wishes(controller="https://c", token_file=Path("t")), Recorder())


def test_an_identity_moves_once_and_never_over_another(tmp_path: Path) -> None:
    mine, service = _made(tmp_path / "mine"), tmp_path / "service"
    write_secret(mine / "identity.json", "{}")
    assert files.take_over(mine, service)
    assert not mine.exists()
    assert (service / "identity.json").stat().st_mode & 0o777 == 0o600
    write_secret(_made(tmp_path / "mine") / "identity.json", "{}")
    assert not files.take_over(mine, service)


@pytest.mark.root
def test_what_root_writes_into_the_services_folder_becomes_the_services(tmp_path: Path) -> None:
    os.chown(tmp_path, 61184, 61184)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/one").write_bytes(b"1")
    files.hand_over(tmp_path)
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {61184}


def test_wipe_refuses_while_an_agent_runs_and_leaves_folders_alone_that_are_none_of_its_own(tmp_path: Path) -> None:
    where = places.user(tmp_path, data=_made(tmp_path / "data"))
    with open(where.data / "agent.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        assert files.runs(where.data) == 4711
        with pytest.raises(CliError, match="runs"):
            wipe.wipe(where, Recorder(), lambda _: True)
    assert files.runs(where.data) is None
    assert wipe.wipe(where, Recorder(), lambda _: False) == 0
    assert where.data.exists(), "asked, and told no"
    (_made(tmp_path / "photos") / "cat.jpg").write_bytes(b"x")
    with pytest.raises(CliError, match="does not look like"):
        wipe.wipe(where._replace(data=tmp_path / "photos"), Recorder(), lambda _: True)
    assert wipe.wipe(where, Recorder(), lambda _: True) == 0
    assert not where.data.exists()


def test_status_tells_by_lines_and_exit_status_whether_it_serves(tmp_path: Path) -> None:
    state = ModelState(
        model="digits", version=3, artifact="a" * 64, manifest="b" * 64, profile="x86-cpu", state="serving"
    )
    shown = Shown(pid=7, since=0.0, connected=True, changed=60.0, models=(state,))
    seen = Seen(msgspec.structs.replace(IDENTITY, not_after=10 * 86_400.0), 7, shown)
    told = dict(status.lines(seen, tmp_path, 3600.0))
    assert told["agent"] == "edge-7"
    assert told["model"] == "digits 3 serving"
    assert told["certificate"] == "valid until 1970-01-11 (10 days)"
    assert told["connected"] == "yes, since 59 min"
    alone = Seen(IDENTITY, 7, msgspec.structs.replace(shown, connected=False))
    assert [status.verdict(one) for one in (seen, alone, look(tmp_path))] == [0, 1, 3]


def test_the_doctor_names_every_failure_with_a_cure_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o755)
    write_secret(tmp_path / "identity.json", msgspec.json.encode(IDENTITY).decode())
    (tmp_path / "identity.json").chmod(0o644)
    assert main(["doctor", "--user", "--data", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    for what in ("data folder", "secret files", "controller's port", "broker's port"):
        assert re.search(rf"^failed +{what}: .+\n +-> .+$", told, re.M), told
    assert "chmod 600" in told
    assert SECRET not in told


def test_the_log_file_is_private_and_bounded_and_its_end_can_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "agent.log"
    logger, writer = logging.Logger("one"), handler(path, 0.001)
    logger.addHandler(writer)
    for number in range(600):
        logger.info("line %d", number)
    writer.close()
    there = sorted(path.parent.iterdir())
    assert len(there) == 1 + KEPT
    assert all(file.stat().st_mode & 0o777 == 0o600 and file.stat().st_size <= 1049 for file in there)
    assert logs.show(path, 2, follow=False) == 0
    assert capsys.readouterr().out == "line 598\nline 599\n"


def test_join_can_install_with_the_options_that_it_has(tmp_path: Path) -> None:
    assert install.places_of(argparse.Namespace(config=None, data=tmp_path, user=True)).data == tmp_path


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.lstat().st_mode) for path in folder.rglob("*"))


def test_a_start_that_waits_for_somebody_is_no_failure_of_systemctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        CliError, match=r"`systemctl enable --now lepta-agent.service` is not done .* lepta-agent status$"
    ):
        Systemd(wait_s=0.2).enable(start=True)


def test_a_service_can_listen_only_where_its_configuration_serves_programs_on_the_device() -> None:
    for text in (unit.system_unit(PLAN), unit.user_unit(PLAN)):
        assert "listen accept accept4" in text
    for text in (unit.system_unit(PLAN._replace(serves=True)), unit.user_unit(PLAN._replace(serves=True))):
        assert "listen accept accept4" not in text
        assert "SystemCallFilter=~@privileged @resources" in text
