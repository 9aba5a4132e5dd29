"""Prints where a request's time goes, as the tables of docs/performance.md: from the figures of a full run of benchmark
`inference`, by default the one that is committed.

    python -m tests.benchmarks.budget [docs/benchmarks/inference.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

COMMITTED = Path(__file__).parents[2] / "docs" / "benchmarks" / "inference.json"
_HOPS = {
    "controller": "controller: HTTP, access, routing, MQTT, the log",
    "broker": "broker, both ways",
    "supervisor": "agent's supervisor: MQTT, the model's line, the worker's pipe",
    "worker": "worker: decode, quantize, invoke, dequantize, encode",
}
_STATIONS = {
    "read": "user request: decoded",
    "routed": "optimized? and which device",
    "way": "distribute: by MQTT there and back",
    "computed": "compute: in the device's line, and in its worker",
    "checked": "result?",
    "written": "response: encoded",
    "http": "HTTP and the caller itself",
    "whole": "**as the caller sees it, p50**",
}
_SERVERS = {
    "gateway": "Lepta, gateway: HTTP, MQTT, agent and back",
    "local": "Lepta, local endpoint of the agent",
    "mlserver": "MLServer",
    "fastapi": "FastAPI alone",
    "litserve": "LitServe",
}
_CALLERS = (1, 4, 16)


def tables(figures: Mapping[str, float]) -> dict[str, str]:
    """The tables in Markdown, by name. Raises KeyError where a figure is missing: no full run made these."""
    return {"stations": _stations(figures), "hops": _hops(figures), "servers": _servers(figures)}


def _stations(figures: Mapping[str, float]) -> str:
    rows = [(text, f"{figures[f'station_{key}_ms']:.2f}") for key, text in _STATIONS.items()]
    return _table(("where a request is, alone", "ms"), rows)


def _hops(figures: Mapping[str, float]) -> str:
    rows = [
        (text, *(f"{figures[f'hop_{hop}_c{callers}_us']:,.0f}" for callers in _CALLERS)) for hop, text in _HOPS.items()
    ]
    rows.append(("**together**", *(f"**{figures[f'hops_c{callers}_us']:,.0f}**" for callers in _CALLERS)))
    return _table(("processor time of a request, us", *(_callers(each) for each in _CALLERS)), rows)


def _servers(figures: Mapping[str, float]) -> str:
    rows = []
    for server, text in _SERVERS.items():
        cells = [
            cell
            for callers in (4, 16)
            for cell in (
                f"{figures[f'{server}_rps_c{callers}']:,.0f}",
                f"{figures[f'{server}_p99_ms_c{callers}']:.1f}",
                f"{figures[f'{server}_cpu_us_c{callers}']:,.0f}",
            )
        ]
        rows.append((text, *cells))
    columns = [f"{what}, {callers}" for callers in (4, 16) for what in ("requests/s", "p99 ms", "processor us")]
    return _table(("server, and callers", *columns), rows)


def _callers(count: int) -> str:
    return "1 caller" if count == 1 else f"{count} callers"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED
    print("\n\n".join(tables(json.loads(source.read_text())).values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
