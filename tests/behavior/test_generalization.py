"""Rules that make equal what differs between two runs."""

from pathlib import Path
from random import Random

import pytest

from kubectl_gadget.behavior.facts import FactKind
from kubectl_gadget.behavior.generalization import Generalizer, default_text, read_rules
from kubectl_gadget.errors import UsageError

RULES = Generalizer(read_rules())


def test_each_rule_of_the_program_has_an_example() -> None:
    rules = [line for line in default_text().splitlines() if "{name: " in line]

    assert len(rules) > 30
    assert [line for line in rules if "example: [" not in line] == []


def test_examples_are_tried(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="example"):
        _read(default_text().replace("/proc/<pid>/status", "/proc/<pid>/other"), tmp_path)


def _read(text: str, folder: Path) -> Generalizer:
    path = folder / "rules.yaml"
    path.write_text(text)
    return Generalizer(read_rules(path))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/proc/17/stat", "/proc/4711/stat"),
        ("/tmp/tmpab12_x9z", "/tmp/tmpq8_f1kxw"),
        ("/tmp/tmp.aBcDeFgH12", "/tmp/tmp.0987654321"),
        ("/var/log/web-2026-05-01.log", "/var/log/web-2027-12-31.log"),
        ("/var/lib/postgresql/17/main/base/16384/2619_vm", "/var/lib/postgresql/15/main/base/5/1249_vm"),
        ("/opt/x/libssl.so.3.0.2", "/opt/x/libssl.so.3"),
        ("/usr/lib/python3.13/json/decoder.py", "/usr/lib/python3.9/json/decoder.py"),
        ("/data/1b4e28ba-2fa1-11d2-883f-0016d3cca427", "/data/00000000-2fa1-11d2-883f-ffffffffffff"),
        ("/var/cache/nginx/7/f1/d41d8cd98f00b204e9800998ecf8427e", "/var/cache/nginx/0/00/" + "a" * 32),
        ("/etc/config/..2026_05_01_10_00_00.1234/a.conf", "/etc/config/..data/a.conf"),
    ],
)
def test_paths_of_two_runs_are_equal(one: str, other: str) -> None:
    assert RULES.path(one) == RULES.path(other)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/root/.ssh/id_rsa", "/usr/share/zoneinfo/Europe/Berlin", "/app/sha256.js", "/opt/x86_64"]
)
def test_names_that_people_gave_stay(path: str) -> None:
    assert RULES.path(path) == path


def test_a_long_number_holds_no_date() -> None:
    numbers = Random(1)
    random = {str(numbers.randrange(10**17, 10**20)) for _ in range(5000)} | {"17202605011234567890", "120260501"}
    assert {RULES.path(f"/src/target/surefire/booter{number}.jar") for number in random} == {
        "/src/target/surefire/booter<n>.jar"
    }


@pytest.mark.parametrize(
    "date",
    [
        "2026-05-01",
        "20260501",
        "2026_12_31",
        "2026.05.01",
        "2026-05-01T10:00",
        "2026-05-01T10:00:59Z",
        "20260501-100059",
        "2026-05-01_10-00-59.123456",
        "1999-01-30T23.59.59,999",
    ],
)
def test_a_date_is_found_between_other_characters(date: str) -> None:
    assert RULES.path(f"/srv/a_{date}x/b") == "/srv/a_<date>x/b"
    assert RULES.path(f"/srv/{date}") == "/srv/<date>"


@pytest.mark.parametrize("path", ["/tmp/tmpab12_x9z", "/tmp/x-17", "/dev/shm/3fa94c1b2d", "/tmp/build-aB3dE6gH/run"])
def test_a_program_in_a_directory_for_temporary_files_keeps_its_name(path: str) -> None:
    assert RULES.program(path) == path


def test_a_program_loses_its_version() -> None:
    assert RULES.program("/usr/lib/postgresql/17/bin/postgres") == RULES.program("/usr/lib/postgresql/15/bin/postgres")


def test_a_name_of_a_container_cannot_look_like_a_rules_placeholder() -> None:
    assert RULES.path("/data/*") != "/data/*"
    assert RULES.path("/data/<n>") != RULES.path("/data/7")


