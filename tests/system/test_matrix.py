"""Who may say and hear what at the broker that serves other machines: all that the contract gives, and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.devices import matrix
from tests.benchmarks.devices.lan import Lan

pytestmark = pytest.mark.debian


def test_nobody_reads_or_writes_what_the_contract_does_not_give_him(tmp_path: Path) -> None:
    cases = matrix.run(tmp_path)
    print(f"{len(cases)} cases")
    assert [case for case in cases if case.leak] == []
    assert [case for case in cases if case.broken] == []
    assert len(cases) >= 1000
    assert sum(case.expected and case.seen for case in cases) >= 200


def test_the_matrix_sees_a_broker_that_gives_too_much(tmp_path: Path) -> None:
    def everything_to_everybody(lan: Lan) -> None:
        for name in ("agents.acl", "clients.acl"):
            (lan.folder / "broker" / name).write_text("pattern readwrite #\n")
        (child,) = psutil.Process().children()
        os.kill(child.pid, signal.SIGHUP)

    cases = matrix.run(tmp_path, (), everything_to_everybody)
    leaks = {case.action for case in cases if case.leak}
    assert leaks == {"subscribe", "publish", "publish retained", "will", "read retained"}


def test_the_matrix_sees_a_broker_that_gives_too_little(tmp_path: Path) -> None:
    def no_wills_and_no_answers(lan: Lan) -> None:
        for name in ("agents.acl", "clients.acl"):
            path = lan.folder / "broker" / name
            kept = [line for line in path.read_text().splitlines() if "agents/%u/status" not in line]
            path.write_text("\n".join(kept) + "\n")
        (child,) = psutil.Process().children()
        os.kill(child.pid, signal.SIGHUP)

    cases = matrix.run(tmp_path, (), no_wills_and_no_answers)
    assert {case.topic for case in cases if case.broken} == {"lepta/v1/agents/pi-a/status"}
