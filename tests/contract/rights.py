"""The table of rights in docs/threat-model.md, made from the access rules that the broker is given.

`python -m tests.contract.rights` writes it there.
"""

from __future__ import annotations

from pathlib import Path

from agent.contract import topics
from controller.broker import config as broker_config
from controller.broker.port import BoundTopic, ClientRight

PAGE = Path(__file__).parents[2] / "docs" / "threat-model.md"
BEGIN, END = "<!-- rights: python -m tests.contract.rights -->\n", "<!-- end of rights -->\n"
_GRANTED, _BOUND = "granted", "bound"
_WORDS = (("%u", "{own name}"), (_GRANTED, "{granted model}"))


def table() -> str:
    """Every topic that somebody on another machine may use; what is not named is denied."""
    devices = _rights(broker_config.agents_acl([BoundTopic(_BOUND)]))
    clients = _rights(broker_config.clients_acl([ClientRight("someone", "", (_GRANTED,), (_BOUND,))]))
    lines = ["| topic below `lepta/v1/` | a device | a user's program |", "|---|---|---|"]
    for topic in sorted({*devices, *clients}):
        lines.append(f"| `{topic}` | {devices.get(topic, '-')} | {clients.get(topic, '-')} |")
    return "\n".join(lines) + "\n"


def between_marks(page: str) -> str:
    return page.partition(BEGIN)[2].partition(END)[0]


def _rights(acl: str) -> dict[str, str]:
    """What each topic filter of an ACL file may be used for. Raises ValueError for a line of another kind."""
    found = {}
    for line in acl.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "user":
            continue
        access, _, topic = rest.partition(" ")
        if kind not in ("pattern", "topic") or access not in ("read", "write"):
            raise ValueError(f"the table has no words for {line!r}")
        shown = topic.removeprefix(f"{topics.ROOT}/")
        for word, meaning in _WORDS:
            shown = shown.replace(word, meaning)
        if topic == _BOUND:
            shown = "{topic of a binding, outside}"
        found[shown] = "read" if access == "read" else "publish"
    return found


def main() -> None:
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(head + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
