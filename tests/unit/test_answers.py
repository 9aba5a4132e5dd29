"""Stored answers: what a policy keeps, what limits drop, and a buffer that never makes a request wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, update

from agent.contract.messages import encode_tensors
from agent.contract.tensors import Tensor
from controller import answer_rows, migrations, policy, records
from controller.answers import Answers
from controller.entries import FullAnswer
from controller.pages import MOST_ROWS, Page, Position, Search, bound
from controller.policies import Policies
from controller.policy import KEEP, Override, Policy
from controller.settings import Limits
from controller.store import Store, StoreError
from controller.tables import ANSWER_PAGES, ANSWER_SIZES
from controller.tick import Tick
from controller.trace import Trace

SCORES = (Tensor("scores", "float32", (1, 2), b"\0\0\0\0\0\0\x80?"),)
ROW = (Tensor("x", "uint8", (1, 3), b"abc"),)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "lepta.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Opened once: Hypothesis has no patience for migrations."""
    opened = Store(tmp_path_factory.mktemp("store") / "lepta.db")
    yield opened
    opened.close()


# -- what a policy keeps


@given(st.sampled_from(KEEP), st.booleans(), st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_never_keeps_less_and_only_samples_depend_on_chance(
    keep: policy.Keep, failed: bool, draw: float, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    less, more = (policy.keeps(Policy(keep=keep, rate=rate), failed, draw) for rate in (low, high))
    assert less <= more
    if keep != "sampled":
        assert less == more == policy.keeps(Policy(keep=keep), failed, 0.5)


def test_by_default_every_answer_is_kept_and_no_input() -> None:
    assert policy.keeps(Policy(), failed=False, draw=0.99)
    assert [keep for keep in KEEP if policy.keeps_inputs(Policy(keep=keep))] == ["all"]


def test_a_policy_of_errors_keeps_what_failed_and_none_keeps_nothing() -> None:
    assert [policy.keeps(Policy(keep="errors"), failed, 0.0) for failed in (True, False)] == [True, False]
    assert not any(policy.keeps(Policy(keep="none"), failed, 0.0) for failed in (True, False))


@given(st.builds(Override, rate=st.none() | st.floats(0, 1), keep=st.none() | st.sampled_from(KEEP)))
def test_a_model_that_says_nothing_has_the_controllers_policy_field_by_field(override: Override) -> None:
    default = Policy(keep="errors", rate=0.25, days=3)
    found = policy.of(default, override)
    assert found.days == 3
    assert found.rate == (0.25 if override.rate is None else override.rate)
    assert found.keep == (override.keep or "errors")


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(0, 2000))
def test_limits_drop_the_oldest_and_no_more_than_they_must(sizes: list[int], most: int) -> None:
    rows = [(str(number), size) for number, size in enumerate(sizes)]
    gone = policy.surplus(rows, sum(sizes), most)
    left = sizes[len(gone) :]
    assert gone == [key for key, _ in rows[: len(gone)]]
    assert sum(left) <= most
    assert not gone or sum(left) + sizes[len(gone) - 1] > most


# -- the table


def _answer(number: int, model: str = "digits", **more: object) -> FullAnswer:
    made = FullAnswer(
        f"q{number}", "", model, 1, "", f"pi-{number % 2}", "", "answered", float(number), error="", ms=0.0, size=100
    )
    return msgspec.structs.replace(made, **more)


def _bound(answers: Iterable[FullAnswer]) -> list[Page]:
    return bound(answers, answer_rows.size_of)


def _of(**policies: Policy) -> Policies:
    made = Policies(Policy())
    made.restore(
        records.Model(name=name, created_at=0.0, policy=Override(megabytes=each.megabytes, days=each.days))
        for name, each in policies.items()
    )
    return made


def _true_sizes(store: Store) -> dict[str, tuple[int, int]]:
    found = store.read_now(answer_rows.page(Search(), 10_000))
    models = {answer.model for answer in found}
    return {m: (sum(a.model == m for a in found), sum(a.size for a in found if a.model == m)) for m in models}


def test_each_model_is_held_to_its_own_limit_and_all_together_to_theirs(store: Store) -> None:
    of = _of(digits=Policy(megabytes=0.0005)).of
    batch = [_answer(n, "digits" if n < 10 else "words") for n in range(20)]
    [dropped] = store.commit_now(answer_rows.add(_bound(batch), of, 10**9))
    assert dropped == 5
    assert store.read_now(answer_rows.sizes()) == {"digits": (5, 500), "words": (10, 1000)} == _true_sizes(store)
    store.commit_now(answer_rows.add(_bound([_answer(20, "words")]), of, 1200))
    left = store.read_now(answer_rows.page(Search(), 100))
    assert [a.id for a in left] == [f"q{n}" for n in range(20, 8, -1)]
    assert {m: n for m, n in store.read_now(answer_rows.sizes()).items() if n[0]} == _true_sizes(store)


def test_a_batch_that_is_written_twice_counts_once(store: Store) -> None:
    batch = [_answer(n) for n in range(3)]
    for _ in range(2):
        store.commit_now(answer_rows.add(_bound(batch), _of().of, 10**9))
    assert store.read_now(answer_rows.sizes()) == {"digits": (3, 300)} == _true_sizes(store)


def test_answers_go_when_they_are_older_than_their_model_allows(store: Store) -> None:
    policies = _of(digits=Policy(days=1))
    batch = [_answer(n, received_at=n * 86400.0) for n in range(5)] + [_answer(9, "words", received_at=0.0)]
    store.commit_now(answer_rows.add(_bound(batch), policies.of, 10**9))
    store.commit_now(answer_rows.expire(policies.of, 4 * 86400.0))
    assert {a.id for a in store.read_now(answer_rows.page(Search(), 100))} == {"q3", "q4", "q9"}


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 100)), max_size=9), max_size=5),
    most=st.integers(0, 1500),
)
def test_an_answer_goes_only_where_what_is_left_would_be_too_much_with_it(
    shared_store: Store, batches: list[list[tuple[str, int]]], most: int
) -> None:
    """The oldest of all first; after each commit, what is counted is what is there."""
    shared_store.commit_now(lambda connection: [connection.execute(delete(t)) for t in (ANSWER_PAGES, ANSWER_SIZES)])
    expected: list[tuple[str, int]] = []
    number = 0
    for batch in batches:
        answers = []
        for model, size in batch:
            # Pages of the two models do not overlap: between those that do, the newest answer of each decides.
            number += 1
            answers.append(_answer(number, model, size=size, received_at=number + (1e6 if model == "b" else 0.0)))
        shared_store.commit_now(answer_rows.add(_bound(answers), _of().of, most))
        rows = [*expected, *((answer.id, answer.size) for answer in answers)]
        rows.sort(key=lambda row: (_model_of(batches, row[0]) == "b", int(row[0][1:])))
        expected = rows[len(policy.surplus(rows, sum(size for _, size in rows), most)) :]
        left = shared_store.read_now(answer_rows.page(Search(), 1000))
        assert [(answer.id, answer.size) for answer in reversed(left)] == expected
        counted = {m: n for m, n in shared_store.read_now(answer_rows.sizes()).items() if n[0]}
        assert counted == _true_sizes(shared_store)


