"""Defaults of flags from the environment and the configuration file: what wins, what is refused, and what is shown."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.cli import main, settings
from kubectl_gadget.cli.command import GadgetGroup
from kubectl_gadget.cli.flags import Flag
from kubectl_gadget.cli.root import root
from kubectl_gadget.gadgets import GadgetSummary
from kubectl_gadget.run.run_options import RunOptions

Ask = Callable[[str], RunOptions]
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        monkeypatch.setenv("KUBECTL_GADGET_CONFIG", str(path))
        return path

    return write


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main.run(words) == 2
    return capsys.readouterr().err


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    asked: Ask, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("defaults: {output: wide, color: never}\n")
    assert asked("trace open").output.format == "wide"
    monkeypatch.setenv("KUBECTL_GADGET_OUTPUT", "json")
    options = asked("trace open")
    assert (options.output.format, options.output.color) == ("json", "never")
    assert asked("trace open -o yaml").output.format == "yaml"


def test_the_entry_of_a_command_wins_over_the_defaults_of_all(
    asked: Ask, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("defaults: {sort-wait: 1s, verbose: true}\ncommands: {trace open: {sort-wait: 2s}}\n")
    assert (asked("trace open").sort_wait, asked("top file").sort_wait) == (2.0, 1.0)
    assert asked("trace open").verbose
    monkeypatch.setenv("KUBECTL_GADGET_SORT_WAIT", "3s")
    assert asked("trace open").sort_wait == 3.0


def test_columns_and_flags_of_a_gadget_have_defaults(asked: Ask, write: Write) -> None:
    write("commands:\n  trace open:\n    columns: [pid, path]\n    failed: true\n    max-depth: 0x10\n")
    options = asked("trace open")
    assert options.output.columns == ("pid", "path")
    assert options.gadgets[0].parameters == {"failed": True, "max-depth": 16}
    assert asked("trace open --no-failed --columns comm").output.columns == ("comm",)
    assert asked("trace open --no-failed").gadgets[0].parameters["failed"] is False


def test_columns_of_tables_leave_json_alone(asked: Ask, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("commands: {trace open: {columns: 'pid,path'}}\n")
    assert asked("trace open -o table").output.columns == ("pid", "path")
    assert asked("trace open -o json").output.columns == ()
    monkeypatch.setenv("KUBECTL_GADGET_OUTPUT", "json")
    assert asked("trace open").output.columns == ()


def test_what_contradicts_a_typed_flag_gives_way(asked: Ask, write: Write) -> None:
    write("defaults: {quiet: true, sort-wait: 2s, image-mirror: registry.example}\n")
    options = asked("trace open -v --no-sort --no-local --image mine:1")
    assert (options.quiet, options.verbose, options.sort) == (False, True, False)
    assert (options.agent.image, options.agent.image_mirror) == ("mine:1", None)
    assert asked("trace open --no-local").agent.image_mirror == "registry.example"


def test_defaults_for_a_cluster_are_accepted_on_one_machine(
    asked: Ask, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("defaults: {image: mine:1, agent-namespace: tools, start-timeout: 5s, image-pull-policy: Never}\n")
    assert asked("trace open --local").local
    agent = asked("trace open --no-local").agent
    assert (agent.image, agent.namespace, agent.start_timeout, agent.image_pull_policy) == (
        "mine:1",
        "tools",
        5,
        "Never",
    )
    assert "--image cannot be used" in refusal(capsys, "trace", "open", "--local", "--image", "mine:1")


def test_a_format_that_a_command_lacks_is_not_its_default(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECTL_GADGET_OUTPUT", "csv")
    assert main.run(["list"]) == 0
    assert "GADGET" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("defualts: {output: json}\n", "1:1: defualts is not known; did you mean defaults?"),
        ("defaults:\n  outptu: json\n", "2:3: --outptu is not a flag that defaults can set; did you mean output?"),
        ("defaults:\n  output: jsno\n", "2:3: output 'jsno': must be one of table"),
        ("defaults:\n  output: jsno\n", "did you mean json"),
        ("defaults:\n  quiet: yes\n", "2:3: quiet 'yes': must be true or false"),
        ("defaults:\n  quiet: [true, false]\n", "2:3: quiet takes one value, not a list"),
        ("defaults:\n  output:\n", "2:10: defaults.output is empty"),
        ("defaults:\n  output: {a: b}\n", "2:11: defaults.output must be a list, not a mapping"),
        ("defaults:\n  output: json\n  output: yaml\n", "3:3: defaults.output is set twice"),
        ("defaults: [a]\n", "1:11: defaults must be a mapping"),
        ("- a\n", "1:1: must be a mapping, not a list"),
        ("a: b: c\n", "1:5: is not valid YAML: "),
        (
            "defaults: {columns: pid}\n",
            "--columns is not a flag that defaults can set; write flags of one command",
        ),
        ("commands:\n  trace opne: {failed: true}\n", "2:3: unknown gadget 'opne'; did you mean trace open?"),
        ("commands:\n  trcae open: {failed: true}\n", "2:3: unknown command 'trcae'; did you mean trace"),
        ("commands:\n  trace: {color: never}\n", "2:3: 'trace' is a group of commands"),
        ("commands:\n  deploy now: {color: never}\n", "2:3: 'deploy now' is not the name of a command"),
        ("commands:\n  demo trace open: {failed: true}\n", "2:3: demo has no settings"),
        ("commands:\n  trace open:\n    faild: true\n", "3:5: trace open has no flag --faild; did you mean failed?"),
        ("commands:\n  trace open:\n    max-depth: x\n", "3:5: max-depth 'x': not a whole number"),
        (
            "commands:\n  trace open:\n    namespace: a\n",
            "3:5: --namespace cannot be set here: it selects what",
        ),
        ("commands:\n  trace open:\n    token: a\n", "3:5: --token cannot be set here: the kubeconfig holds it"),
        ("commands:\n  trace open:\n    filter: 'pid > 1'\n", "3:5: --filter cannot be set here"),
        ("defaults:\n  image-mirror: https://a.example\n", "2:3: image-mirror 'https://a.example': is a URL"),
    ],
)
def test_what_is_wrong_is_reported_with_its_place_and_what_was_meant(
    write: Write, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    path = write(text)
    error = refusal(capsys, "trace", "open")
    assert what in error
    assert f"{path}:" in error
    # So does the command that looks at everything, and help works all the same.
    assert main.run(["config", "check"]) == 2
    assert what in capsys.readouterr().err
    assert main.run(["trace", "open", "--help"]) == 0


def test_a_wrong_entry_of_another_command_is_found_by_check(
    asked: Ask, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("commands:\n  trace open: {faild: true}\n  top file: {intervall: 5s}\n  enforce: {action: kill}\n")
    assert main.run(["config", "check"]) == 2
    error = capsys.readouterr().err
    assert "did you mean failed?" in error
    assert "did you mean interval?" in error
    assert "--action cannot be set here: it decides about rights or enforcement" in error


def test_a_file_that_was_named_has_to_be_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: Ask
) -> None:
    monkeypatch.setenv("KUBECTL_GADGET_CONFIG", "/nonexistent/mine.yaml")
    assert "/nonexistent/mine.yaml: No such file" in refusal(capsys, "trace", "open")
    monkeypatch.setenv("KUBECTL_GADGET_CONFIG", "off")
    assert asked("trace open").output.format == "table"


def test_the_file_is_in_the_users_configuration(
    asked: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main.run(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/.config/kubectl-gadget/config.yaml\n"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    path = tmp_path / "xdg/kubectl-gadget/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults: {output: csv}\n")
    assert asked("trace open").output.format == "csv"


def test_a_wrong_value_in_the_environment_names_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: Ask
) -> None:
    monkeypatch.setenv("KUBECTL_GADGET_SORT_WAIT", "soon")
    assert "KUBECTL_GADGET_SORT_WAIT: sort-wait 'soon': not a duration" in refusal(capsys, "trace", "open")
    monkeypatch.setenv("KUBECTL_GADGET_SORT_WAIT", "")
    assert asked("trace open").sort_wait == RunOptions(()).sort_wait


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("KUBECTL_GADGET_NAMESPACE", "it selects what is traced or shown, so only the command line sets --namespace"),
        ("KUBECTL_GADGET_COLUMNS", "--columns belongs to the command; the configuration file sets it, below commands"),
        ("KUBECTL_GADGET_OUTPT", "did you mean KUBECTL_GADGET_OUTPUT?"),
        ("KUBECTL_GADGET_PORT_80_TCP", ""),
        ("KUBECTL_GADGET_HOST", ""),
    ],
)
def test_a_variable_that_sets_nothing_is_mentioned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: Ask, name: str, why: str
) -> None:
    monkeypatch.setenv(name, "1")
    asked("trace open")
    error = capsys.readouterr().err
    assert why in error
    assert bool(error) == bool(why)
    assert main.run(["config", "check"]) == (2 if why else 0)
    asked("trace open -q")
    assert name not in capsys.readouterr().err.replace("config", "") or why


def test_every_value_is_shown_with_where_it_was_set(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("defaults:\n  output: wide\n  sort-wait: 1s\ncommands:\n  trace open:\n    columns: [pid, path]\n")
    monkeypatch.setenv("KUBECTL_GADGET_OUTPUT", "json")
    assert main.run(["config", "view"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["COMMAND", "FLAG", "DEFAULT", "FROM"]
    assert ["-", "--output", "json", "env", "KUBECTL_GADGET_OUTPUT"] in lines
    assert ["-", "--sort-wait", "1s", f"{path}:3"] in lines
    assert ["-", "--ring-size", "4Mi", "flag", "default"] in lines
    assert ["-", "--agent-namespace", "kubectl-gadget", "flag", "default"] in lines
    assert ["trace", "open", "--columns", "pid,path", f"{path}:6"] in lines
    assert len(lines) == 2 + len(settings.shared_flags())


@pytest.mark.parametrize(("format", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_values_are_shown_to_programs(
    write: Write, capsys: pytest.CaptureFixture[str], format: str, load: Callable[[str], Any]
) -> None:
    path = write("defaults:\n  color: never\n")
    assert main.run(["config", "view", "trace", "open", "-o", format]) == 0
    found = load(capsys.readouterr().out)
    assert (found["file"], found["exists"]) == (str(path), True)
    by_flag = {item["flag"]: item for item in found["settings"]}
    assert by_flag["color"] == {
        "command": None,
        "flag": "color",
        "value": "never",
        "source": "file",
        "from": f"{path}:2",
    }
    assert by_flag["max-depth"]["source"] == "built-in"
    assert by_flag["max-depth"]["value"] == "8"
    assert "namespace" not in by_flag


def test_what_is_shown_is_what_is_used(asked: Ask, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "defaults: {ring-size: 1Mi, buffer-size: 8Mi, map-entries: 77, no-headers: true, strict: true, output: csv}\n"
    )
    options = asked("trace open")
    used = (options.ring_bytes, options.buffer_bytes, options.map_entries, options.output.no_headers, options.strict)
    assert used == (1 << 20, 8 << 20, 77, True, True)


def test_help_shows_the_default_that_holds(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("commands: {trace open: {max-depth: 3}}\n")
    monkeypatch.setenv("KUBECTL_GADGET_SORT_WAIT", "1s")
    assert main.run(["trace", "open", "--help"]) == 0
    text = "".join(capsys.readouterr().out.split())
    assert f"Howdeep(default:3,from{path}:1)" in text
    assert "(default:8)" not in text
    assert main.run(["options"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 1s, from env KUBECTL_GADGET_SORT_WAIT)" in text


def all_flags(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Flag]]:
    if not isinstance(command, GadgetGroup):
        yield from ((" ".join(path), flag) for flag in command.flags)
        return
    for name in command.entries if path not in (("demo",), ("replay",)) else ():
        yield from all_flags(command.find(name), (*path, name))


def test_no_setting_chooses_what_is_examined_or_what_is_done(built_in: list[GadgetSummary]) -> None:
    words = {"yes", "action", "force", "all", "enforce", "enforcing", "allow", "privileged", "contained", "delete"}
    words |= {"namespace", "selector", "node", "container", "pid", "context", "token", "as", "filter", "dry", "own"}
    found = list(all_flags(root()))
    assert len(found) > 1000
    settable = {(command, flag.key) for command, flag in found if not flag.typed_only}
    shown = {
        ("top file", "all"),
        ("trace tcpdrop", "all"),
        ("trace ssl", "all-calls"),
        ("trace fsslower", "all-files"),
    }  # rows, not targets
    for command, key in settable - shown:
        if key != "agent-namespace":
            assert not words & set(key.split("-")), (command, key)
    assert ("trace open", "columns") in settable
    for name in ("image", "output", "color", "agent_namespace"):
        assert not settings.shared_flags()[name].typed_only


def test_no_two_commands_share_a_default_under_different_names(built_in: list[GadgetSummary]) -> None:
    by_name = {flag.name: flag.key for flag in settings.shared_flags().values()}
    for command, flag in all_flags(root()):
        if flag.in_set and flag.name in by_name:
            assert flag.key == by_name[flag.name], command


@pytest.mark.usefixtures("catalogue_built")
def test_yaml_is_not_imported_where_there_is_no_file(asked: Ask) -> None:
    code = (
        "import sys; from kubectl_gadget.cli import main, complete\n"
        "main.run(['trace', 'open', '--help']); main.run(['list'])\n"
        "complete.complete(['trace', 'open', '--o'])\n"
        "assert 'yaml' not in sys.modules and 'kubectl_gadget.cli.settings_file' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_example_in_the_documentation_is_right(
    built_in: list[GadgetSummary], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "config.yaml"
    path.write_text(example)
    monkeypatch.setenv("KUBECTL_GADGET_CONFIG", str(path))
    assert main.run(["config", "check"]) == 0, capsys.readouterr().err
    for flag in settings.shared_flags().values():
        assert f"`{settings.variable(flag)}`" in text
