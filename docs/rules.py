"""The pages of docs/diagnose/: one for each rule of diagnose, from the rule and its examples, and an index."""

from collections.abc import Iterator, Sequence

from kubectl_gadget.diagnose.examples import found_in
from kubectl_gadget.diagnose.rules import Relation, Rule, load, own_files
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.escape import markdown_table
from kubectl_gadget.reports.model import Severity

_GROUPS = {
    "pods": "Pods that do not start, or do not stay",
    "exec": "Programs that cannot be executed",
    "processes": "Processes and signals",
    "files": "Files and descriptors",
    "resources": "CPU, memory, disks and processes",
    "waits": "Locks and waits",
    "network": "Connections",
    "dns": "Names",
    "http": "Requests",
    "tls": "Certificates and TLS",
    "security": "Rights",
}
_RELATIONS = {
    Relation.CONTAINER: "of the same container",
    Relation.POD: "of the same pod",
    Relation.WORKLOAD: "of the same workload",
    Relation.PEER: "of those that talk to its pod",
    Relation.BACK: "of the pods at the other end",
    Relation.NODE: "of the same node",
}


def pages() -> dict[str, str]:
    """Return the text of each page, by its path below docs/."""
    rules = load(own_files())
    return {"diagnose/README.md": _index(rules)} | {f"diagnose/{rule.name}.md": _page(rule, rules) for rule in rules}


def _index(rules: Sequence[Rule]) -> str:
    parts = [
        "# What diagnose finds",
        f"The {len(rules)} rules of [`kubectl gadget diagnose`](../diagnose.md), by group. Each page says what its "
        "rule needs, what it explains, what to do, how to provoke it, and what is not a finding.",
    ]
    for group, title in _GROUPS.items():
        rows = [
            (f"[{rule.name}]({rule.name}.md)", str(rule.severity), str(rule.confidence), rule.description)
            for rule in sorted(rules, key=lambda rule: (list(Severity).index(rule.severity), rule.name))
            if rule.group == group
        ]
        parts += [f"## {title}", "\n".join(markdown_table(("rule", "severity", "confidence", "what"), rows))]
    return "\n\n".join(parts)


def _page(rule: Rule, rules: Sequence[Rule]) -> str:
    example = next(example for example in rule.examples if example.finds)
    words = found_in([rule], example)[0].words
    parts = [
        f"# {rule.name}",
        rule.description,
        f"    {rule.severity.upper()}  {words.title}",
        "\n".join(_facts(rule)),
        "## Cause, and what to do",
        f"{_sentence(words.cause)}\n\n{_sentence(words.remedy)}",
        f"```sh\n{words.more}\n```",
    ]
    below = [f"- [{name}]({name}.md) {_RELATIONS[how]}" for name, how in rule.explains]
    above = [
        f"- [{other.name}]({other.name}.md)" for other in rules if any(name == rule.name for name, _ in other.explains)
    ]
    parts += ["## It explains", "\n".join(below)] if below else []
    parts += ["## It may be explained by", "\n".join(above)] if above else []
    parts += ["## How to provoke it", rule.provoke]
    for finds, title in ((True, "It is a finding"), (False, "It is not a finding")):
        found = [f"- {example.what}" for example in rule.examples if example.finds is finds]
        parts += [f"## {title}", "\n".join(found)]
    return "\n\n".join(parts)


def _facts(rule: Rule) -> Iterator[str]:
    yield f"- Severity: {rule.severity}"
    yield f"- Confidence: {': '.join(filter(None, (str(rule.confidence), rule.words.why)))}"
    needs = [f"[{' '.join(load_gadget(name).command)}](../gadgets/{name}.md)" for name in sorted(rule.gadgets)]
    needs += [f"from the API: {', '.join(sorted(rule.objects))}"] if rule.objects else []
    needs += (
        ["whose the address at the other end is (pods, services, EndpointSlices), and its sockets"] if rule.peer else []
    )
    yield f"- Needs: {', '.join(needs)}"


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    return (text[:1].upper() + text[1:] if first.isalpha() else text).rstrip(".") + "."
