"""The store on a real SQLite file: what is committed stays, what fails leaves nothing, errors say what to do."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from agent.contract import messages
from agent.contract.children import environment
from agent.contract.manifest import FileRef, Preprocessing, Watch
from agent.contract.messages import DesiredModel, ModelState, SwapRecord
from controller import migrations, reads, writes
from controller.errors import Busy, Conflict, Forbidden, NotFound
from controller.policy import Override
from controller.records import (
    ApiKey,
    Artifact,
    Binding,
    Certificate,
    Claim,
    Client,
    Device,
    Extra,
    File,
    Job,
    JobShare,
    Model,
    Record,
    Release,
    Rollout,
    RolloutDevice,
    Run,
    RunState,
    Shard,
    Swap,
    Version,
)
from controller.settings import Limits
from controller.store import Store, StoreError
from controller.tables import METADATA, TABLES
from controller.terms import Terms
from firmware_profiles.profile import Facts

A, B, C = "a" * 64, "b" * 64, "c" * 64
FACTS = Facts(machine="x86_64", runtimes=("ai-edge-litert",), labels={"room": "cellar"})
DESIRED = DesiredModel(model="digits", version=1, artifact=A, manifest=B, profile="x86-cpu")
STATE = ModelState(model="digits", version=1, artifact=A, manifest=B, profile="x86-cpu", state="serving")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


def _version(number: int = 1, model: str = "digits") -> Version:
    return Version(model=model, version=number, source=A, source_name="m.keras", created_at=float(number))


def _device(name: str = "pi-1", **changes: Any) -> Device:
    device = Device(name=name, public_key="PEM", device_token_hash=f"hash of {name}", facts=FACTS, enrolled_at=1.0)
    return msgspec.structs.replace(device, **changes)


def _files(*digests: str) -> writes.Write[None]:
    return writes.put(*(File(digest=digest, size=1, created_at=1.0) for digest in digests))


# One of each, in an order that a database without deferred checks would refuse.
BOUND = messages.Binding(name="b", model="digits", topic="doors/1", preprocessing=Preprocessing(8, 8), rate=2.0)
ONE_OF_EACH: list[Record] = [
    Shard(job="j", number=0, first=0, last=10, state="accepted", attempt=2, device="pi-1", result=C, length=40),
    Job(
        id="j", model="digits", version=1, input=A, reduce="score", devices={"pi-1": JobShare(shards=1, busy_s=0.5)},
        metrics={"accuracy": 0.9}, created_at=1.0,
    ),
    RolloutDevice(rollout="o", device="pi-1", history=("pending",), previous=DESIRED),
    Rollout(id="o", release="e", model="digits", version=1, extra=Extra(watch=Watch(answers=9)), created_at=1.0),
    Release(id="e", model="digits", version=1, artifacts={"x86-cpu": A}, created_at=1.0),
    Run(id="u", model="digits", version=1, profiles=("x86-cpu",), rejected=({"profile": "rpi4"},), created_at=1.0),
    Artifact(
        digest=A, model="digits", version=1, profile="x86-cpu", files={"model": FileRef(A, 1)}, manifest=B, sequence=1,
        report={"accuracy_int8": 0.97}, created_at=1.0,
    ),
    Version(
        model="digits", version=1, source=A, source_name="m.keras", data=B, labels=("0", "1"),
        preprocessing=Preprocessing(8, 8), created_at=1.0,
    ),
    Model(name="digits", created_at=1.0, policy=Override(keep="sampled", rate=0.5)),
    Swap(
        id=7, device="pi-1", model="digits", at=1.0,
        record=SwapRecord(model="digits", to_version=1, to_artifact=A, outcome="committed"),
    ),
    _device(
        desired=(DESIRED,), reported=(STATE,), labels={"a": "b"}, state="pending", hardware="f0", claim="t",
        certificate_expires=9.0,
    ),
    Claim(token_hash="t", expires_at=2.0, uses_left=1, labels={"a": "b"}, approve=False, hardware="f0", created_at=1.0),
    Certificate(serial="0f", subject="pi-1", issued_at=1.0, expires_at=9.0, revoked_at=2.0),
    Client(name="shop", password="$7$", predictions=("digits",), publishes=("doors/1",), created_at=1.0),
    Binding(name="b", devices=("pi-1",), spec=BOUND, created_at=1.0),
    ApiKey(id="k", hash="h", name="ci", scopes=("read",), created_at=1.0, expires_at=2.0, last_used=1.5),
    File(digest=A, size=1, created_at=1.0),
    File(digest=B, size=1, created_at=1.0),
    File(digest=C, size=1, created_at=1.0),
]  # fmt: skip


def test_every_record_comes_back_as_it_was_put_also_after_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path / "lepta.db")
    first.commit_now(writes.put(*ONE_OF_EACH))
    first.close()
    again = Store(tmp_path / "lepta.db")
    for record in ONE_OF_EACH:
        assert record in again.read_now(reads.every(type(record)))
    again.close()


def test_one_of_each_record_is_tested() -> None:
    assert {type(record) for record in ONE_OF_EACH} == set(TABLES)


def test_a_write_may_run_twice(store: Store) -> None:
    store.commit_now(writes.put(*ONE_OF_EACH))
    store.commit_now(writes.put(*ONE_OF_EACH))
    assert store.read_now(reads.count(Shard)) == 1
    assert store.read_now(reads.uses(A)) == 3  # version, artifact and job


def test_a_failing_write_takes_the_whole_commit_back(store: Store) -> None:
    with pytest.raises(Forbidden, match="not known here"):
        store.commit_now(writes.put(_device()), writes.consume_claim("none", 1.0))
    assert store.read_now(reads.every(Device)) == []
    store.commit_now(writes.put(_device()))
    assert store.read_now(reads.count(Device)) == 1


def test_a_record_that_points_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(Conflict, match="contradicts what is stored"):
        store.commit_now(writes.put(Rollout(id="o", release="none", model="m", version=1, created_at=1.0)))
    assert store.read_now(reads.every(Rollout)) == []


def test_versions_of_a_model_are_numbered_without_gaps(store: Store) -> None:
    store.commit_now(_files(A))
    first, second, other = store.commit_now(*(writes.add_version(_version(0, m)) for m in ("a", "a", "b")))
    assert [first.version, second.version, other.version] == [1, 2, 1]
    assert store.read_now(reads.latest_version("a")) == second
    with pytest.raises(NotFound, match="no model is called 'c'"):
        store.read_now(reads.latest_version("c"))


def test_manifest_sequences_only_grow(store: Store) -> None:
    assert store.read_now(reads.next_sequence("digits")) == 1
    store.commit_now(writes.put(*ONE_OF_EACH))
    assert store.read_now(reads.next_sequence("digits")) == 2


def test_newest_first_and_any_of_several_states(store: Store) -> None:
    store.commit_now(_files(A), writes.put(Model(name="digits", created_at=1.0), _version()))
    states: list[tuple[str, RunState]] = [("c", "queued"), ("a", "running"), ("b", "done")]
    runs = [
        Run(id=name, model="digits", version=1, profiles=(), state=state, created_at=float(at))
        for at, (name, state) in enumerate(states)
    ]
    store.commit_now(writes.put(*runs))
    assert [run.id for run in store.read_now(reads.every(Run, newest=True, limit=2))] == ["b", "a"]
    assert [run.id for run in store.read_now(reads.every(Run, state=("queued", "running")))] == ["a", "c"]


def test_swaps_are_trimmed_per_device_and_go_with_it(store: Store) -> None:
    record = SwapRecord(model="digits", to_version=1, to_artifact=A, outcome="committed")
    swaps = [Swap(device=name, model="digits", at=1.0, record=record) for name in ("a", "b") for _ in range(5)]
    store.commit_now(writes.put(_device("a"), _device("b")), writes.put(*swaps), writes.trim_swaps("a", 2))
    assert [store.read_now(reads.count(Swap, device=name)) for name in ("a", "b")] == [2, 5]
    assert [swap.id for swap in store.read_now(reads.every(Swap, device="a", newest=True))] == [5, 4]
    store.commit_now(writes.forget_device("a"))
    assert [device.name for device in store.read_now(reads.every(Device))] == ["b"]


def test_a_file_goes_only_when_nobody_uses_it(store: Store) -> None:
    store.commit_now(_files(A, B), writes.use_files("x", [A, A]), writes.use_files("y", [A]))
    assert store.read_now(reads.uses(A)) == 2
    assert [file.digest for file in store.read_now(reads.unused_files(before=2.0))] == [B]
    assert store.commit_now(writes.forget_unused(A), writes.forget_unused(B)) == [False, True]
    store.commit_now(writes.use_files("x", []), writes.use_files("y", []))
    assert store.commit_now(writes.forget_unused(A)) == [True]


# -- claims


def _claim(uses: int, expires_at: float = 10.0) -> Claim:
    return Claim(token_hash="t", expires_at=expires_at, uses_left=uses, created_at=0.0)


def test_of_many_who_race_for_a_single_use_claim_exactly_one_wins(store: Store) -> None:
    store.commit_now(writes.put(_claim(1)))

    def enrol(name: str) -> bool:
        try:
            store.commit_now(writes.consume_claim("t", 1.0), writes.put(_device(name)))
        except Forbidden:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(enrol, [f"pi-{n}" for n in range(24)]))
    assert sum(won) == 1
    assert store.read_now(reads.count(Device)) == 1


@settings(max_examples=60, deadline=None)
@given(uses=st.integers(0, 6), expires=st.floats(0, 10), tries=st.lists(st.floats(0, 10), max_size=12))
def test_a_claim_is_used_at_most_as_often_as_it_says_and_never_after_its_time(
    shared_store: Store, uses: int, expires: float, tries: list[float]
) -> None:
    store = shared_store
    store.commit_now(writes.put(_claim(uses, expires)))
    granted = []
    for now in tries:
        try:
            store.commit_now(writes.consume_claim("t", now))
        except Forbidden:
            continue
        granted.append(now)
    assert all(now < expires for now in granted)
    assert len(granted) == min(uses, sum(now < expires for now in tries))
    assert store.read_now(reads.get(Claim, "t")).uses_left == uses - len(granted)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("store") / "lepta.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("claim", "now", "why"),
    [(None, 1.0, "not known"), (_claim(1), 11.0, "expired"), (_claim(0), 1.0, "used already")],
)
def test_a_refused_claim_says_why(store: Store, claim: Claim | None, now: float, why: str) -> None:
    if claim:
        store.commit_now(writes.put(claim))
    with pytest.raises(Forbidden, match=why):
        store.commit_now(writes.consume_claim("t", now))


def test_claims_that_nobody_can_use_are_dropped(store: Store) -> None:
    rows = ((1, 5, 1), (2, 9, 0), (3, 9, 1))
    claims = [Claim(token_hash=str(n), expires_at=end, uses_left=uses, created_at=0.0) for n, end, uses in rows]
    store.commit_now(writes.put(*claims), writes.drop_claims(6.0))
    assert [claim.token_hash for claim in store.read_now(reads.every(Claim))] == ["3"]


# -- laws


_RECORDS = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e6), st.text(max_size=8)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(_RECORDS, max_size=6))
def test_the_last_put_of_a_key_wins(shared_store: Store, batches: list[list[tuple[int, float, str]]]) -> None:
    expected: dict[str, Client] = {}
    for batch in batches:
        rows = [Client(name=f"law-{key}", password=text, created_at=at) for key, at, text in batch]
        shared_store.commit_now(writes.put(*rows))
        expected |= {row.name: row for row in rows}
    assert {row.name: row for row in shared_store.read_now(reads.every(Client))} == expected
    shared_store.commit_now(*(writes.remove(Client, key) for key in expected))


# -- asyncio


def test_commits_of_one_loop_are_served_one_after_another(store: Store) -> None:
    async def scene() -> list[int]:
        await asyncio.gather(*(store.commit([_files(f"{n:064x}")]) for n in range(50)))
        return await asyncio.gather(*(store.read(reads.count(File)) for _ in range(3)))

    assert asyncio.run(scene()) == [50, 50, 50]


def test_more_waiting_than_allowed_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "lepta.db", Limits(store_waiting=2))

    async def scene() -> list[object]:
        return await asyncio.gather(*(store.read(reads.count(Device)) for _ in range(200)), return_exceptions=True)

    outcomes = asyncio.run(scene())
    store.close()
    assert outcomes.count(0) >= 2
    assert any(isinstance(outcome, Busy) for outcome in outcomes)


# -- crashes and bad disks

_CRASH = """
import sys
from pathlib import Path
from controller import writes
from controller.records import Model
from controller.store import Store
store = Store(Path(sys.argv[1]))
for name in "abc":
    store.commit_now(writes.put(Model(name=name, created_at=1.0)), writes.put(Model(name=name + "2", created_at=1.0)))
