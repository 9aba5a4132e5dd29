"""The report's page in a browser: it loads whole, asks for nothing else, and complains about nothing."""

from __future__ import annotations

import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimizer.page import page
from tests.reports import bare, full

pytestmark = pytest.mark.browser
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions "
    "--disable-sync --disable-background-networking --disable-component-update --disable-default-apps "
    "--disable-client-side-phishing-detection --no-pings --password-store=basic --use-mock-keychain"
).split()


class Proxy(socketserver.ThreadingTCPServer):
    """Stands where the network would begin: it writes down what is asked for, and answers nothing."""

    daemon_threads = True
    asked: list[str]


class _Ask(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        self.server.asked.append(self.rfile.readline(4096).decode("latin-1").strip())


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", 0), _Ask) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def browse(folder: Path, text: str, proxy: Proxy, *options: str) -> tuple[str, str]:
    """The document as Chromium has it in the end, and what it said meanwhile."""
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    program = shutil.which("chromium")
    assert program is not None, "apt install chromium"
    more = [f"--user-data-dir={folder / 'profile'}", f"--proxy-server=127.0.0.1:{proxy.server_address[1]}"]
    done = subprocess.run(
        [program, *QUIET, *more, "--enable-logging=stderr", "--v=0", *options, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def from_a_page(asked: list[str]) -> list[str]:
    """Without what Chromium asks its makers on its own."""
    makers = ("google.com", "googleapis.com", "gvt1.com", "gstatic.com")
    return [line for line in asked if not any(f"{maker}:443" in line or f".{maker}/" in line for maker in makers)]


def test_the_page_loads_whole_in_a_browser_without_network_or_complaints(tmp_path: Path, proxy: Proxy) -> None:
    document, said = browse(tmp_path, page(full()), proxy, "--dump-dom")
    assert from_a_page(proxy.asked) == []
    assert "CONSOLE" not in said
    assert document.count("<table") >= 8
    assert document.count('role="img"') == 3
    assert "What the method bought" in document
    assert "remembered from an earlier run" in document


def test_a_page_with_next_to_nothing_loads_too(tmp_path: Path, proxy: Proxy) -> None:
    document, said = browse(tmp_path, page(bare()), proxy, "--dump-dom")
    assert "CONSOLE" not in said
    assert "&lt;b&gt;height&lt;/b&gt;" in document


def test_a_page_that_did_ask_and_run_scripts_would_be_noticed(tmp_path: Path, proxy: Proxy) -> None:
    spoiled = '<!doctype html><img src="http://elsewhere.example/x.png"><script>console.error("broken")</script>'
    _, said = browse(tmp_path, spoiled, proxy, "--dump-dom")
    assert any("elsewhere.example" in line for line in from_a_page(proxy.asked))
    assert "CONSOLE" in said


def test_it_prints_with_everything_unfolded(tmp_path: Path, proxy: Proxy) -> None:
    pdf = tmp_path / "report.pdf"
    browse(tmp_path, page(full()), proxy, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF")
    folded = tmp_path / "folded.pdf"
    browse(tmp_path, page(full()).replace("::details-content", "::nothing"), proxy, f"--print-to-pdf={folded}")
    assert pdf.stat().st_size > 1.3 * folded.stat().st_size
