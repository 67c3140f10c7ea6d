"""The prompt of `recording query`: reads statements that end with `;`, with history and completion by the TAB key.

The trap: readline is missing in some Pythons; the prompt then works without history and completion.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from kubectl_gadget.analysis.answers import print_answer
from kubectl_gadget.analysis.queries import Queries
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.registry import QUERIES

HELP = """SQL ends with ; and may have several lines. DuckDB's SQL: https://duckdb.org/docs/stable/sql/introduction
.tables            tables and views
.schema [TABLE]    columns and their types
.mode FORMAT       table, json, yaml or csv
.quit              or Ctrl-D
tree('EXEC_ID')    is a table of a process and its ancestors"""
_COMMANDS = (".tables", ".schema", ".mode", ".help", ".quit")
_MOST_LINES = 1000


class Prompt:
    """Reads until the end of the input."""

    def __init__(self, queries: Queries, format: str, out: TextIO, errors: TextIO) -> None:
        self.format = format
        self.failed = False
        """whether any statement failed"""
        self._queries = queries
        self._columns = queries.columns()
        self._out, self._errors = out, errors
        names = {name for all in self._columns.values() for name, _ in all}
        self._words = queries.keywords()
        self._names = sorted({*self._columns, *names, *self._words, "tree("})

    def run(self, read: Callable[[str], str]) -> None:
        """`read` returns a line for a prompt, as input() does. Errors are printed."""
        lines: list[str] = []
        while True:
            try:
                line = read("...> " if lines else "sql> ")
            except EOFError:
                break
            except KeyboardInterrupt:
                lines = []
                self._errors.write("\n")
                continue
            if not lines and line.strip().startswith("."):
                if line.strip() in (".quit", ".exit"):
                    return
                self._command(line.split())
                continue
            lines.append(line)
            if line.rstrip().endswith(";"):
                self.answer("\n".join(lines))
                lines = []
        if "".join(lines).strip():
            self.answer("\n".join(lines))

    def answer(self, sql: str) -> None:
        """Prints the results, or what is wrong."""
        try:
            for answer in self._queries.ask(sql):
                print_answer(answer, self.format, self._out)
        except GadgetError as error:
            self.failed = True
            text = f"{error}" + (f"\ntry: {error.remedy}" if error.remedy else "")
            self._errors.writelines(escape(line) + "\n" for line in text.split("\n"))  # it may quote a value
        except KeyboardInterrupt:
            self._errors.write("interrupted\n")

    def _command(self, words: list[str]) -> None:
        name, rest = words[0], words[1:]
        if name == ".tables":
            self._out.writelines(f"{escape(table)}\n" for table in self._columns)
        elif name == ".schema":
            for table in rest or self._columns:
                if table not in self._columns:
                    self._errors.write(f"no table is named {escape(table)}; .tables lists them\n")
                    continue
                self._out.write(f"{escape(table)}\n")
                self._out.writelines(f"  {escape(column)}  {escape(kind)}\n" for column, kind in self._columns[table])
        elif name == ".mode" and rest:
            if rest[0] in QUERIES.names:
                self.format = rest[0]
            else:
                self._errors.write(f"no format is named {escape(rest[0])}: {', '.join(QUERIES.names)}\n")
        else:
            self._out.write(HELP + "\n")

    def complete(self, text: str, state: int, line: str | None = None) -> str | None:
        """A completer for readline: tables, columns and words of SQL, by what is before them in `line`."""
        words = (line if line is not None else _line()).split()
        found = self._completions(text, words[0] if words else "")
        return found[state] if state < len(found) else None

    def _completions(self, text: str, first: str) -> list[str]:
        table, dot, column = text.rpartition(".")
        if text.startswith(".") and first in ("", text):
            known: Iterable[str] = _COMMANDS
        elif first == ".schema":
            known = self._columns
        elif first == ".mode":
            known = QUERIES.names
        elif dot:
            columns = self._columns.get(table, ())
            return [f"{table}.{name}" for name, _ in columns if name.startswith(column)]
        else:
            known = self._names
            if text.isupper():
                known = [*known, *(name.upper() for name in self._words)]
        return [name for name in known if name.startswith(text)]


def _line() -> str:
    """What stands in the line that is edited."""
    try:
        import readline
    except ImportError:
        return ""
    return readline.get_line_buffer()


def ask_all(queries: Queries, format: str, out: TextIO, errors: TextIO) -> int:
    """Runs the prompt on a terminal, or what standard input has. Returns the exit code."""
    prompt = Prompt(queries, format, out, errors)
    if not sys.stdin.isatty():
        prompt.run(_next_line)
        return int(prompt.failed)
    errors.write(".help explains the prompt. Tables: " + ", ".join(map(escape, prompt._columns)) + "\n")
    with _line_editing(prompt):
        prompt.run(input)
    return 0


def _next_line(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextmanager
def _line_editing(prompt: Prompt) -> Iterator[None]:
    try:
        import readline
    except ImportError:
        yield
        return
    path = _history()
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_MOST_LINES)
    readline.set_completer(prompt.complete)
    readline.set_completer_delims(" \t\n,()=<>+-*/;")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Questions name pods and files, so nobody else may read them.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(path)


def _history() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "kubectl-gadget" / "query_history"
