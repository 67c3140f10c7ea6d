"""`python -I -m kubectl_gadget.agent …`: a session, the pod's main process, and the other commands in _USAGE.

`idle` stays in memory on every node, so it must not import what other commands need.
"""

import os
import sys

_USAGE = (
    "usage: python -I -m kubectl_gadget.agent session [--local] | session [--contained] [--gadgets=NAME,NAME]"
    " [--enforces] [--only-namespace=NAMESPACE] | idle [--policies FOLDER] [--idle-timeout SECONDS]"
    " | policies FOLDER | pins | release {own | NAMESPACE/UID}… | alive | probe | bcc [--tool=NAME]"
)
_OF_CONTAINED_AGENTS = ("idle", "alive", "probe")
"""The commands that a contained agent runs besides contained sessions."""
_NICE = -10


def main(arguments: list[str]) -> int:
    """Runs a command. Returns the exit code."""
    if (refusal := _refusal(arguments)) is not None:
        sys.stderr.write(refusal + "\n")
        return 2
    if arguments[:1] == ["session"]:
        import gc

        gc.set_threshold(100_000)  # until it has started: imports make 20,000 objects and hardly any garbage
        _raise_priority()
    command, words = arguments[:1], arguments[1:]
    if command == ["session"]:
        if words == ["--local"]:
            from kubectl_gadget.agent.session import session

            return session.run(local=True)
        return _session(arguments)
    if command == ["bcc"] and len(words) < 2:
        from kubectl_gadget.agent import other_tools

        return other_tools.run(words[0].removeprefix("--tool=") if words else None)
    if arguments == ["alive"]:
        from kubectl_gadget.agent.pod import idle

        return idle.ask()
    if command == ["idle"]:
        if not words:
            return _idle("0")
        if words[:-1] == ["--idle-timeout"]:
            return _idle(words[1])
        if len(words) == 4 and words[::2] == ["--policies", "--idle-timeout"]:
            return _idle(words[3], words[1])
    if command == ["policies"] and len(words) == 1:
        from kubectl_gadget.agent.installed import guard

        return guard.run(words[0])
    if arguments == ["pins"]:
        from kubectl_gadget.agent.installed import pins

        return pins.list_pins()
    if command == ["release"] and words:
        from kubectl_gadget.agent.installed import pins

        return pins.release(words)
    if arguments == ["probe"]:
        import json

        from kubectl_gadget.agent.session.session import hello

        sys.stdout.write(json.dumps(hello().to_json(), indent=2) + "\n")
        return 0
    sys.stderr.write(_USAGE + "\n")
    return 2


def _raise_priority() -> None:
    """Makes this process run soon when it has something to do, since a ring is full after a tenth of a second of events
    at full speed. Does nothing without CAP_SYS_NICE."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        with open("/proc/self/autogroup", "w") as file:  # else it counts only within its session
            file.write(str(_NICE))
    except OSError:
        pass


def _refusal(arguments: list[str]) -> str | None:
    """Returns why a contained agent refuses this command; None when it does not, or is not contained."""
    if os.environ.get("KUBECTL_GADGET_CONTAINED") != "1" or arguments[:1] in [[word] for word in _OF_CONTAINED_AGENTS]:
        return None
    if arguments[:2] == ["session", "--contained"]:
        return None
    return "this agent is contained: it runs only `session --contained …`, see SECURITY.md"


def _session(words: list[str]) -> int:
    from kubectl_gadget.agent.session import session
    from kubectl_gadget.wire.session_command import SessionCommand

    command = SessionCommand.parse(words)
    if command is None:
        sys.stderr.write(_USAGE + "\n")
        return 2
    return session.run(command)


def _idle(seconds: str, policies: str = "") -> int:
    from kubectl_gadget.agent.pod import idle

    try:
        timeout = float(seconds)
    except ValueError:
        sys.stderr.write(f"--idle-timeout takes seconds, not {seconds!r}\n{_USAGE}\n")
        return 2
    _compile_modules()
    return idle.run(timeout, policies)


def _compile_modules() -> None:
    """For later sessions, if the modules come from a payload; in a child process, which has the memory for it."""
    if hasattr(getattr(__spec__, "loader", None), "archive") and not os.fork():
        from kubectl_gadget.agent.pod import own_files

        own_files.keep_compiled()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
