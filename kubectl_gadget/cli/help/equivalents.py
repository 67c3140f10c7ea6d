"""Our equivalents for commands and flags of other tools: bcc, kubectl, strace, tcpdump.

The trap: this is used only for names that do not exist here, so it must contain none of our names; a test checks this.
"""

COMMANDS = {
    # bcc, bpftrace
    "opensnoop": "trace open",
    "statsnoop": "trace file",
    "filelife": "trace file",
    "execsnoop": "trace exec",
    "exitsnoop": "trace exit",
    "killsnoop": "trace signal",
    "mountsnoop": "trace mount",
    "bindsnoop": "trace bind",
    "capable": "trace capabilities",
    "tcpconnect": "trace tcp --connect",
    "tcpaccept": "trace tcp --accept",
    "tcplife": "trace tcp --close",
    "tcptracer": "trace tcp",
    "tcptop": "top tcp",
    "udpconnect": "trace udp",
    "gethostlatency": "trace dns",
    "sslsniff": "trace ssl",
    "ttysnoop": "trace tty",
    "memleak": "trace malloc",
    "filetop": "top file",
    "biotop": "top blockio",
    "biosnoop": "top blockio",
    "biolatency": "profile blockio",
    "fileslower": "trace fsslower",
    "ext4slower": "trace fsslower",
    "xfsslower": "trace fsslower",
    "ext4dist": "profile fs",
    "xfsdist": "profile fs",
    "offcputime": "profile offcpu",
    "cpudist": "profile runqlat",
    "funclatency": "profile functions FILE:SYMBOL",
    "funccount": "profile functions FILE:SYMBOL",
    "syscount": "top syscalls",
    "bpftool": "top bpf",
    # tools for one machine
    "strace": "trace syscalls",
    "ltrace": "profile functions FILE:SYMBOL",
    "perf": "profile cpu",
    "htop": "top process",
    "iotop": "top blockio",
    "ps": "snapshot process",
    "lsof": "snapshot file",
    "ss": "snapshot socket",
    "netstat": "snapshot socket",
    "auditd": "observe",
    # kubectl
    "logs": "observe POD, for what a pod does; what it prints: kubectl logs POD",
    "attach": "trace tty, for terminals; to attach: kubectl attach POD",
    "debug": "observe POD, for what a pod does; a shell beside it: kubectl debug POD",
    "get": "list, for gadgets; snapshot process, for what runs in pods",
    "describe": "observe POD, for what a pod does; status, for the nodes",
    "events": "observe",
    "watch": "observe",
    "install": "deploy",
    "uninstall": "undeploy",
}
"""The words after `kubectl gadget`, by the other tool's name."""

WATCH = ("-w", "--watch", "-f", "--follow")
"""Flags that make other commands run on; gadget commands do so anyway."""
FLAGS = {
    ("tcpdump", "-w"): "-o pcap-ng > FILE",
    ("tcpdump", "-c"): "--max-events N",
    ("tcpdump", "-i"): "without -i: packets of all interfaces of the chosen pods are captured",
    ("version", "--short"): "--client",
    ("", "--json"): "-o json",
    ("", "--tail"): "--max-events N",
    ("", "--since"): "without --since: what happened before is known to traceloop alone",
}
"""The replacement for a flag of a command; an empty command means any."""


def instead_of_flag(command: str, flag: str, goes_on: bool) -> str | None:
    """The advice for a command's unknown flag; None if no other tool has it. `goes_on`: the command runs until it is
    stopped."""
    if found := FLAGS.get((command, flag)) or FLAGS.get(("", flag)):
        return found
    if flag not in WATCH:
        return None
    if goes_on:
        return f"without {flag}: it goes on until Ctrl-C, or for --timeout 30s"
    return "kubectl gadget trace open, which goes on until Ctrl-C" if command == "kubectl gadget" else None
