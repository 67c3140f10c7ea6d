import io

from kubectl_gadget.run.progress import Progress


def test_quiet_leaves_only_warnings() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    progress.say("one")
    progress.node("n1", "two")
    progress.warn("three")
    assert stream.getvalue() == "three\n"


def test_details_need_verbose() -> None:
    brief, verbose = io.StringIO(), io.StringIO()
    Progress(brief).detail("n1", "hook")
    Progress(verbose, verbose=True).detail("n1", "hook")
    assert (brief.getvalue(), verbose.getvalue()) == ("", "n1: hook\n")


def test_what_many_nodes_note_is_reported_once() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for node in ("n1", "n2"):
        progress.note(node, "without fexit")
    assert stream.getvalue() == "n1: without fexit\n"


def test_control_characters_from_a_node_are_escaped() -> None:
    stream = io.StringIO()
    Progress(stream).node("n1", "\x1b[31mred\nnext")
    assert stream.getvalue() == "n1: \\x1b[31mred\n    next\n"


def test_a_node_cannot_write_lines_of_its_own() -> None:
    stream = io.StringIO()
    Progress(stream).note("n1", "x\n42 events from 1 node; lost: 0\r\x85n2: \u2028 ready")
    first, *others = stream.getvalue().splitlines()
    assert first == "n1: x"
    assert others
    assert all(line.startswith("    ") for line in others)


def test_a_node_that_reports_without_end_is_cut_short_and_others_are_heard() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for number in range(1000):
        progress.note("n1", f"this is {number}")
    progress.note("n2", "a word")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 102
    assert lines[-2:] == ["n1: it reports more than 100 messages; the rest are left out", "n2: a word"]
