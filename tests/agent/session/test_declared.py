"""What the command of a session declares is compared with what is really loaded: by clients that lie about it."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import UNWANTED, UNWANTED_HOST, WANTED, ContainerSelection
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.session import declared as declared_module
from kubectl_gadget.agent.session.declared import Catalogue, check_declared, take_place
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.gadgets.contained_gadgets import LEFT_OUT
from kubectl_gadget.run.request import build, declared
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec, Library, Run, Variable
from kubectl_gadget.wire.frames import FrameType, encode
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec
from kubectl_gadget.wire.session_command import NO_GADGETS, SessionCommand
from tests.agent.client import Client
from tests.gadget_run import PROJECT
from tests.messages import filter_spec, gadget_spec
from tests.wire.test_session_command import compiled

MACHINE = os.uname().machine
KILLS = 'SEC("kprobe") int second(void *context) { return dry_run ? 0 : bpf_send_signal(9); }'
NO_POLICIES = PolicySpec.from_json({"name": "policy", "kind": "policy", "scopes": [], "hooks": []})


def built(name: str, **parameters: Any) -> tuple[GadgetSpec, bytes]:
    run = GadgetRun(gadgets.load_gadget(name), parameters)
    (spec,) = build([run], [{}], 4 << 20).gadgets
    assert isinstance(spec, GadgetSpec)
    return spec, gadgets.object_bytes(name, MACHINE)


def check(spec: AnyGadget, elf: bytes, *, name: str = "", enforces: bool = False) -> None:
    check_declared(SessionCommand((name or spec.name,), enforces), [spec], [elf], in_pod=True)


def refused(spec: AnyGadget, elf: bytes, why: str, **declared: Any) -> None:
    with pytest.raises(AgentError, match=why):
        check(spec, elf, **declared)


def test_run_has_to_be_what_the_command_declared(catalogue_built: Path) -> None:
    spec, elf = built("trace_open")
    check(spec, elf)
    check_declared(SessionCommand(), [spec], [elf], in_pod=False)
    for command, asked in (
        (SessionCommand(), spec),
        (NO_GADGETS, spec),
        (SessionCommand(("trace_exec",)), spec),
        (SessionCommand(("trace_open", "trace_exec")), spec),
        (SessionCommand(("trace_open",)), spec.replace(own=True)),
    ):
        with pytest.raises(AgentError):
            check_declared(command, [asked], [elf], in_pod=True)
    with pytest.raises(FrameError, match="names the object 0, but 0 were sent"):
        check_declared(SessionCommand(("trace_open",)), [spec], [], in_pod=True)


def test_each_gadget_passes_as_the_client_declares_it(catalogue_built: Path) -> None:
    for summary in gadgets.load_index():
        parameters = {"function": "libc:getpid"} if summary.name == "profile_functions" else {}
        spec, elf = built(summary.name, **parameters)
        command = declared(RunOptions(gadgets=(GadgetRun(gadgets.load_gadget(summary.name), parameters),)), None)
        assert command.enforces == (summary.name == "network_policy")
        check_declared(command, [spec], [elf], in_pod=True)


def test_a_name_belongs_to_its_object(tmp_path: Path, catalogue_built: Path) -> None:
    spec, elf = built("trace_open")
    why = "another program under the name"
    own = compiled(tmp_path, KILLS)
    for enforces in (False, True):
        refused(spec, own, why, enforces=enforces)
        refused(spec, elf[:-1] + b"\1", why, enforces=enforces)
        refused(spec, gadgets.object_bytes("policy", MACHINE), why, enforces=enforces)
        refused(spec.replace(name="policy"), gadgets.object_bytes("policy", MACHINE), why, enforces=enforces)
        refused(NO_POLICIES.replace(name="trace_open"), elf, why, enforces=enforces)
        refused(NO_POLICIES, own, why, enforces=enforces)
        refused(InstalledSpec(name="trace_open", kind="installed"), b"", why, enforces=enforces)
    check(NO_POLICIES, gadgets.object_bytes("policy", MACHINE))
    check(InstalledSpec(name="installed", kind="installed"), b"")


def test_dry_run_counts_only_where_the_object_really_has_it(catalogue_built: Path) -> None:
    spec, elf = built("network_policy", **{"dry-run": True})
    check(spec, elf)
    why = "would enforce"
    places = dict(spec.globals)
    at = places["dry_run"]
    other = next(name for name in places if name != "dry_run")
    without = {name: place for name, place in places.items() if name != "dry_run"}
    parameters = dict(spec.parameters)
    for changed in (
        {"globals": without, "parameters": {}},
        {"globals": places | {"dry_run": Variable(offset=at.offset + 1, size=1)}},
        {"globals": places | {"dry_run": places[other]}},
        # Another parameter is written to the same place, after it.
        {"globals": places | {"z": at}, "parameters": parameters | {"z": 0}},
        {"globals": places | {other: at}},
        {"parameters": parameters | {"dry_run": 0}},
        {"parameters": parameters | {"dry_run": "\0"}},
        {"parameters": {}},
    ):
        refused(spec.replace(**changed), elf, why)
        check(spec.replace(**changed), elf, enforces=True)


def test_a_users_own_object_enforces_when_it_could(tmp_path: Path) -> None:
    kills, observes = compiled(tmp_path, KILLS), compiled(tmp_path, "")
    spec = GadgetSpec(
        name="mine", object=0, own=True, globals={"dry_run": Variable(offset=0, size=1)}, parameters={"dry_run": True}
    )
    refused(spec, kills, "mine would enforce", name="own:mine")
    refused(spec.replace(globals={}, parameters={}), kills, "mine would enforce", name="own:mine")
    check(spec, kills, name="own:mine", enforces=True)
    check(spec, observes, name="own:mine")
    # As a probe in a file, any program may set registers.
    library = Library(files=("libc.so.6",), functions={"malloc": ("first",)})
    refused(spec.replace(libraries=(library,)), observes, "mine would enforce", name="own:mine")


def test_the_client_declares_what_a_users_own_object_could_do(tmp_path: Path) -> None:
    gadget = gadgets.load_gadget("trace_open")
    for code, enforces in (("", False), (KILLS, True)):
        for machine in ("aarch64", "x86_64"):
            (tmp_path / "objects" / machine).mkdir(parents=True, exist_ok=True)
        # On one architecture only.
        (tmp_path / "objects" / "x86_64" / "trace_open.bpf.o").write_bytes(compiled(tmp_path, ""))
        (tmp_path / "objects" / "aarch64" / "trace_open.bpf.o").write_bytes(compiled(tmp_path, code))
        command = declared(RunOptions(gadgets=(GadgetRun(gadget, {}, directory=tmp_path),)), None)
        assert command.words() == ("session", "--gadgets=own:trace_open", *(["--enforces"] if enforces else []))


@pytest.mark.bpf
def test_a_session_does_not_load_what_was_not_declared(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "kubectl_gadget.agent", "session", "--gadgets=own:mine")
    with Client(command=command) as client:
        client.wait_for(FrameType.HELLO)
        client.send_bytes(encode(FrameType.OBJECT, compiled(tmp_path, KILLS)))
        gadget = GadgetSpec(name="mine", object=0, own=True).to_json()
        client.send(FrameType.RUN, {"gadgets": [gadget], "filter": {"host": True}})
        end = client.finish()
    assert end["error"]["what"] == "mine would enforce, but the command does not declare --enforces"


# Contained sessions accept what the client asks of built-in gadgets, and nothing else.


NAMES = [summary.name for summary in gadgets.load_index()]
RUNNABLE = [name for name in NAMES if name not in LEFT_OUT]


def asked(name: str, **parameters: Any) -> tuple[dict[str, Any], bytes]:
    """What the client asks of a gadget, as it comes out of JSON, and its object."""
    run = GadgetRun(gadgets.load_gadget(name), parameters)
    request = build([run], [{}], 4 << 20)
    return json.loads(json.dumps(request.gadgets[0].to_json())), request.object_bytes(0, MACHINE)


def checked(spec: dict[str, Any], elf: bytes, namespace: str | None = None) -> GadgetSpec:
    """As a session does it, which reads RUN and knows no members but those of docs/protocol.md."""
    command = SessionCommand((spec["name"],), contained=True, namespace=namespace)
    known = Catalogue(command)
    known.check_object(elf, 0)
    (asked_for,) = Run.from_json({"gadgets": [spec]}, strict=True).gadgets
    return known.checked(asked_for, [elf])


@pytest.mark.parametrize("name", RUNNABLE)
def test_what_the_client_requests_is_accepted_unchanged(name: str, catalogue_built: Path) -> None:
    spec, elf = asked(name)
    found = checked(spec, elf)
    assert found == gadget_spec(spec)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("trace_open", {"path": "/etc", "failed": True, "pid": 7, "comm": "sh"}),
        ("trace_syscalls", {"syscalls": "openat,read"}),
        ("trace_tcp", {"address": "10.0.0.1", "port": 80}),
        ("trace_fileuse", {"path": "/etc/passwd"}),
        ("tcpdump", {"pcap": "port 53"}),
        ("traceloop", {"on": "crash,exit", "last": 10}),
        ("profile_cpu", {"frequency": 99}),
        ("trace_dns", {"port": 5353}),
    ],
)
def test_parameters_of_every_type_pass(name: str, parameters: dict[str, Any], catalogue_built: Path) -> None:
    spec, elf = asked(name, **parameters)
    assert checked(spec, elf).parameters == gadget_spec(spec).parameters


def test_what_does_more_than_observe_is_left_out(catalogue_built: Path) -> None:
    for name in (*LEFT_OUT, "policy", "installed", "unknown"):
        with pytest.raises(AgentError, match="contained agents do not run"):
            Catalogue(SessionCommand((name,), contained=True)).entry(name)


def spoil(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(spec)
    *above, last = path.split("/")
    place: Any = found
    for key in above:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # Offsets decide which of the object's constants a parameter overwrites.
        ("globals/filter_path/offset", 0),
        ("globals/filter_path/size", 4096),
        ("globals/more", {"offset": 0, "size": 8}),
        ("globals", {}),
        # What the agent sets itself decides whose events are sent.
        ("parameters/gadget_node_named_only", 0),
        ("parameters/gadget_node_cgroup", 1),
        ("parameters/gadget_zeros", {"hex": "00"}),
        ("parameters/filter_path", {"hex": "00"}),
        ("parameters/gadget_filter_pid", "1"),
        ("parameters/gadget_filter_pid", True),
        ("parameters", [["gadget_filter_pid", 1]]),
        ("programs/0/any_of", [["open_ends"]]),
        ("programs", [{}]),
        ("kind", "policy"),
        ("kind", "snapshot"),
        ("libraries", [{"files": ["libssl.so"], "functions": {"SSL_write": ["open_ends"]}}]),
        ("named", True),
        ("sampler", "mounts"),
        ("hooks", []),
        ("requests", {}),
        ("own", True),
        ("object", 1),
        ("object", -1),
        ("ring_bytes", 1 << 30),
        ("ring_bytes", True),
        ("map_entries", 0),
        ("map_entries", 1 << 30),
        ("recorder", {}),
        ("stack_offsets", "yes"),
        ("new_member", 1),
    ],
)
def test_everything_else_is_refused(path: str, value: Any, catalogue_built: Path) -> None:
    spec, elf = asked("trace_open", path="/etc", pid=1)
    checked(spec, elf)
    with pytest.raises((AgentError, FrameError)):
        checked(spoil(spec, path, value), elf)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("trace_ssl", "libraries/0/files", ["libc.so"]),
        ("trace_ssl", "libraries/0/functions", {"0x10": ["write_begins"]}),
        ("snapshot_mounts", "sampler", "bpf_programs"),
        ("snapshot_mounts", "layout/size", 1 << 20),
        ("top_file", "record_bytes", 1 << 20),
        ("top_file", "interval_ms", 1),
        ("traceloop", "recorder/offset", 0),
        ("traceloop", "recorder/bytes", 1 << 40),
        ("traceloop", "recorder/more", 1),
        ("profile_cpu", "parameters/gadget_frequency", 10_000),
        # All packets of that port would be sent whole.
        ("trace_dns", "parameters/filter_port", 443),
        ("trace_dns", "parameters/filter_port", 0),
    ],
)
def test_members_that_a_user_may_not_choose_are_refused(
    name: str, path: str, value: Any, catalogue_built: Path
) -> None:
    spec, elf = asked(name)
    with pytest.raises((AgentError, FrameError)):
        checked(spoil(spec, path, value), elf)


def test_an_object_is_that_of_its_gadget_byte_for_byte(catalogue_built: Path) -> None:
    spec, elf = asked("trace_open")
    _, other = asked("trace_exec")
    known = Catalogue(SessionCommand(("trace_open", "trace_exec"), contained=True))
    known.check_object(elf, 0)
    with pytest.raises(AgentError, match="belongs to another gadget"):
        known.checked(gadget_spec(spec), [other])
    with pytest.raises(AgentError, match="only the objects of their own catalogue"):
        known.check_object(elf[:-1] + b"\x01", 0)
    with pytest.raises(AgentError, match="only the objects of their own catalogue"):
        known.check_object(asked("trace_tcp")[1], 0)  # of the catalogue, but not declared
    with pytest.raises(AgentError, match="only the objects of their own catalogue"):
        known.check_object(elf, 2)  # one more than was declared


def test_a_session_for_one_namespace_runs_nothing_about_whole_nodes(catalogue_built: Path) -> None:
    spec, elf = asked("top_bpf")
    assert checked(spec, elf)
    with pytest.raises(AgentError, match="shows whole nodes"):
        checked(spec, elf, "shop")


def test_only_gadgets_that_check_each_event_run_in_a_session_for_one_namespace(catalogue_built: Path) -> None:
    known = Catalogue(SessionCommand((), contained=True, namespace="shop"))
    for name in RUNNABLE:
        gadget = gadgets.load_gadget(name)
        asks = "gadget_node_named_only" in gadget.agent.globals or gadget.agent.sampler in ("mounts", "resolvers")
        if gadget.whole_nodes or not asks:
            with pytest.raises(AgentError, match="shows whole nodes"):
                known.entry(name)
        else:
            assert known.entry(name)
    assert [name for name in RUNNABLE if gadgets.load_gadget(name).whole_nodes] == ["top_bpf"]


def test_a_gadget_without_any_of_its_programs_is_refused(catalogue_built: Path) -> None:
    spec, elf = asked("trace_open")
    with pytest.raises(AgentError, match="none of its programs"):
        checked(spec | {"programs": []}, elf)


def container(namespace: str, kind: str = "container") -> ContainerIdentity:
    return ContainerIdentity("0" * 64, 1, namespace, "pod", "uid", "main", "image", "containerd", kind)


@pytest.mark.parametrize(
    "asked_for",
    [
        {},
        {"host": True},
        {"namespaces": None, "host": True},
        {"namespaces": ["other"]},
        {"namespaces": ["shop", "other"]},
        {"namespaces": []},
    ],
)
def test_no_filter_reaches_beyond_the_only_namespace(asked_for: dict[str, Any]) -> None:
    filter = ContainerSelection(filter_spec(asked_for), only="shop")
    assert filter.host == UNWANTED_HOST
    assert filter.verdict(container("other")) == UNWANTED
    assert filter.verdict(container("")) == UNWANTED
    names = asked_for.get("namespaces")
    assert (filter.verdict(container("shop")) == WANTED) is (names is None or "shop" in names)


def test_contained_sessions_at_once_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "FOLDER", str(tmp_path))
    monkeypatch.setattr(declared_module, "SESSIONS", 2)
    held = [take_place(), take_place()]
    with pytest.raises(AgentError, match="2 contained sessions already run"):
        take_place()
    os.close(held.pop())
    held.append(take_place())
    for fd in held:
        os.close(fd)


@pytest.mark.parametrize(
    "words",
    [
        ["session"],
        ["session", "--gadgets=trace_open"],
        ["session", "--gadgets=policy", "--enforces"],
        ["bcc"],
        ["policies", "/policies"],
        ["release"],
        [],
    ],
)
def test_a_contained_agent_does_nothing_else(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_gadget.agent", *words],
        cwd=PROJECT,
        env=os.environ | {"KUBECTL_GADGET_CONTAINED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "this agent is contained" in done.stderr
