"""What every user of the command line is promised, against a real HTTP server that stands for the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.contract import children
from controller.commands import root
from controller.commands.common import model_name
from controller.commands.model import files_of
from controller.errors import UserError
from tests.rest_double import RestDouble, served


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestDouble]:
    double = RestDouble()
    with served(double, tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield double


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    path = tmp_path / "seven.png"
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(path)
    return path


def _lepta(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*children.command("controller.cli"), *arguments],
        env=children.environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_is_there_in_half_a_second_of_processor_time() -> None:
    child = subprocess.Popen(
        [*children.command("controller.cli"), "--help"], env=children.environment({}), stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert "demo" in child.stdout.read()
        # This child's alone: what all children took counts what earlier tests left to be reaped.
        _, status, spent = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert spent.ru_utime + spent.ru_stime < 0.5


def test_help_imports_no_heavy_library() -> None:
    code = "import sys; from controller.commands import root; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "numpy", "fastapi", "tensorflow", "sqlmodel", "PIL", "paho"} & set(loaded)


def test_without_the_extra_the_command_names_it_and_how_to_install_it() -> None:
    blocked = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['lepta', 'device', 'ls']; import controller.cli as c"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}; sys.exit(c.main())"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "extra 'controller'" in done.stderr
    assert "pip install 'lepta[controller]'" in done.stderr


def test_the_version_needs_the_base_install_only() -> None:
    blocked = "import sys; sys.modules['typer'] = None; sys.argv = ['lepta', '--version']; import controller.cli as c"
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}; sys.exit(c.main())"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("lepta ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["infer"], ["up", "--port", "70000"], ["job"], ["job", "run", "m"]]
)
def test_wrong_usage_ends_with_two_and_says_where_the_help_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(("error: ", "Usage: "))


def test_without_a_controller_the_user_is_told_to_start_one(tmp_path: Path) -> None:
    done = _lepta("device", "ls", LEPTA_DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: no controller is running\nhint: start one with `lepta up`")


def test_a_controller_that_died_is_told_apart_from_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "controller.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    (tmp_path / "api-token").write_text("x")
    done = _lepta("device", "ls", LEPTA_DATA=str(tmp_path))
    assert done.returncode == 1
    assert "no controller is running" in done.stderr


def test_a_token_that_is_refused_is_an_error_of_one_line(controller: RestDouble, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    done = _lepta("device", "ls", **{**os.environ, "LEPTA_TOKEN_FILE": str(tmp_path / "wrong")})
    assert done.returncode == 1
    assert done.stderr == "error: the token is wrong\nhint: see LEPTA_TOKEN_FILE\n"


def test_the_token_of_this_machine_is_not_sent_to_another_url(tmp_path: Path) -> None:
    (tmp_path / "controller.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    (tmp_path / "api-token").write_text("x")
    done = _lepta("device", "ls", LEPTA_DATA=str(tmp_path), LEPTA_URL="http://127.0.0.1:10")
    assert done.returncode == 1
    assert "LEPTA_TOKEN_FILE" in done.stderr


def test_deploy_sends_one_request_and_ends_with_the_lines_that_use_the_model(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "My Digits.keras").write_bytes(b"model")
    (tmp_path / "d.npz").write_bytes(b"data")
    code = root.run(["deploy", str(tmp_path / "My Digits.keras"), "--data", str(tmp_path / "d.npz"), "--labels", "a,b"])
    out = capsys.readouterr().out
    assert code == 0
    assert controller.deployed["model"] == b"model"
    assert controller.deployed["data"] == b"data"
    assert controller.deployed["name"] == "my-digits"
    assert json.loads(controller.deployed["labels"]) == ["a", "b"]
    assert "convert for x86-cpu" in out
    assert "pi-1" in out
    assert f"curl -s {controller.url}/v2/models/digits/infer" in out
    assert "lepta sub lepta/v1/clients/me/answer" in out
    assert "secret" not in out


def test_a_failed_run_ends_deploy_with_one_and_the_reason(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = [{"profile": "x86-cpu", "reasons": ["accuracy fell by 4 points"]}]
    controller.run_ends = {"state": "failed", "error": None, "artifacts": [], "rejected": rejected}
    (tmp_path / "m.keras").write_bytes(b"model")
    (tmp_path / "d.npz").write_bytes(b"data")
    assert root.run(["deploy", str(tmp_path / "m.keras"), "--data", str(tmp_path / "d.npz")]) == 1
    assert "error: run run-1 failed: x86-cpu: accuracy fell by 4 points" in capsys.readouterr().err


def test_a_device_that_refused_the_version_fails_the_deploy(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.rollout_devices.append({"device": "pi-2", "state": "refused", "reason": "sha-256 differs"})
    (tmp_path / "m.keras").write_bytes(b"model")
    (tmp_path / "d.npz").write_bytes(b"data")
    assert root.run(["deploy", str(tmp_path / "m.keras"), "--data", str(tmp_path / "d.npz")]) == 1
    assert "pi-2: sha-256 differs" in capsys.readouterr().err


def test_a_missing_file_is_named(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["deploy", "nowhere.keras", "--data", "nowhere.npz"]) == 1
    assert "nowhere.keras cannot be read" in capsys.readouterr().err


def test_infer_names_answer_version_device_runtime_and_request(
    controller: RestDouble, seven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["infer", "digits", str(seven)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "seven (0.98)"
    assert second.strip() == "digits version 1, on pi-1, ai-edge-litert 2.3.0, XNNPACK; request req-1"


def test_infer_as_json_is_one_object_a_file(
    controller: RestDouble, seven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["infer", "digits", "--json", str(seven), str(seven)]) == 0
    first, _second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["labels"] == ["seven"]
    assert first["request"] == "req-1"


def test_the_printed_request_is_one_that_the_protocol_takes(
    controller: RestDouble, seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["infer", "digits", str(seven), "--as-json", "--client", "me"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["client"] == "me"
    (tmp_path / "request.json").write_text(text)
    assert root.run(["infer", "digits", str(tmp_path / "request.json")]) == 0
    assert capsys.readouterr().out.startswith("seven (0.98)")


def test_an_unknown_model_is_told_with_the_controllers_hint(
    controller: RestDouble, seven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["infer", "digit", str(seven)]) == 1
    assert capsys.readouterr().err == "error: no model is called that\nhint: lepta model ls\n"


def test_trace_shows_the_seven_steps_and_the_time_until_the_answer(
    controller: RestDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["trace", "req-1"]) == 0
    out = capsys.readouterr().out
    assert [out.index(step) for step in ("user request", "optimized?", "distribute", "compute", "store")]
    assert "3.00 ms" in out


def test_devices_that_are_simulated_say_so(controller: RestDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["device", "ls"]) == 0
    assert "online, simulated" in capsys.readouterr().out
    assert root.run(["device", "show", "fpga-1"]) == 0
    out = capsys.readouterr().out
    assert "set by hand: accelerators" in out
    assert "wanted aarch64" in out


def test_a_claim_can_go_to_a_file_that_only_its_owner_reads(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.run(["device", "add", "--out", str(tmp_path / "claim.txt")]) == 0
    assert "claim-of-the-test" not in capsys.readouterr().out
    assert (tmp_path / "claim.txt").read_text() == "claim-of-the-test\n"
    assert (tmp_path / "claim.txt").stat().st_mode & 0o777 == 0o600


def test_a_job_is_waited_for_and_its_result_written(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "rows.npz", image=np.zeros((20, 8, 8, 1), np.float32))
    out = tmp_path / "result.npz"
    assert root.run(["job", "run", "digits", "--input", str(tmp_path / "rows.npz"), "--output", str(out)]) == 0
    assert "95.00 %" in capsys.readouterr().out
    assert out.read_bytes() == b"[1,2,3]"


def test_a_push_uploads_every_file_once_and_then_the_report(controller: RestDouble, tmp_path: Path) -> None:
    refs = {"model": {"file": "m.tflite"}, "parity": {"file": "p.npz"}, "acceptance": {"file": "a.npz"}}
    report = {"model": "digits", "source": {"file": "digits.keras"}, "artifacts": [{"files": refs}, {"files": refs}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    for name in ("m.tflite", "p.npz", "a.npz", "digits.keras"):
        (tmp_path / name).write_text(name)
    assert root.run(["model", "push", str(tmp_path)]) == 0
    assert controller.imported["report"] == report
    assert sorted(controller.imported["files"]) == ["a.npz", "digits.keras", "m.tflite", "p.npz"]
    assert set(controller.imported["files"].values()) == set(controller.files)


def test_a_report_cannot_make_us_upload_files_from_elsewhere() -> None:
    with pytest.raises(UserError, match="outside"):
        files_of({"artifacts": [{"files": {"model": {"file": "../../.ssh/id_rsa"}}}]})


@pytest.mark.parametrize(
    ("file", "name"), [("Digits.keras", "digits"), ("My Model (2).keras", "my-model-2"), ("--.keras", "model")]
)
def test_a_files_name_becomes_a_usable_model_name(file: str, name: str) -> None:
    assert model_name(Path(file)) == name


def test_profiles_are_explained_without_a_controller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["profile", "ls"]) == 0
    assert "fpga-proxy" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text('name = "mine"\nwrong = 1\n')
    assert root.run(["profile", "check", str(tmp_path / "mine.toml")]) == 1
    assert "wrong" in capsys.readouterr().err


def test_bad_options_name_what_is_allowed(
    controller: RestDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.keras").write_bytes(b"model")
    base = ["deploy", str(tmp_path / "m.keras"), "--data", str(tmp_path / "m.keras")]
    assert root.run([*base, "--labels", "onlyone"]) == 1
    assert "a,b,c" in capsys.readouterr().err
    (tmp_path / "p.json").write_text('{"height": "8"}')
    assert root.run([*base, "--preprocessing", str(tmp_path / "p.json")]) == 1
    assert "height" in capsys.readouterr().err
    assert not controller.deployed
