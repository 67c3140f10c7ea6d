"""Installed policies that another process of the node stops or unpins: it is noticed, and they are loaded again."""

import ctypes
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import libbpf
from tests.agent.bpf.test_detached import ids, open_map
from tests.agent.guards import DENIES, RunningGuard
from tests.bpf import deeds

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]


@pytest.mark.parametrize("piece", ["state", ""])
def test_pins_that_another_process_removes_are_reported_and_made_again(running: RunningGuard, piece: str) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    (folder,) = running.pins.iterdir()
    if piece:
        (folder / piece).unlink()
    else:
        shutil.rmtree(folder)
    running.wait_until(lambda: any(str(line.get("message")).startswith("pins was stopped") for line in running.lines()))
    running.wait_until(lambda: [one.name for one in running.pins.iterdir()] not in ([], [folder.name]))
    running.wait_for(digest)
    running.kill()
    # In force again while no agent runs, since a new set is pinned.
    running.open_secret(7)
    running.start()
    assert len(running.events("secrets", 7)) == 7


def test_a_hook_without_a_link_that_is_stopped_after_a_takeover_is_loaded_again(running: RunningGuard) -> None:
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    running.kill()
    running.start()
    running.wait_until(lambda: any("is taken over" in str(line.get("message")) for line in running.lines()))
    (folder,) = running.pins.iterdir()
    if not (pins := list(folder.glob("calls_*"))):
        pytest.skip("hooks at system calls have links here")
    for pin in pins:
        fd = libbpf.load().call("bpf_obj_get", bytes(pin))
        libbpf.load().raw("bpf_map_delete_elem", fd, ctypes.byref(ctypes.c_uint32(deeds.OPENAT)))
        os.close(fd)
    running.wait_until(lambda: any("was stopped (another process has" in str(line) for line in running.lines()))
    running.wait_until(lambda: [one.name for one in running.pins.iterdir()] not in ([], [folder.name]))
    running.wait_for(digest)
    running.open_secret(7)
    assert len(running.events("secrets", 7)) == 7


@pytest.mark.parametrize("name", ["followers", ".data.interest"])
def test_a_dispatchers_table_that_is_emptied_after_a_takeover_is_detected(running: RunningGuard, name: str) -> None:
    """By its id: it is not found by the links."""
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    running.kill()
    running.start()
    running.wait_until(lambda: any("is taken over" in str(line.get("message")) for line in running.lines()))
    (folder,) = running.pins.iterdir()
    if not list(folder.glob("calls_*")):
        pytest.skip("hooks at system calls have links here, and no table")
    tables = [fd for fd, found in map(open_map, ids(running.pid, "map_id")) if found == name]
    assert tables
    key = ctypes.c_uint32(deeds.OPENAT if name == "followers" else 0)
    for fd in tables:
        libbpf.load().call("bpf_map_update_elem", fd, ctypes.byref(key), bytes(512), 0)
        os.close(fd)
    running.wait_until(lambda: any("was stopped (another process has" in str(line) for line in running.lines()))
    running.wait_until(lambda: [one.name for one in running.pins.iterdir()] not in ([], [folder.name]))
    running.wait_for(digest)
    running.open_secret(7)
    assert len(running.events("secrets", 7)) == 7


def test_the_rest_of_a_stopped_set_stays_in_force_when_it_cannot_be_loaded_again(running: RunningGuard) -> None:
    """As when the kernel has been locked down since."""
    digest = running.install(running.policy("secrets"))
    running.start()
    running.wait_for(digest)
    with zipfile.ZipFile(running.folder / "policies.zip") as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(running.folder / "new", "w") as file:
        for name, content in contents.items():
            file.writestr(name, content if name == "set.json" else b"no object")
    (running.folder / "new").rename(running.folder / "policies.zip")
    (folder,) = running.pins.iterdir()
    state = libbpf.load().call("bpf_obj_get", bytes(folder / "state"))
    (folder / "state").unlink()
    running.wait_until(lambda: "cannot be loaded again" in running.state()["problem"])
    running.open_secret(7)
    assert len(running.events("secrets", 7)) == 7
    assert running.state()["digest"] == digest
    # The message goes with the problem.
    libbpf.load().call("bpf_obj_pin", state, bytes(folder / "state"))
    os.close(state)
    running.wait_until(lambda: not running.state()["problem"])
    assert any("next attempt in 10 s" in str(line.get("message")) for line in running.lines())


def test_hooks_that_ftrace_no_longer_calls_are_reported(running: RunningGuard) -> None:
    """Who may write to the node's /proc/sys switches even security modules of BPF off."""
    denies = DENIES.format(secret=running.secret)
    digest = running.install(denies)
    running.start()
    state = running.wait_for(digest)["denies"]
    if state["state"] != "enabled":
        pytest.skip(" ".join(state["error"].split()))
    switch = Path("/proc/sys/kernel/ftrace_enabled")
    switch.write_text("0")
    try:
        running.open_secret(1)
        running.wait_until(lambda: "kernel.ftrace_enabled is 0" in running.state()["problem"])
    finally:
        switch.write_text("1")
    with pytest.raises(PermissionError):
        running.open_secret(1)
    running.wait_until(lambda: not running.state()["problem"])