def test_a_byte_that_is_not_utf8_stands_for_itself() -> None:
    assert RULES.path("/data/a\udcff") == RULES.value("/data/a\udcff") == "/data/a\\xff"
    assert RULES.path("/data/a\\xff") != RULES.path("/data/a\udcff")
    assert RULES.pod("a\udcff") == "a\\xff"
    assert not RULES.is_runtime("/bin/a\udcff")
    assert not RULES.is_runtime("/app/evil-runc")
    assert not RULES.is_sensitive("/data/a\udcff")


def test_pods_without_a_known_owner_lose_the_end_of_their_names() -> None:
    assert RULES.pod("web-7c9d5b8f6d-x2x4z") == RULES.pod("web-5d8f6bb9c7-zzzzz") == "web"
    assert RULES.pod("db-0") == RULES.pod("db-11") == "db"


def test_own_rules_come_first(tmp_path: Path) -> None:
    example = "example: [/orders/a1, /orders/<order>]"
    text = f"paths:\n  - {{name: orders, match: '^/orders/[^/]+', to: '/orders/<order>', {example}}}\n"

    own = _read(text, tmp_path)

    assert own.path("/orders/summer") == "/orders/<order>"
    assert own.path("/proc/17/stat") == "/proc/<pid>/stat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paths:\n  - {name: x, match: '[', to: y}\n", ":2:22: paths[0].match is not a regular expression of RE2"),
        ("paths:\n  - {name: x, match: a, to: b, example: [a, c]}\n", "'a' becomes 'b', not 'c'"),
        ("path: []\n", "path is not known; did you mean paths?"),
        ("ignored: [{kind: exits, match: x}]\n", "'exits' is not known; did you mean exit?"),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _read(text, tmp_path)

    assert message in str(caught.value)


def test_the_way_in_which_a_container_is_stopped_is_ignored() -> None:
    assert RULES.is_ignored(FactKind.EXIT, "SIGTERM")
    assert not RULES.is_ignored(FactKind.EXIT, "SIGSEGV")


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("/proc/1/task/7/comm", True),
        ("/proc/1/task", True),
        ("/proc/1/fdinfo/3", True),
        ("/proc/1/task/1/environ", False),
        ("/proc/1/task/1/mem", False),
        ("/proc/1/task/1/root/etc/shadow", False),
    ],
)
def test_only_what_is_harmless_about_a_thread_is_ignored(path: str, is_ignored: bool) -> None:
    assert RULES.is_ignored(FactKind.OPEN, f"read {RULES.path(path)}") is is_ignored


@pytest.mark.parametrize(
    ("path", "read", "written"),
    [
        ("/usr/lib/x86_64-linux-gnu/libssl.so.3.0.2", "/lib/libssl.so.3", "/usr/lib/x86_64-linux-gnu/libssl.so.3.0.2"),
        ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
        ("/usr/local/bin/tool-1.2.3", "/usr/local/bin/tool-<version>", "/usr/local/bin/tool-1.2.3"),
        ("/root/.ssh/id_ed25519", "/root/.ssh/id_ed25519", "/root/.ssh/id_ed25519"),
    ],
)
def test_a_rule_for_files_that_are_read_never_covers_those_that_are_written(path: str, read: str, written: str) -> None:
    assert RULES.read_path(RULES.path(path)) == read
    assert RULES.written(path) == written


@pytest.mark.parametrize(
    ("path", "access", "package"),
    [
        ("/v/lib/python3.13/site-packages/Django-4.2.16.dist-info/METADATA", "read", "python django 4.2.16"),
        ("/v/lib/python3.13/site-packages/django/apps/__init__.py", "read", "python django"),
        ("/usr/lib/python3/dist-packages/__pycache__/six.cpython-313.pyc", "read", ""),
        ("/a/node_modules/express/node_modules/@x/ms/index.js", "read", "node @x/ms"),
        ("/var/lib/dpkg/info/zlib1g:amd64.list", "write", "debian zlib1g"),
        ("/var/lib/dpkg/info/zlib1g:amd64.list", "read", ""),
        ("/app/lib/log4j-core-2.14.1.jar", "read", "jar log4j-core 2.14.1"),
        ("/etc/passwd", "read", ""),
    ],
)
def test_a_file_belongs_to_a_dependency(path: str, access: str, package: str) -> None:
    assert RULES.dependency(path, access) == package
