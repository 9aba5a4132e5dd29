"""Requests and answers in pages of many. Stored answers move into them; the log of requests begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_MOST_ROWS, _MOST_BYTES, _MOST_S = 256, 256 * 1024, 60.0
_ANSWERS = (
    "SELECT id, trace_id, model, version, artifact, device, runtime, state, received_at, error, ms, size, outputs, "
    "inputs FROM answers ORDER BY model, received_at"
)


def upgrade() -> None:
    _pages("request_pages")
    _pages("answer_pages")
    connection = op.get_bind()
    for _, answers in groupby(connection.exec_driver_sql(_ANSWERS), lambda row: row.model):
        for page in _cut(answers):
            connection.exec_driver_sql("INSERT INTO answer_pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(page))
    op.drop_table("answers")
    op.drop_table("requests")


def _pages(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("last_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("marks", sa.String(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(f"{name}_by_time", name, ["last_at", "first_at", "rows"])
    op.create_index(f"{name}_by_model", name, ["model", "last_at", "first_at"])
    op.create_index(f"{name}_by_last", name, ["last_id", "id"])


def _cut(answers: Any) -> Iterator[list[Any]]:
    page: list[Any] = []
    size = 0
    for answer in answers:
        late = page and answer.received_at - page[0].received_at > _MOST_S
        if page and (len(page) == _MOST_ROWS or size + answer.size > _MOST_BYTES or late):
            yield page
            page, size = [], 0
        page.append(answer)
        size += answer.size
    yield page


def _row(page: list[Any]) -> tuple[Any, ...]:
    ids = [answer.id for answer in page]
    named = ("device", "state", "version")
    marks = sorted({f" {name}={getattr(answer, name)} " for name in named for answer in page})
    times = page[0].received_at, page[-1].received_at
    body = msgspec.msgpack.encode([_entry(answer) for answer in page])
    size = sum(answer.size for answer in page)
    return min(ids), max(ids), page[0].model, "".join(marks), *times, len(page), size, body


def _entry(answer: Any) -> tuple[Any, ...]:
    # The tensors were encoded already.
    outputs = msgspec.Raw(answer.outputs) if answer.outputs else ()
    return (*answer[:-2], outputs, None if answer.inputs is None else msgspec.Raw(answer.inputs))
