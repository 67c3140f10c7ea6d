"""What the command of a session declares is compared with what is really loaded: by clients that lie about it."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.agent.session.declared import check_declared
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.run.request import build, declared
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.client_messages import AnyGadget, GadgetSpec, Library, Variable
from kubectl_gadget.wire.frames import FrameType, encode
from kubectl_gadget.wire.policy_messages import InstalledSpec, PolicySpec
from kubectl_gadget.wire.session_command import NO_GADGETS, SessionCommand
from tests.agent.client import Client
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
