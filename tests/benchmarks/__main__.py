"""`python -m tests.benchmarks [NAME ...] [--quick] [--json FILE] [--keep DIR]`: runs benchmarks by name, or lists them.

This process imports nothing heavy: every section of a benchmark runs in a process of its own, so that neither its
memory nor its threads touch what the next one measures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.benchmarks import BENCHMARKS, results, sections
from tests.benchmarks.measure import host_facts


def main() -> int:
    # Where it is set, every process compiles anew what it imports: no user's machine works like that.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measures Lepta on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks to run; none: list them")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it works, promises little")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; the host goes to FILE's .host.json"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="leave what sections make in DIR; networks that were trained there by a run before are not trained again",
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    if not given.names:
        print("\n".join(f"{name:8} {benchmark.text}" for name, benchmark in BENCHMARKS.items()))
        return 0
    return _run(given.names, given.quick, given.json, given.keep)


def _run(names: list[str], quick: bool, target: Path | None, keep: Path | None) -> int:
    host, started = host_facts(), time.monotonic()
    figures = []
    for name in names:
        for section in BENCHMARKS[name].sections:
            print(f"{name}: {section} ...", file=sys.stderr, flush=True)
            figures += sections.run_apart(f"tests.benchmarks.{name}.{section}", quick, keep)
    print(results.table(figures))
    print("\n" + ", ".join(f"{key} {value}" for key, value in host.items()))
    print(f"{'quick' if quick else 'full'} run, {time.monotonic() - started:.0f} s")
    if target is not None:
        target.write_text(json.dumps(results.flat(figures), indent=2) + "\n")
        target.with_suffix(".host.json").write_text(json.dumps({**host, "quick": quick}, indent=2) + "\n")
    missed = results.broken(figures, quick)
    for figure in missed:
        print(
            f"broken promise: {figure.key} is {figure.value:.4g} {figure.unit}, promised {figure.promise}",
            file=sys.stderr,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
