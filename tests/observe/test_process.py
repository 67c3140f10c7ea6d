"""How programs and their arguments are shown."""

import pytest

from kubectl_gadget.observe.printing.lines import command_text
from kubectl_gadget.observe.process import join_arguments, program_of
from tests.observe.lives import SHELL, Life, event, executed


def test_a_program_is_named_as_it_was_called_since_one_file_may_be_many() -> None:
    assert program_of(executed(SHELL, "/usr/bin/vi", "x", exe="/bin/busybox")) == ("/usr/bin/vi", ("x",))


@pytest.mark.parametrize(("path", "program"), [("./vi", "/home/vi"), ("bin/vi", "/home/bin/vi")])
def test_a_relative_path_starts_at_the_working_directory(path: str, program: str) -> None:
    assert program_of(executed(SHELL, "vi", path=path, exe="/bin/busybox", cwd="/home")) == (program, ())


@pytest.mark.parametrize("path", ["/dev/fd/3", "/proc/self/exe", "../vi", None])
def test_where_the_name_says_nothing_for_certain_the_file_is_reported_and_the_programs_own_name_stays(
    path: str | None,
) -> None:
    happened = executed(SHELL, "wget", "-q", path=path, exe="/bin/busybox", cwd="/home")
    assert program_of(happened) == ("/bin/busybox", ("wget", "-q"))


def test_a_script_is_its_interpreter() -> None:
    happened = executed(SHELL, "/bin/sh", "-e", "/run.sh", "x", path="/run.sh", exe="/usr/bin/dash", interpreted=True)
    assert program_of(happened) == ("/bin/sh", ("-e", "/run.sh", "x"))


def test_what_was_there_before_is_known_by_its_file_and_its_own_name() -> None:
    running = event("running", SHELL, exe="/bin/busybox", args=("sh", "-c", "true"))
    assert program_of(running) == ("/bin/busybox", ("sh", "-c", "true"))
    assert program_of(event("running", SHELL, exe="/bin/sh", args=("sh", "-c"))) == ("/bin/sh", ("-c",))


def test_arguments_stand_in_quotes_where_they_need_them() -> None:
    assert join_arguments(("a", "b c", "", "d\te")) == 'a "b c" "" "d\te"'


def test_arguments_that_were_cut_say_so() -> None:
    process = Life().told(executed(SHELL, "/bin/x", "a", args_cut=True)).process
    assert (process.arguments, command_text(process)) == ("a…", "/bin/x a…")
