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
    "embedded": "Lepta, gateway with the embedded broker",
    "local": "Lepta, local endpoint of the agent",
    "mlserver": "MLServer",
    "fastapi": "FastAPI alone",
    "litserve": "LitServe",
}
_CALLERS = (1, 4, 16)
_AT_MOST = {
    "gateway_cpu_over_mlserver": ("gateway's processor time over MLServer's, 4 callers", 1.3),
    "gateway_p99_over_mlserver": ("gateway's p99 over MLServer's, the worse of 4 and 16 callers", 1.0),
    "local_cpu_over_raw": ("local endpoint's processor time over a bare invoke, 4 callers", 3.0),
    "overload_p99_ratio": ("p99 of what an overload lets in over p99 before", 2.0),
}
"""Promises, with their limits."""
_AT_LEAST = {
    "gateway_rps_over_mlserver": ("gateway's requests/s over MLServer's, 16 callers", 1.5),
    "local_rps_over_mlserver": ("local endpoint's requests/s over MLServer's, 16 callers", 2.0),
}
_TROUBLE = {
    "overload_p99_ratio": ("p99 of those let in, over p99 before", "{:.1f}"),
    "overload_goodput_share": ("good answers, share of what 16 callers got", "{:.2f}"),
    "overload_failed": ("neither answered nor refused", "{:.0f}"),
    "overload_crashes": ("processes that ended", "{:.0f}"),
    "overload_memory_growth_mb": ("growth of memory, all processes, MB", "{:.0f}"),
    "overload_recovery_s": ("until answers are quick again, s", "{:.3f}"),
    "kill_failed_answers": ("one of three agents killed, at half of capacity: failed answers", "{:.0f}"),
    "swap_failed_answers": ("six swaps on each agent, at half of capacity: failed answers", "{:.0f}"),
}


def tables(figures: Mapping[str, float]) -> dict[str, str]:
    """The tables in Markdown, by name. Raises KeyError where a figure is missing: no full run made these."""
    return {
        "stations": _stations(figures),
        "hops": _hops(figures),
        "servers": _servers(figures),
        "promises": _promises(figures),
        "trouble": _trouble(figures),
    }


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


def _promises(figures: Mapping[str, float]) -> str:
    rows = [
        (text, f"{figures[key]:.2f}", f"{limit:g}", "kept" if (figures[key] <= limit) == at_most else "**missed**")
        for promises, at_most in ((_AT_MOST, True), (_AT_LEAST, False))
        for key, (text, limit) in promises.items()
    ]
    return _table(("promise", "found", "promised", "so"), rows)


def _trouble(figures: Mapping[str, float]) -> str:
    return _table(("what", "found"), [(text, form.format(figures[key])) for key, (text, form) in _TROUBLE.items()])


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
