"""A page in headless Chromium, driven through its debugging protocol: keys, screenshots, and what a script says.

The page hears from its websocket when it does, so whoever asks it something waits until the answer is the expected one.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.waiting import PATIENCE, wait_until

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""Debian has it by both names; None: it is not installed."""
_EMPTY = "data:text/html,"
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39}


class CommandError(Exception):
    """The browser refused a command; also when one page is on its way to another."""


class Page:
    """One page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._listening: dict[str, Callable[[dict[str, Any]], object]] = {}
        self._context: dict[str, int] = {}

    def on(self, event: str, act: Callable[[dict[str, Any]], object]) -> None:
        """Calls `act` with each event of this name that comes before the answer to a command."""
        self._listening[event] = act

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            found = json.loads(self._connection.recv(timeout=PATIENCE))
            if act := self._listening.get(found.get("method", "")):
                act(found["params"])
            if found.get("id") == number:
                if "error" in found:
                    raise CommandError(found["error"]["message"])
                result: dict[str, Any] = found["result"]
                return result

    def script(self, text: str) -> Any:
        """What an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True, **self._context)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @contextmanager
    def inside(self, element: str) -> Iterator[None]:
        """While the block runs, scripts are those of the document in the element that this expression is, an iframe."""
        node = self.ask("Runtime.evaluate", expression=element)["result"]["objectId"]
        frame, known = self.ask("DOM.describeNode", objectId=node)["node"]["frameId"], dict[str, int]()
        self.on(
            "Runtime.executionContextCreated",
            lambda found: known.update({found["context"]["auxData"]["frameId"]: found["context"]["id"]}),
        )
        self.ask("Runtime.enable")
        self.ask("Runtime.disable")
        self._context = {"contextId": known[frame]}
        try:
            yield
        finally:
            self._context = {}

    def wait(self, condition: str) -> None:
        """Until the expression is true."""
        wait_until(lambda: self._is(condition), condition, state=lambda: self.script("document.body.innerText"))

    def open(self, url: str, scheme: str = "") -> None:
        """Loads the URL, also if only its part after # differs. The scheme is `light`, `dark` or the browser's own."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for address in (_EMPTY, url):
            self.ask("Page.navigate", url=address)
            start = json.dumps(address.partition("#")[0])
            self.wait(f"location.href.startsWith({start}) && document.readyState === 'complete'")

    def _is(self, condition: str) -> bool:
        try:
            return bool(self.script(f"!!({condition})"))
        except CommandError:
            return False

    def press(self, key: str) -> None:
        """A key on whatever has the focus: its name, or a character."""
        known = {"key": key, "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0].upper()))}
        text = {"text": {"Enter": "\r"}.get(key, key)} if key == "Enter" or len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, **known, **(text if kind == "keyDown" else {}))

    def screenshot(self, path: Path) -> None:
        """As a PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def empty_page(size: tuple[int, int] = (1400, 900)) -> Iterator[Page]:
    """An empty page of a browser that runs while the block does."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars"]
        own = [f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]
        command = [str(CHROMIUM), *options, *own, "about:blank"]
        # Debian's command is a shell script that waits for the browser, so both have to be ended.
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                assert process.stderr is not None
                said = []
                for line in process.stderr:
                    said.append(line)
                    if line.startswith("DevTools listening on "):
                        break
                assert said, "the browser says nothing"
                assert said[-1].startswith("DevTools"), "".join(said)
                address = said[-1].split()[-1]
                with connect(address, max_size=None) as connection:
                    (target,) = [
                        found["targetId"]
                        for found in Page(connection).ask("Target.getTargets")["targetInfos"]
                        if found["type"] == "page"
                    ]
                address = f"{address.partition('/devtools/')[0]}/devtools/page/{target}"
                with connect(address, max_size=None) as connection:
                    yield Page(connection)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


_AXE = """axe.run(document, {iframes: false, rules: RULES}).then(found => found.violations.flatMap(one =>
  one.nodes.map(node => `${one.id}: ${node.html.slice(0, 120)}: ${node.failureSummary}`)))"""


def barriers(page: Page, *without: str) -> list[str]:
    """What axe-core finds in the document that hinders people: roles, names, order, contrast (WCAG A and AA), and its
    best practices, `without` some of its rules. Frames are documents of their own."""
    if not page.script("typeof axe === 'object'"):
        page.script(f"{files('axe_core_python').joinpath('axe.min.js').read_text()};0")
    found: list[str] = page.script(_AXE.replace("RULES", json.dumps({name: {"enabled": False} for name in without})))
    return found
