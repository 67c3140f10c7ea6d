"""What the logs of ended containers say: only words of interpreters, runtimes and the C library count."""

from typing import Any

import pytest

from kubectl_gadget.diagnose.last_words import ended, last_words, patterns
from kubectl_gadget.diagnose.rules import load, own_files

KEY_ERROR = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
    print(os.environ["DATABASE_URL"])
          ~~~~~~~~~~^^^^^^^^^^^^^^^^
  File "<frozen os>", line 717, in __getitem__
KeyError: 'DATABASE_URL'
"""


@pytest.mark.parametrize(
    ("log", "says", "what"),
    [
        (KEY_ERROR, "variable", "DATABASE_URL"),
        ("sh: DATABASE_URL: parameter not set or null\n", "variable", "DATABASE_URL"),
        ("/app/run.sh: line 3: API_KEY: unbound variable\n", "variable", "API_KEY"),
        ("2026/01/02 10:00:00 missing required environment variable: DB_URL\n", "variable", "DB_URL"),
        ("starting\nERROR: DATABASE_URL is not set\n", "variable", "DATABASE_URL"),
        ("ModuleNotFoundError: No module named 'flask'\n", "module", "flask"),
        ("/usr/bin/python3: No module named gunicorn\n", "module", "gunicorn"),
        ("Error: Cannot find module 'express'\nRequire stack:\n- /app/index.js\n", "module", "express"),
        ("exec /app/run.sh: no such file or directory\n", "interpreter", "/app/run.sh"),
        ("exec /app/server: exec format error\n", "format", "/app/server"),
        ("exec /app/run.sh: permission denied\n", "executable", "/app/run.sh"),
        ("OSError: libpq.so.5: cannot open shared object file: No such file or directory\n", "library", "libpq.so.5"),
        ("OSError: [Errno 98] Address already in use\n", "error", "Address already in use"),
        ("PermissionError: [Errno 13] Permission denied: '/srv/a'\n", "error", "/srv/a: Permission denied"),
        ("socket.gaierror: [Errno -2] Name or service not known\n", "error", "Name or service not known"),
        ("cat: can't open '/etc/a': No such file or directory\nbye\n", "error", "/etc/a: No such file or directory"),
        ("mkdir: cannot create directory '/run/a': Read-only file system\n", "error", "/run/a: Read-only file system"),
        ("panic: open /etc/app.yaml: no such file or directory\n", "error", "/etc/app.yaml: no such file or directory"),
        ("listen tcp :8080: bind: address already in use\n", "error", ":8080: address already in use"),
        ("Error: connect ECONNREFUSED 10.1.1.1:5432\n", "error", "10.1.1.1:5432: ECONNREFUSED"),
    ],
)
def test_words_of_an_interpreter_or_of_the_c_library_are_known(log: str, says: str, what: str) -> None:
    found = last_words(log)
    assert found is not None
    assert (found["says"], found["what"]) == (says, what)


@pytest.mark.parametrize(
    "log",
    [
        "",
        "database is busy, trying again\n",
        "license expired\n",
        "ERROR: cannot reach database: Connection refused\n",
        "KeyError: 'user'\n",
        "sh: gunicorn: not found\n",
        "SENTRY_DSN is not set\nlicense expired\n",
        "LOG_LEVEL is not set, using the default\n",
    ],
)
def test_words_of_the_program_alone_are_nothing(log: str) -> None:
    assert last_words(log) is None


def test_the_last_of_several_counts() -> None:
    found = last_words("cat: /etc/a: No such file or directory\nModuleNotFoundError: No module named 'yaml'\n")
    assert found is not None
    assert found["says"] == "module"


def test_a_long_hostile_log_takes_little_time_and_room() -> None:
    for text in (
        "sh: " + "A" * 16000,
        "x: can't " + "'" * 16000,
        "open /" * 3000,
        '  File "<frozen os>", line 1\n' * 500,
    ):
        found = last_words(text)
        assert found is None or len(found["what"]) <= 410


def test_each_pattern_has_a_rule() -> None:
    rules = {value for rule in load(own_files()) for seen in rule.seen for value in seen.equal.get("says", ())}
    assert {says for says, _ in patterns()} == rules


def test_runs_that_ended_with_an_error_are_read() -> None:
    def status(**states: Any) -> dict[str, Any]:
        return {"name": "app", **states}

    end = {"terminated": {"containerID": "containerd://1", "exitCode": 1}}
    waits, done = {"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"containerID": "a", "exitCode": 0}}
    found = [
        list(ended({"status": {"containerStatuses": [each]}}))
        for each in (
            status(state=waits, lastState=end),
            status(state={"running": {}}, lastState=end),
            status(state=done),
        )
    ]
    assert [[one[:3] for one in each] for each in found] == [
        [("app", "containerd://1", False)],
        [("app", "containerd://1", True)],
        [],
    ]
