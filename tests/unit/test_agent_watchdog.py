"""When the service manager is told that the agent is alive: by answers, never by time alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from agent.service.notify import Notifier
from agent.service.watchdog import Model, Watch, answered, beat

PATIENCE = 150.0


def test_a_model_that_answered_since_the_last_beat_is_not_asked() -> None:
    first = beat(Watch(), {"digits": Model(True, 3)}, True, 0.0, PATIENCE)
    assert (first.alive, first.ask) == (True, ())
    second = beat(first.watch, {"digits": Model(True, 4)}, True, 60.0, PATIENCE)
    assert (second.alive, second.ask) == (True, ())


def test_an_idle_model_is_run_once_and_its_answer_feeds() -> None:
    seen = beat(Watch(), {"digits": Model(True, 3)}, True, 0.0, PATIENCE).watch
    idle = beat(seen, {"digits": Model(True, 3)}, True, 60.0, PATIENCE)
    assert (idle.alive, idle.ask) == (False, ("digits",))
    told = answered(idle.watch, {"digits": Model(True, 4)})
    assert told.alive
    assert not answered(told.watch, {"digits": Model(True, 5)}).alive, "once in a window"


def test_one_model_that_is_silent_keeps_the_word_back_whatever_the_others_answer() -> None:
    models = {"digits": Model(True, 9), "words": Model(True, 2)}
    watch = beat(Watch(), models, True, 0.0, PATIENCE).watch
    for turn in range(1, 5):
        models["digits"] = Model(True, 9 + turn)
        verdict = beat(watch, models, True, 60.0 * turn, PATIENCE)
        assert (verdict.alive, verdict.ask) == (False, ("words",))
        assert not answered(verdict.watch, models).alive
        watch = verdict.watch


def test_a_model_whose_worker_is_being_replaced_is_the_agents_own_business() -> None:
    models = {"digits": Model(True, 9), "words": Model(False, 2)}
    assert beat(Watch(), models, True, 0.0, PATIENCE).alive
    asked = beat(Watch({"digits": 9}), models, True, 0.0, PATIENCE)
    assert answered(asked.watch, {"digits": Model(True, 10), "words": Model(False, 2)}).alive


def test_when_nothing_answers_for_longer_than_the_agent_needs_to_mend_it_the_word_stays_out() -> None:
    models = {"digits": Model(False, 9)}
    watch, said = Watch(), []
    for now in range(0, 360, 60):
        verdict = beat(watch, models, True, now, PATIENCE)
        watch = verdict.watch
        said.append(verdict.alive)
    assert said == [True, True, True, False, False, False]
    back = beat(watch, {"digits": Model(True, 10)}, True, 400.0, PATIENCE)
    assert back.alive
    assert back.watch.dark_since is None


def test_without_models_a_loop_that_turns_and_a_folder_that_takes_writes_are_enough() -> None:
    assert beat(Watch(), {}, True, 0.0, PATIENCE).alive
    assert not beat(Watch(), {}, False, 0.0, PATIENCE).alive


def test_the_manager_hears_on_paths_and_on_abstract_sockets(tmp_path: Path) -> None:
    for address in (str(tmp_path / "notify"), f"@lepta-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{address[1:]}" if address.startswith("@") else address)
            manager.settimeout(2)
            notifier = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "180000000"}, 7)
            assert notifier.watchdog_s == 180
            notifier.ready()
            notifier.status("connected\nREADY=0")
            assert manager.recv(100) == b"READY=1"
            assert manager.recv(100) == b"STATUS=connected READY=0"
            notifier.close()


def test_without_a_manager_or_meant_for_another_process_nothing_is_sent_and_nothing_fails() -> None:
    Notifier.of({}, 7).ready()
    assert Notifier.of({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}, 7).watchdog_s == 0
    gone = Notifier("/nowhere/notify", 1.0)
    gone.alive()
    gone.close()