def _model_of(batches: list[list[tuple[str, int]]], answer: str) -> str:
    return [model for batch in batches for model, _ in batch][int(answer[1:]) - 1]


def test_pages_that_lost_their_oldest_may_be_written_again(store: Store) -> None:
    batch = [_answer(n) for n in range(10)]
    for _ in range(2):
        store.commit_now(answer_rows.add(_bound(batch), _of(digits=Policy(megabytes=0.0005)).of, 10**9))
        assert [a.id for a in store.read_now(answer_rows.page(Search(), 100))] == ["q9", "q8", "q7", "q6", "q5"]
        assert store.read_now(answer_rows.sizes()) == {"digits": (5, 500)}
    assert store.read_now(answer_rows.find("q4")) is None
    assert store.read_now(answer_rows.find("q5")) == batch[5]


def test_a_damaged_page_goes_when_its_time_comes_and_keeps_nobody_from_writing(store: Store) -> None:
    store.commit_now(answer_rows.add(_bound([_answer(n) for n in range(4)]), _of().of, 10**9))
    store.commit_now(lambda connection: connection.execute(update(ANSWER_PAGES).values(body=b"\xc1")))
    with pytest.raises(StoreError, match="damaged"):
        store.read_now(answer_rows.page(Search(), 100))
    store.commit_now(answer_rows.add(_bound([_answer(4)]), _of().of, 300))
    assert [a.id for a in store.read_now(answer_rows.page(Search(), 100))] == ["q4"]
    assert store.read_now(answer_rows.sizes()) == {"digits": (1, 100)}


