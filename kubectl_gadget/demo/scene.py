"""The three pods of `kubectl gadget demo`, and what they do: a few opens and execs a second, some of which fail.

The trap: a shell's `sleep` is one more program to execute, and would be every second row of `trace exec`. The scripts
wait in a built-in instead, on a pipe that nobody writes to.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kubectl_gadget.demo.pods import DemoPods

_WAIT = "mkfifo /tmp/clock; exec 9<>/tmp/clock; wait_a_bit() { read -r -t 1 _ <&9; }\n"

_SPACESHIP = """while :; do
  cat /etc/passwd; wait_a_bit
  cat /etc/hyperdrive.conf; wait_a_bit
  head -n 1 /etc/hosts; wait_a_bit
done"""

_ENGINE = """while :; do
  cat /proc/loadavg; wait_a_bit; wait_a_bit
  date > /tmp/engine.log; wait_a_bit
done"""

_LASER = """while :; do
  /usr/bin/aim --target xwing; wait_a_bit
  cp /etc/hosts /tmp/targets; wait_a_bit; wait_a_bit
done"""

_DEATHSTAR = """while :; do
  cat /etc/shadow; wait_a_bit
  ls /etc; wait_a_bit
  grep -c pilot /etc/passwd; wait_a_bit
done"""


@contextmanager
def demo_pods(
    state: Path = Path("/run/kubectl-gadget-demo"), begin: Callable[[], object] = lambda: None
) -> Iterator[DemoPods]:
    """`default/xwing` with container `spaceship`, `default/tiefighter` with `engine` and `laser`, and
    `empire/deathstar` with `reactor`, whose user may not read all it tries to; gone after the block. `begin` is
    called before the first one, when nothing is known that is against it. Raises GadgetError as DemoPods does."""
    with DemoPods(state) as pods:
        begin()
        pods.start_pod("default", "xwing", {"spaceship": _shell(_SPACESHIP)})
        pods.start_pod("default", "tiefighter", {"engine": _shell(_ENGINE), "laser": _shell(_LASER)})
        pods.start_pod("empire", "deathstar", {"reactor": _shell(_DEATHSTAR)}, uid=1000)
        yield pods


def _shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", _WAIT + script]
