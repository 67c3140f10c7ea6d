"""Debian's kernel 6.12, whatever kernel this machine runs: repeats the tests whose outcome depends on the kernel; and
Debian 12's kernel 6.1: tests whether its verifier accepts every program.

A test takes seconds there, most of them in the verifier, so tests of sessions and containers, and tests that are the
same on any kernel (repeated.py), are left out.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.agent.burners import COMPILED
from tests.agent.conftest import compiled_objects
from tests.conftest import why_no_bpf
from tests.vm import kernels, machine
from tests.vm.repeated import repeated
from tests.vm.results import results

SECONDS = 4000
"""Far more than needed, for slow machines."""

PARTS = {
    "policies": "tests/bpf/test_policy*.py tests/bpf/test_builtin_policies.py tests/bpf/test_verifier.py"
    " tests/agent/installed/test_guard.py::test_what_is_denied_stays_denied_while_no_agent_runs"
    " tests/agent/installed/test_guard.py::test_what_processes_had_at_their_exec_is_kept_while_no_agent_runs"
    " tests/agent/installed/test_guard.py::test_release_ends_the_process_and_leaves_nothing_pinned"
    " tests/agent/installed/test_stopped_sets.py::test_hooks_that_ftrace_no_longer_calls_are_reported"
    " tests/observe/test_enforce_here.py::test_what_is_denied_says_so_and_ctrl_c_ends_it"
    " tests/observe/test_enforce_here.py::test_a_policy_from_a_baseline_denies_other_programs_and_writes",
    "all else": " ".join(repeated(everything=why_no_bpf() is not None))
    + " --deselect=tests/bpf/test_single_file.py::test_a_ --deselect=tests/bpf/test_single_file.py::test_lines_"
    " tests/agent/sources/test_gadget_programs.py tests/agent/bpf/test_ring.py tests/agent/kernel/test_features.py"
    " tests/agent/bpf/test_detached.py tests/agent/bpf/test_kernel_types.py tests/observe/test_builtin_policies_here.py"
    " tests/observe/test_evasions_here.py",
}
"""The tests are split over two machines, since a virtual machine gains little from a second processor. The shorter part
is first: pytest-xdist gives the process that runs it the third machine as well, and the other one what comes next."""

PROGRAMS = " ".join(
    f"tests/bpf/test_{name}"
    for name in (
        *("verifier.py", "policy.py", "policy_hash.py", "policy_loader.py", "policy_types.py", "policy_whole.py"),
        "builtin_policies.py::test_no_program_takes_the_verifier_long",
        "policy_calls.py::test_what_a_call_of_32_bit_programs_returned_is_reported",
        "policy_calls.py::test_a_hook_at_a_call_of_32_bit_programs_reads_its_arguments",
        "policy_follow.py::test_one_id_from_open_to_the_last_close_in_all_processes",
        "policy_probes.py::test_each_call_of_a_function_is_seen_with_its_arguments",
        "policy_probes.py::test_a_return_is_seen_with_its_value_and_what_the_call_was_given",
        "policy_probes.py::test_a_static_probe_is_switched_on_and_its_arguments_are_those_of_its_note",
        "policy_set.py::test_an_argument_in_memory_is_overwritten_before_the_program_reads_it_again",
        "policy_sockets.py::test_a_connection_that_was_handed_on_stays_its_makers_until_it_is_untracked",
    )
)
"""All programs once, and from the policy engine each way to a hook and each feature that changes its program."""

_SAME_ANYWHERE = """
# Linux 6.1, whose verifier looks at more, loads each gadget so; Linux 6.12 loads each without these filters.
bpf/test_verifier.py all_programs_load
# What a program compares values with, and what it reads of a process, are the same instructions at each hook. Linux 6.1
# runs all of test_policy.py.
bpf/test_policy.py a_file_is_known a_file_that_is_mounted a_hundred a_namespace a_program_that a_rate_limit
bpf/test_policy.py capabilities descendants name_cred namespaces programs_are texts_are the_first the_selector
bpf/test_policy.py what_a_followed what_enforcers
bpf/test_policy_model.py connections numbers texts
bpf/test_policy_accepted.py a_number_is registers
bpf/test_policy_calls.py lists_of_calls names what_a_call
bpf/test_policy_types.py an_argument data filters members several what_bpf_is
bpf/test_policy_whole.py buffers filters without_it
# A kernel copies an argument after the hook at the beginning of a call.
bpf/test_policy_races.py a_hook_at_the_beginning
# Files are followed by system calls, and by one tracepoint.
bpf/test_policy_follow.py a_descriptor a_file_is_forgotten a_file_that_is what_is_not
# Which file of a container is probed, where in it, and the types in a program's own file.
bpf/test_policy_probes.py a_file_that a_function_ a_static_probes_arguments an_argument_that arguments_of
bpf/test_policy_probes.py containers_of each_call only_the_file the_file_is who
bpf/test_policy_btf.py members_of what_the_file without_a_file
# The kernels in machines refuse to change a program's registers, which the first of these tests finds out.
bpf/test_policy_override.py an_argument another_function where_the_other
# What an agent requests by HTTP and DNS.
bpf/test_policy_requests.py a_flood a_name_is a_server nothing_is
# Calls of 32-bit programs differ by their numbers and by where the kernel keeps arguments. What a program then reads is
# in the caller's memory.
bpf/test_compat_calls.py a_descriptor bind_and_connect failed_executions file_sees fileuse_sees privilege
bpf/test_compat_calls.py profile_syscall top_file top_syscalls
bpf/test_aio.py fileuse_sees top_file what_is_beyond
# The verdicts on cgroups are entries of one map.
bpf/test_filters.py a_cgroup_of_the_host an_unwanted events_of_an_unreported the_verdict
# Filters, texts and what is new to `--unique` are the same instructions at each hook of opens, executions and calls.
bpf/test_trace_open.py a_file_that a_link_that a_path_filter a_path_that a_program_that a_record_takes a_renamed
bpf/test_trace_open.py an_empty comm_drops creat_has errno_drops flags_with path_drops pid_drops the_longest uid_drops
bpf/test_trace_open.py unique_shows_every what_a_full what_is_left what_lies what_path
bpf/test_trace_open_rewritten.py other_prefixes the_prefix_of_a_deep_path_matches[40]
bpf/test_trace_exec.py a_byte a_failed_exec_says_what_was_missing_or_wrong[content a_huge a_long arguments_that comm_is
bpf/test_trace_exec.py many_arguments the_user
bpf/test_trace_file.py a_path_that attributes_removed chattr holes modes new_times only_what the_old_forms_of
# Packets are parsed by the same instructions, whatever kind of socket sent them; one of each kind runs.
bpf/test_packet_sockets.py datagrams_of_a_raw_socket_with_headers_of_its_own_are_a_flow[6]
bpf/test_packet_sockets.py datagrams_of_a_raw_socket_with_headers_of_its_own_are_a_flow[17]
bpf/test_packet_sockets.py datagrams_of_a_raw_socket_with_headers_of_its_own_are_a_flow[253]
bpf/test_packet_sockets.py each_packet_is_counted_with_its_process_and_so_is_each_answer[bypassing-v6]
bpf/test_packet_sockets.py each_packet_is_counted_with_its_process_and_so_is_each_answer[ring-v6]
bpf/test_packet_sockets.py such_sockets
bpf/test_trace_dns.py a_large a_name_that asking_again bytes_that
bpf/test_trace_dns.py over_tcp_messages_are_put_together_from_their_segments[1]
bpf/test_trace_dns.py over_tcp_messages_are_put_together_from_their_segments[7]
# Shares of maps are counted by the same instructions, and processors that race need more than one that is emulated.
bpf/test_map_shares.py an_entry_that calls_of_others
bpf/test_socket_owners.py a_container_with_many other_filters sockets_beyond the_name
# The part `policies` loads all hooks of trace lsm.
bpf/test_trace_lsm.py all_hooks
# Types of one gadget with tracing programs and of one without differ by kernel.
agent/bpf/test_kernel_types.py relocated_programs_are_the_same[policy]
agent/bpf/test_kernel_types.py relocated_programs_are_the_same[trace_open]
# Opens of io_uring whose results are not known yet are kept in a map of ours, and this machine's kernel, too, chooses
# direct descriptors.
bpf/test_trace_open_io_uring.py a_direct_descriptor_has_a_resolved_path_and_no_number[any] more_opens
# What an agent says of objects and parameters before a kernel has seen them.
agent/sources/test_gadget_programs.py a_set_of bytes_that the_alternatives two_gadgets impossible_requests
# Links and maps that another process changes: each kind of change once.
agent/bpf/test_detached.py a_link_that_gets an_emptied_table
"""
SAME_ANYWHERE = [
    f"tests/{file}::test_{name}"
    for file, *names in map(str.split, _SAME_ANYWHERE.strip().splitlines())
    if file != "#"
    for name in names
]
"""Prefixes of tests that have the same outcome on any kernel that passes the others, and run on this machine's."""
WITHOUT = "" if why_no_bpf() else " ".join(f"--deselect={name}" for name in SAME_ANYWHERE)

OPTIONS = (
    "-q -m bpf --reruns 1 --rerun-except pytest-timeout -p no:cacheprovider --junitxml=/tmp/results.xml"
    " --hypothesis-profile='virtual machine'"
)


class Machine(NamedTuple):
    """A virtual machine, and the tests that run in it."""

    tests: str
    suite: str = "trixie"
    release: str = "6.12."


MACHINES = {name: Machine(f"{WITHOUT} {tests}") for name, tests in PARTS.items()}
MACHINES["programs"] = Machine(PROGRAMS, "bookworm", "6.1.")
"""Last because it is the shortest: it starts when the first has ended."""


def script(tests: str) -> str:
    return f"""
uname -r >/dev/ttyS1
{"export CI=true" if os.environ.get("CI") else ""}
export {COMPILED}={compiled_objects()}
{sys.executable} -m pytest {OPTIONS} {tests}
cat /tmp/results.xml >/dev/ttyS1
dmesg | grep -a "segfault at"
"""


@pytest.mark.vm
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.flaky(reruns=0)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", MACHINES)
def test_the_bpf_tests_pass_on_debians_kernel(part: str, record_property: Callable[[str, object], None]) -> None:
    wanted = MACHINES[part]
    try:
        run = machine.run(script(wanted.tests), SECONDS, kernels.kernel(wanted.suite))
    except machine.NoMachineError as reason:
        pytest.skip(str(reason))
    release, _, xml = run.result.partition("\n")
    assert release.startswith(wanted.release), run.console
    assert xml, f"pytest ended without results in the virtual machine:\n{run.console}"
    (machine.CACHE / f"results-{part.replace(' ', '-')}.xml").write_text(xml)
    count = results(xml, f"Linux {release}, {part}", record_property)
    assert count["failures"] == count["errors"] == 0, run.console
    assert count["tests"] > count["skipped"], "no test ran in the virtual machine:\n" + run.console
