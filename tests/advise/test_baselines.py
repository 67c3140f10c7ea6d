"""Paths of facts in the languages of others."""

import pytest

from kubectl_gadget.advise.baselines import Target, glob, interpreter, is_path, target, without_applet
from tests.behavior.made import fact


@pytest.mark.parametrize(
    ("path", "found", "pattern"),
    [
        ("/etc/a.conf", Target("/etc/a.conf", True), "/etc/a.conf{,/}"),
        ("/data/*", Target("/data/", False), "/data/{,**}"),
        ("/tmp/<random>/x", Target("/tmp/", False), "/tmp/*/x{,/}"),
        ("/var/cache/<shard>/<hex>", Target("/var/cache/", False), "/var/cache/**/*{,/}"),
        ("/usr/bin/python<version>", Target("/usr/bin/python", False), "/usr/bin/python*{,/}"),
        ("/lib/libssl.so.3", Target("/", False), "/{usr/,}{lib,lib32,lib64,libx32}/**"),
        ("/opt/libx.so", Target("/opt/libx.so", False), "/opt/libx.so{,.*}"),
        (r"/d/\*", Target("/d/*", True), r"/d/\*{,/}"),
        (r"/d/\<n>", Target("/d/<n>", True), r"/d/<n>{,/}"),
        (r"/d/a\\b", Target(r"/d/a\b", True), r"/d/a\\b{,/}"),
        (r"/d/a\xff", Target("/d/a", False), r"/d/a*{,/}"),
        ('/d/a" rw,{x}', Target('/d/a" rw,{x}', True), r"/d/a\" rw,\{x\}{,/}"),
    ],
)
def test_a_path_keeps_what_it_stands_for(path: str, found: Target, pattern: str) -> None:
    assert target(path) == found
    assert glob(path) == pattern


@pytest.mark.parametrize("text", ["memfd:x", r"\(runtime)", "sh", "/a\nb", "/a\x1b[2J", "/a/../b", ""])
def test_what_is_no_path_is_known(text: str) -> None:
    assert not is_path(text)


def test_the_file_of_a_program_with_many_names_is_the_file() -> None:
    assert without_applet("/bin/busybox sh", ["busybox"]) == "/bin/busybox"
    assert without_applet("/opt/my app", ["busybox"]) == "/opt/my app"
    assert without_applet("/bin/busybox", ["busybox"]) == "/bin/busybox"


def test_the_interpreter_comes_from_the_row_of_a_program() -> None:
    assert interpreter(fact("program", "/srv/a.py", "(runtime)", evidence={"exe": "/usr/bin/python3"}))
    assert not interpreter(fact("program", "/srv/a.py", "(runtime)", evidence={"exe": "memfd:x"}))
    assert not interpreter(fact("program", "/srv/a.py", "(runtime)"))
