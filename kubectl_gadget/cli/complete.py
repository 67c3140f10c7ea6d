"""`kubectl_complete-gadget`: shell completion after `kubectl gadget`.

kubectl runs this program with the words of the command line, the last one unfinished. It reads one candidate per line,
with a tab before its description, and finally `:` and a number that tells the shell what to do
(https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/, cobra's ShellCompDirective). A single line
on standard error would appear in the middle of what the user is typing, so nothing may ever be written there.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from kubectl_gadget.cli.arguments import Given, parse
from kubectl_gadget.cli.help import CommandText, spellings
from kubectl_gadget.cli.stored import NotStored, StoredCommand, is_current

if TYPE_CHECKING:
    import subprocess

    from kubectl_gadget.cli.command import Command, GadgetGroup


FILES = 0
"""Directives for the shell: FILES completes file names."""
NO_FILES = 4
NO_FILES_NO_SPACE = 6

_FILES = ("FILE", "TOOL", "PROGRAM")
"""Arguments that are files, or may be."""
_LISTS = ("columns", "nodes", "containers", "table_sort", "table_by")
"""Flags whose value is a list of column names, or of names in the cluster."""


class Suggestion(NamedTuple):
    """A word that is possible here."""

    word: str
    description: str = ""


class CursorPosition(NamedTuple):
    """The position of the unfinished word on the command line."""

    command: "Command | StoredCommand"
    group: "GadgetGroup | StoredCommand | None"
    text: CommandText
    given: list[Given]
    positionals: list[str]
    pending: str | None


def main() -> NoReturn:
    sys.stderr = open(os.devnull, "w")
    answer(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # taking the interpreter apart takes 5 to 10 ms


def answer(words: Sequence[str]) -> None:
    """Prints candidates and the directive, whatever happens."""
    try:
        try:
            candidates, directive = complete(words, StoredCommand() if is_current() else None)
        except NotStored:
            candidates, directive = complete(words)
        lines = [_line(candidate) for candidate in candidates]
    except (Exception, KeyboardInterrupt):
        # an error cannot be reported: the shell shows whatever is written
        lines, directive = [], NO_FILES
    sys.stdout.write("".join(line + "\n" for line in [*lines, f":{directive}"]))


def complete(words: Sequence[str], top: StoredCommand | None = None) -> tuple[list[Suggestion], int]:
    """Candidates for the last of `words`, and the directive. Raises GadgetError if earlier words are invalid, and
    NotStored if `top`, the whole command line as it was stored, does not know."""
    *before, current = words or [""]
    place = _find(before, top)
    if place is None:
        return [], NO_FILES
    known = spellings(place.text.flags)
    if place.pending:
        return _values(place, known[place.pending].name, current)
    if current.startswith("-") and "=" in current:
        name, _, value = current.partition("=")
        return _values(place, known[name].name, value) if name in known else ([], NO_FILES)
    if current.startswith("-"):
        return _matching(_flags(place.text), current), NO_FILES
    if place.group is not None:
        found = [Suggestion(entry.name, entry.summary) for entry in place.text.entries or ()]
        if joined := place.group.joined(current):
            return _matching([Suggestion(*item) for item in joined], current), NO_FILES
        return _matching(found, current), NO_FILES if found and not place.group.takes_files else FILES
    takes = place.text.takes
    if takes and takes[0] in _FILES:
        return [], FILES
    candidates = _matching(_pods(place, current), current) if takes == ["POD"] else []
    is_open = bool(candidates) and all(candidate.word.endswith("/") for candidate in candidates)
    return candidates, NO_FILES_NO_SPACE if is_open else NO_FILES


def _find(words: Sequence[str], top: StoredCommand | None) -> CursorPosition | None:
    """The command that `words` lead to; None if there is none."""
    command: Command | StoredCommand | None = top or _made()
    given, rest = list[Given](), list(words)
    while command is not None:
        group = cast("GadgetGroup | StoredCommand", command) if command.is_group else None
        parsed = parse(spellings(command.flag_texts), rest, subcommands=group is not None)
        given += parsed.given
        words = group.after_files(parsed.positionals) if group else parsed.positionals
        if group is None or not words:
            return CursorPosition(command, group, command.text, given, list(words), parsed.pending)
        name, *rest = words
        command = group.find(name)
    return None


def _made() -> "Command":
    """The whole command line, with all that a run needs."""
    from kubectl_gadget.cli.root import root

    return root()


def _flags(text: CommandText) -> Iterable[Suggestion]:
    for flag in text.flags:
        yield from (Suggestion(name, flag.help) for name in sorted(flag.spellings, key=len, reverse=True))
    yield Suggestion("--help", "Show the help of this command")


def _values(place: CursorPosition, name: str, current: str) -> tuple[list[Suggestion], int]:
    """Candidates for the value of the flag `name`."""
    (flag,) = (flag for flag in place.text.flags if flag.name == name)
    if flag.metavar == "FILE":
        return [], FILES
    if name in _LISTS:
        done, comma, current = current.rpartition(",")
        # --sort -cpu sorts in descending order; --columns -node removes a column.
        sign = current[:1] if name in ("columns", "table_sort") and current[:1] in ("+", "-") else ""
        names = _looked_up(place, name) if name in ("nodes", "containers") else _columns(place)
        return _matching(names, current.removeprefix(sign), done + comma + sign), NO_FILES
    choices = [Suggestion(choice) for choice in place.command.choices(name)]
    offered = _matching(choices, current)
    if not offered and "," in current:
        done, comma, current = current.rpartition(",")
        return _matching(choices, current, done + comma), NO_FILES
    if offered:
        is_open = all(candidate.word.endswith("=") for candidate in offered)
        return offered, NO_FILES_NO_SPACE if is_open else NO_FILES
    return _matching(_looked_up(place, name), current), NO_FILES


def _columns(place: CursorPosition) -> list[Suggestion]:
    return [Suggestion(column.name, column.description) for column in place.text.columns]


def _looked_up(place: CursorPosition, name: str) -> list[Suggestion]:
    return [Suggestion(word) for word in of_flag(name, place.given, place.positionals)]


def _pods(place: CursorPosition, current: str) -> list[Suggestion]:
    """Pods, kinds followed by a slash, and objects of a kind after the slash."""
    from kubectl_gadget.kube.cluster_options import KINDS, kind_of

    kind, slash, _ = current.rpartition("/")
    if slash:
        known = kind_of(kind)
        found = [f"{kind}/{name}" for name in of_kind(KINDS[known][0], place.given)] if known else []
    else:
        found = pods(place.given)
        if current and found != [current]:
            found += [
                f"{name}/" for kind, names in KINDS.items() for name in (kind, *names) if name.startswith(current)
            ]
    return [Suggestion(name) for name in found if name not in place.positionals]


def _matching(candidates: Iterable[Suggestion], current: str, prefix: str = "") -> list[Suggestion]:
    return [Suggestion(prefix + word, description) for word, description in candidates if word.startswith(current)]


def _line(candidate: Suggestion) -> str:
    """A candidate as cobra reads it; text from the cluster must not break out of its line."""
    word, description = candidate
    text = f"{word}\t{description}" if description else word
    return "".join(c for c in text if c.isprintable() or c == "\t")


# Names that only a cluster or a kubeconfig has. kubectl is asked: it is installed, since it runs our completion, and
# answers five times sooner than our own client. An unreachable cluster must not delay the TAB key by more than _SECONDS


_SECONDS = 2.0
_PLAIN = (
    *("kubeconfig", "context", "cluster", "user", "server", "token", "certificate_authority", "client_certificate"),
    *("client_key", "insecure_skip_tls_verify", "tls_server_name"),
)
_CONNECTION = {
    **{name: f"--{name.replace('_', '-')}" for name in _PLAIN},
    **{"as_user": "--as", "as_groups": "--as-group"},
}
"""The flags of kubectl among ClusterFlags, which takes too long to import, by field."""


def of_flag(name: str, given: Sequence[Given], positionals: Sequence[str] = ()) -> list[str]:
    """Values for the flag in the field `name`; none if they do not come from a cluster."""
    lookup = _LOOKUPS.get(name)
    if lookup is not None:
        return _ask(*lookup, given=given)
    if name == "containers" and not _is_local(given):
        path = "{range .items[*]}{range .spec.containers[*]}{.name} {end}{end}" if not positionals else ""
        path = path or "{range .spec.containers[*]}{.name} {end}"
        return _ask("get", "pods", *positionals[:1], *_namespaces(given), f"-o=jsonpath={path}", given=given)
    return []


def pods(given: Sequence[Given]) -> list[str]:
    """Pods of the namespaces that the flags select."""
    return of_kind("pods", given)


def of_kind(plural: str, given: Sequence[Given]) -> list[str]:
    """Objects of one kind in the namespaces that the flags select."""
    return [] if _is_local(given) else _ask("get", plural, *_namespaces(given), "-o=name", given=given)


_LOOKUPS: Mapping[str, tuple[str, ...]] = {
    "namespace": ("get", "namespaces", "-o=name"),
    "nodes": ("get", "nodes", "-o=name"),
    "context": ("config", "get-contexts", "-o=name"),
    "cluster": ("config", "get-clusters"),
    "user": ("config", "get-users"),
}


def _is_local(given: Sequence[Given]) -> bool:
    return any(item.name == "local" and item.value is True for item in given)


def _namespaces(given: Sequence[Given]) -> list[str]:
    last = {item.name: item.value for item in given}
    if last.get("all_namespaces") is True:
        return ["--all-namespaces"]
    return [f"--namespace={last['namespace']}"] if "namespace" in last else []


def _connection(given: Sequence[Given]) -> list[str]:
    return [f"{_CONNECTION[item.name]}={item.value}" for item in given if item.name in _CONNECTION]


def _ask(*words: str, given: Sequence[Given]) -> list[str]:
    """The output of kubectl, without kinds and titles. After an error nothing is offered."""
    import subprocess

    command = ["kubectl", *words, *_connection(given)]
    if words[0] != "config":
        command.append(f"--request-timeout={_SECONDS:.0f}s")
    try:
        done = _run(command, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    names = [word.rpartition("/")[2] if words[0] == "get" else word for word in done.stdout.split()]
    return [name for name in dict.fromkeys(names) if name != "NAME"]


def _run(command: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    import subprocess  # takes 4 ms, and most TAB keys need no cluster

    quiet = subprocess.DEVNULL
    return subprocess.run(command, stdin=quiet, capture_output=True, text=True, timeout=timeout, check=True)


if __name__ == "__main__":
    main()