"""


@pytest.mark.parametrize(
    ("point", "survive"),
    [("store.before_commit=kill@3", ["a", "a2"]), ("store.after_commit=kill@2", ["a", "a2", "b", "b2"])],
)
def test_a_kill_around_a_commit_leaves_all_of_it_or_nothing(tmp_path: Path, point: str, survive: list[str]) -> None:
    # The first pass of before_commit is the migration.
    path = tmp_path / "lepta.db"
    faults = environment({"LEPTA_FAULTS": point})
    ended = subprocess.run([sys.executable, "-c", _CRASH, str(path)], env=faults, timeout=60, check=False)
    assert ended.returncode == -9
    store = Store(path)
    assert [model.name for model in store.read_now(reads.every(Model))] == survive
    store.close()


def test_a_kill_inside_the_first_migration_is_repaired_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    faults = environment({"LEPTA_FAULTS": "store.before_commit=kill"})
    ended = subprocess.run([sys.executable, "-c", _CRASH, str(path)], env=faults, timeout=60, check=False)
    assert ended.returncode == -9
    store = Store(path)
    assert store.read_now(reads.every(Model)) == []
    store.close()


def test_a_full_disk_is_named_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    script = _CRASH.replace('"abc"', '"a"') + (
        "from controller.errors import LeptaError\n"
        "from controller import reads\n"
        "try:\n    store.commit_now(writes.put(Model(name='z', created_at=1.0)))\n"
        "except LeptaError as error:\n    print(error.message, '|', error.hint)\n"
        "store.commit_now(writes.put(Model(name='after', created_at=1.0)))\n"
        "print([m.name for m in store.read_now(reads.every(Model))])\n"
        "store.close()\n"
    )
    faults = environment({"LEPTA_FAULTS": "store.before_commit=ENOSPC@3"})
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=faults, timeout=60, check=True, capture_output=True, text=True
    )
    assert "no space left" in ended.stdout
    assert "free some space" in ended.stdout
    assert "['a', 'a2', 'after']" in ended.stdout


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database, it is a text about one" * 200)


def _hole(path: Path) -> None:
    Store(path).close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 6] = b"\xff" * 4096 * 5
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_garbage, _hole])
def test_a_damaged_database_is_refused_with_a_way_out(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "lepta.db")
    with pytest.raises(StoreError, match="is damaged") as caught:
        Store(tmp_path / "lepta.db")
    assert "backup" in str(caught.value.hint)


def test_a_database_of_a_newer_lepta_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreError, match="newer Lepta") as caught:
        Store(path)
    assert "update Lepta" in str(caught.value.hint)


def test_a_folder_that_is_missing_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist or is not a folder"):
        Store(tmp_path / "nowhere" / "lepta.db")
    (tmp_path / "lepta.db").mkdir()
    with pytest.raises(StoreError, match="cannot be read and written"):
        Store(tmp_path / "lepta.db")


# -- migrations


def test_the_migrations_build_exactly_the_tables_of_the_code(store: Store) -> None:
    differences = store.read_now(lambda connection: compare_metadata(MigrationContext.configure(connection), METADATA))
    assert differences == []


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    known = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(known)) == migrations.REVISIONS
    assert scripts.get_current_head() == migrations.HEAD


def test_a_database_from_before_certificates_keeps_its_devices_approved(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        migrations.upgrade(connection, "0001")
        said = '{"machine": "x86_64", "labels": {"a": "b"}}', '{"a": "b"}'
        connection.exec_driver_sql(
            "INSERT INTO devices VALUES ('pi-1', 'PEM', 'hash', '', ?, ?, 0, '', '', 7, '[]', 0, 7, '[]', 1.0, NULL)",
            said,
        )
        connection.exec_driver_sql("INSERT INTO swaps VALUES (1, 'pi-1', 'digits', 1.0, '{}')")
        connection.exec_driver_sql("INSERT INTO claims VALUES ('t', 9.0, 1, 1.0)")
    store = Store(path)
    [device] = store.read_now(reads.every(Device))
    assert (device.state, device.labels, device.desired_generation) == ("approved", {}, 7)
    assert store.read_now(reads.get(Claim, "t")).approve
    store.commit_now(writes.put(device))
    assert store.read_now(reads.count(Swap, device="pi-1")) == 1
    store.close()


def test_a_database_from_before_recipes_keeps_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        migrations.upgrade(connection, "0002")
        for line in (
            "INSERT INTO files VALUES ('d', 1, 1.0)",
            "INSERT INTO models VALUES ('digits', 1.0)",
            "INSERT INTO versions (model, version, source, source_name, labels, created_at) "
            "VALUES ('digits', 1, 'd', 'm.keras', '[]', 1.0)",
            "INSERT INTO runs (id, model, version, profiles, strict, deploy, state, step, profile, fraction, detail, "
            "rejected, created_at) VALUES ('r', 'digits', 1, '[]', 0, 0, 'running', '', '', 0.0, '', '[]', 1.0)",
        ):
            connection.exec_driver_sql(line)
    store = Store(path)
    [run] = store.read_now(reads.every(Run))
    assert (run.state, run.recipe, run.compare, run.trust, run.attempts) == ("running", "", None, False, 0)
    assert run.terms == Terms()
    assert store.read_now(reads.latest_version("digits")).data_name == ""
    store.close()


def test_an_up_to_date_database_opens_without_alembic(tmp_path: Path) -> None:
    Store(tmp_path / "lepta.db").close()
    script = (
        "import sys; from pathlib import Path; from controller.store import Store\n"
        "Store(Path(sys.argv[1])).close(); sys.exit('alembic' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "lepta.db")], timeout=60, check=False)
    assert ended.returncode == 0


def test_every_column_has_its_field() -> None:
    for record, table in TABLES.items():
        assert {field.name for field in msgspec.structs.fields(record)} == {column.name for column in table.columns}


@pytest.mark.parametrize("niceness", [0, 15])
def test_only_the_databases_thread_gives_way_however_nice_the_controller_is(tmp_path: Path, niceness: int) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys, pathlib; from controller.store import Store; before = os.nice(int(sys.argv[2]));"
            "store = Store(pathlib.Path(sys.argv[1])); its = store.read_now(lambda _: os.nice(0));"
            "store.close(); print(os.nice(0) - before, its > before or its == 19)",
            str(tmp_path / "lepta.db"),
            str(niceness),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert said.split() == ["0", str(sys.platform == "linux")]  # Elsewhere niceness is the process's.
