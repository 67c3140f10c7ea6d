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
    assert stream.getvalue() == "n1: \\x1b[31mred\nnext\n"
