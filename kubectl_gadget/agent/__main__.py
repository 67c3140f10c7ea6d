"""`python -I -m kubectl_gadget.agent COMMAND`: session, idle, policies, release, probe or bcc, as _USAGE says.

The trap: `idle` stays in memory on every node, so it must not import what the others need.
"""

import sys

_USAGE = (
    "usage: python -I -m kubectl_gadget.agent session [--local] | idle [--policies FOLDER] [--idle-timeout SECONDS]"
    " | policies FOLDER [PINS] | release [PINS] | probe | bcc"
)


def main(arguments: list[str]) -> int:
    """The exit code."""
    match arguments:
        case ["session"] | ["session", "--local"]:
            from kubectl_gadget.agent import session

            return session.run(local=len(arguments) > 1)
        case ["bcc"]:
            from kubectl_gadget.agent import bcc

            return bcc.run()
        case ["idle"]:
            return _idle("0")
        case ["idle", "--idle-timeout", seconds]:
            return _idle(seconds)
        case ["idle", "--policies", folder, "--idle-timeout", seconds]:
            return _idle(seconds, folder)
        case ["policies", folder, *pins] if len(pins) < 2:
            from kubectl_gadget.agent import guard

            return guard.run(folder, *pins)
        case ["release", *pins] if len(pins) < 2:
            from kubectl_gadget.agent import guard

            return guard.release(*pins)
        case ["probe"]:
            import json

            from kubectl_gadget.agent import session

            sys.stdout.write(json.dumps(session.hello(), indent=2) + "\n")
            return 0
    sys.stderr.write(_USAGE + "\n")
    return 2


def _idle(seconds: str, policies: str = "") -> int:
    from kubectl_gadget.agent import idle

    try:
        timeout = float(seconds)
    except ValueError:
        sys.stderr.write(f"--idle-timeout takes seconds, not {seconds!r}\n{_USAGE}\n")
        return 2
    return idle.run(timeout, policies)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