def test_pages_follow_each_other_without_gaps_though_newer_answers_come(store: Store) -> None:
    def write(*numbers: int) -> None:
        store.commit_now(
            answer_rows.add(_bound([_answer(n, received_at=float(n // 2)) for n in numbers]), _of().of, 10**9)
        )

    write(*range(10))
    first = store.read_now(answer_rows.page(Search(), 4))
    write(10, 11)
    after = Position(first[-1].received_at, first[-1].id)
    rest = store.read_now(answer_rows.page(Search(), 100, after))
    assert [a.id for a in first + rest] == [f"q{n}" for n in range(9, -1, -1)]


def test_answers_are_found_by_model_device_version_state_and_time(store: Store) -> None:
    batch = [_answer(n) for n in range(4)] + [_answer(4, "words", version=2, state="failed", trace_id="t")]
    store.commit_now(answer_rows.add(_bound(batch), _of().of, 10**9))

    def found(**search: object) -> list[str]:
        return [a.id for a in store.read_now(answer_rows.page(Search(**search), 100))]  # type: ignore[arg-type]

    assert found(model="words") == found(version=2) == found(state="failed") == found(trace_id="t") == ["q4"]
    assert found(device="pi-0", model="digits") == ["q2", "q0"]
    assert found(since=1.0, until=3.0) == ["q2", "q1"]


def test_answers_from_before_pages_are_kept_with_their_tensors(tmp_path: Path) -> None:
    path = tmp_path / "lepta.db"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        migrations.upgrade(connection, "0010")
        for n in range(300):
            told = (f"q{n:03}", "t", f"m{n % 2}", 1, "a", "pi-1", "", "answered", "", n, 2.5, 404)
            row = (*told, encode_tensors(SCORES), encode_tensors(ROW) if n == 9 else None)
            connection.exec_driver_sql(f"INSERT INTO answers VALUES ({', '.join('?' * len(row))})", row)
    store = Store(path)
    found = store.read_now(answer_rows.page(Search(), 1000))
    assert [answer.id for answer in found] == [f"q{n:03}" for n in reversed(range(300))]
    assert (found[0].ms, found[0].size, found[0].received_at, found[0].device) == (2.5, 404, 299.0, "pi-1")
    full = [store.read_now(answer_rows.find(name)) for name in ("q008", "q009")]
    assert [(one.outputs, one.inputs) for one in full if one] == [(SCORES, None), (SCORES, ROW)]
    some = store.read_now(answer_rows.page(Search(device="pi-1", model="m1", until=4.0), 9))
    assert [answer.id for answer in some] == ["q003", "q001"]
    store.close()


# -- the buffer


def _trace(number: int, state: str = "answered", attempts: int = 1) -> Trace:
    made = Trace(f"q{number}", "t", "digits", 1.0, state=state, attempts=attempts, device="pi-1")
    made.asks(ROW)
    made.outputs = SCORES
    return made


def _flush(answers: Answers, store: Store, now: float = 0.0) -> None:
    tick = Tick(now, 2.0)
    answers.flush(tick)
    store.commit_now(*tick.writes)
    for action in tick.actions:
        action()


def _stored(store: Store, keep: policy.Keep) -> FullAnswer:
    answers = Answers(Policies(Policy(keep=keep)), Limits(), lambda: 0.0)
    answers.offer(_trace(1))
    _flush(answers, store)
    found = store.read_now(answer_rows.find("q1"))
    assert found is not None
    return found


def test_tensors_are_stored_as_bytes_with_name_type_and_shape_and_inputs_only_by_all(store: Store) -> None:
    plain = _stored(store, "answers")
    assert plain.outputs == SCORES
    assert plain.inputs is None


def test_a_policy_of_all_stores_the_inputs_too(store: Store) -> None:
    found = _stored(store, "all")
    assert found.inputs == ROW
    assert found.size == policy.ROW_BYTES + 11


def test_a_request_that_no_device_was_asked_is_no_answer(store: Store) -> None:
    answers = Answers(Policies(Policy()), Limits(), lambda: 0.0)
    assert "not kept" in answers.offer(_trace(1, "failed", attempts=0))
    _flush(answers, store)
    assert store.read_now(answer_rows.page(Search(), 10)) == []


def test_a_disk_that_does_not_keep_up_costs_the_oldest_answers_and_they_are_counted(store: Store) -> None:
    limits = Limits(answers_waiting=2 * MOST_ROWS + 50, answers_batch=MOST_ROWS + 50)
    answers = Answers(Policies(Policy()), limits, lambda: 0.0)
    for number in range(3 * MOST_ROWS + 10):
        answers.offer(_trace(number))
    assert answers.dropped == MOST_ROWS
    _flush(answers, store)
    stored = {a.id for a in store.read_now(answer_rows.page(Search(), 1000))}
    assert stored == {f"q{number}" for number in range(MOST_ROWS, 2 * MOST_ROWS)}


def test_what_is_written_at_once_holds_the_newest_however_large_they_are(store: Store) -> None:
    answers = Answers(Policies(Policy()), Limits(answers_waiting_bytes=1, answers_waiting=1), lambda: 0.0)
    answers.offer(_trace(1))
    answers.offer(_trace(2))
    _flush(answers, store)
    assert len(store.read_now(answer_rows.page(Search(), 10))) == 2
    assert answers.dropped == 0


def test_answers_of_a_commit_that_failed_count_as_dropped(store: Store) -> None:
    answers = Answers(Policies(Policy()), Limits(), lambda: 0.0)
    answers.offer(_trace(1))
    answers.flush(Tick(0.0, 2.0))
    answers.offer(_trace(2))
    _flush(answers, store)
    assert answers.dropped == 1
    assert [a.id for a in store.read_now(answer_rows.page(Search(), 10))] == ["q2"]
