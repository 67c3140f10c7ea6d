"""The commands in README.md and docs/install.md: what runs each of them, or why nothing here can."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt

from tests.gadget_run import PROJECT

PAGES = ("README.md", "docs/install.md")
_PROGRAMS = ("apt-get", "export", "kubectl", "ln", "make", "pip", "pipx", "sudo", "tar", ".venv/bin/kubectl-gadget")
_COMMENT = re.compile(r"(?:^|\s+)# .*$")

DEMO = (
    "make demo",
    "sudo kubectl gadget demo diagnose",
    ".venv/bin/kubectl-gadget demo flows",
    ".venv/bin/kubectl-gadget demo trace http",
    ".venv/bin/kubectl-gadget demo advise networkpolicy",
    ".venv/bin/kubectl-gadget demo enforce --network-policy",
)
"""Run on this machine, for a few seconds if they would go on until Ctrl-C."""
CLUSTER = (
    "kubectl gadget trace open -n default",
    "kubectl gadget trace open -A",
    "kubectl gadget trace exec+tcp+dns -A",
    "kubectl gadget diagnose",
    "kubectl gadget flows -A --web",
    "kubectl gadget observe xwing --tree --timeout 30s",
    "kubectl gadget top pod -A",
    "kubectl gadget status --images",
    "kubectl gadget trace open -A --image registry.example/python:3.13",
    "kubectl gadget trace open -A --image-mirror registry.example",
    "export KUBECTL_GADGET_IMAGE=registry.example/python:3.13",
    "kubectl gadget deploy",
)
"""Run against a double of a cluster, for a few seconds if they would go on until Ctrl-C."""
OFFLINE = ("kubectl gadget list", "kubectl gadget trace open --help", "kubectl gadget behavior diff old.kgr new.kgr")
ELSEWHERE = {
    "pipx install .": "test_distributions.py, in Debian 12 and 13",
    "kubectl gadget version": "test_documented_commands.py, against a double",
    "kubectl gadget report FILE": "tests/page/test_model.py, of a made recording",
    "kubectl gadget ui": "tests/page/test_live.py, in a browser",
    "kubectl gadget deploy --dry-run=client -o yaml | kubectl apply --server-side -f -": (
        "test_documented_commands.py up to the pipe; a kubectl is not on every machine"
    ),
    "apt-get install clang-19 bpftool libbpf-dev mmdebstrap": "test_documented_commands.py, as a simulation",
}
"""Run by other tests than the three lists above."""
NOT_RUN = {
    "FROM python:3.13-slim": "a line of a Dockerfile",
    "RUN apt-get update && apt-get install -y --no-install-recommends bpftrace": "likewise",
    "kubectl debug node/NODE -it --profile=sysadmin --image=quay.io/iovisor/bpftrace -- \\": "it pulls an image",
    "sh -c \"mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -e 'profile:hz:99 { @[comm] = count(); }'\"": (
        "the rest of that command"
    ),
    "make test": "it runs these tests",
    "make release": "it takes half an hour",
    "tar xzf kubectl-gadget-*-linux-amd64.tar.gz -C /opt": "it needs what make release makes",
    "ln -s /opt/kubectl-gadget/kubectl-gadget /usr/local/bin/kubectl-gadget": "likewise",
    "ln -s /opt/kubectl-gadget/kubectl-gadget /usr/local/bin/kubectl_complete-gadget": "likewise",
    "make digest": "it changes the sources, by what a registry says that is not reached here",
    "make image": "tests/image builds its layers from doubles of packages; make release builds it whole",
    "make image VARIANT=bcc": "as make image",
    "make kernels": "it boots every kernel of Debian, also in an emulator, which takes an hour; tests/vm tests it",
}


def commands() -> list[str]:
    """Every command in a code block of these pages, and those in their text that are a line of code of their own."""
    return list(dict.fromkeys(found for page in PAGES for found in _of((PROJECT / page).read_text())))


def _of(text: str) -> Iterator[str]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("code_block", "fence"):
            yield from _of_block(token.content)
        for child in token.children or ():
            if child.type == "code_inline" and child.content.split(" ")[0] in _PROGRAMS and " " in child.content:
                yield child.content


def _of_block(text: str) -> Iterator[str]:
    """Lines without comments; of a session with prompts, only what follows a prompt."""
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    yield from filter(None, lines)
