"""Reads TracingPolicy YAML into `model.Policy`: files, folders, standard input, several documents, lists of objects.

Anything that is not understood is rejected with file, line and field; whatever is accepted but has no effect is listed
in `Policy.notes`. Subfolders are not searched, as with kubectl's `-f`.
"""

import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TextIO

import yaml

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.policies.language import API_VERSION, POLICY, POLICY_KINDS
from kubectl_gadget.policies.model import Generated, Mode, Note, OverrideMethod, Policy, PolicyOptions, SystemCall
from kubectl_gadget.policies.read.hooks import YamlHookReader, loader_hook
from kubectl_gadget.policies.read.selectors import read_scope
from kubectl_gadget.policies.read.values import Lists, need_number, need_system_call, read_lists
from kubectl_gadget.wording import did_you_mean, nearest
from kubectl_gadget.yaml_files import Place, read_text
from kubectl_gadget.yaml_reader import (
    Choice,
    Part,
    Problems,
    Scalar,
    WrongYaml,
    check,
    documents,
    items_of,
    one_of,
    peek,
)

_STDIN = "-"
_SUFFIXES = (".yaml", ".yml", ".json")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST_NAME = 253
_TRUTHS = ("1", "t", "true", "0", "f", "false")
_MODES: tuple[Mode, ...] = ("enforce", "monitor")
_METHODS: tuple[OverrideMethod, ...] = ("fmod-ret", "override-return")
_Namespace = str | Callable[[], str]
"""A namespace, or a function that returns it, called when some policy names none."""


def read_policies(
    names: Sequence[str], namespace: _Namespace, stdin: TextIO | None = None, texts: list[tuple[str, str]] | None = None
) -> list[Policy]:
    """Reads the policies in files, in folders, and in `-`, standard input; `namespace` is for those that name none.
    `texts` gets the name and the text of each file.

    Raises UsageError with the errors of all of them.
    """
    texts = [] if texts is None else texts
    texts += sources(names, stdin)
    policies = parse_policies(texts, namespace)
    if not policies:
        files = ", ".join("standard input" if name == _STDIN else name for name in names)
        raise UsageError(f"no policy was found in {files}", "kubectl gadget policy generate empty")
    return policies


def parse_policies(texts: Iterable[tuple[str, str]], namespace: _Namespace) -> list[Policy]:
    """The same for pairs of a file name and a text."""
    problems = Problems(POLICY, "kubectl gadget policy explain ")
    policies: dict[tuple[str | None, str], Policy] = {}
    for file, text in texts:
        objects = [item for document in documents(file, text) for item in items_of(file, document)]
        others = [_other(node, place) for place, node in objects]
        left_out = tuple(note for note in others if note)
        if left_out and len(left_out) == len(objects):
            kind = left_out[0].text
            elsewhere = ", and enforce --network-policy takes this one" if kind == "a NetworkPolicy" else ""
            problems.add(left_out[0].place, f"is {kind}; policies are of kind {' or '.join(POLICY_KINDS)}{elsewhere}")
            continue
        for (place, node), other in zip(objects, others, strict=True):
            policy = None if other else _policy(node, place, namespace, problems)
            if policy is None:
                continue
            key = (policy.namespace, policy.name)
            if key in policies:
                problems.add(place, f"the policy {policy.name!r} is also in {policies[key].place.position}")
            left_out = tuple(Note(note.place, f"is {note.text}, which is left out") for note in left_out)
            policies[key] = replace(policy, notes=(*left_out, *policy.notes))
            left_out = ()
    problems.raise_if_any()
    return list(policies.values())


def sources(names: Sequence[str], stdin: TextIO | None = None) -> Iterable[tuple[str, str]]:
    """Name and text of each file. Raises UsageError."""
    stdin = stdin or sys.stdin
    for name in names:
        if name == _STDIN:
            stream = io.TextIOWrapper(stdin.buffer, "utf-8") if hasattr(stdin, "buffer") else stdin
            yield "standard input", read_text("standard input", stream)
            continue
        if "://" in name:
            raise UsageError(
                f"{name} is a URL, and URLs are not fetched",
                f"curl -sSfL {name} | kubectl gadget …, with - for the file",
            )
        if not name:
            raise UsageError("an empty file name was given", "policy.yaml, or - for standard input")
        for file in _files(name):
            try:
                with file.open(encoding="utf-8") as stream:
                    yield str(file), read_text(str(file), stream)
            except OSError as error:
                raise UsageError(f"{file}: {error.strerror}") from None


def _files(name: str) -> Sequence[Path]:
    """The file itself, or the files of a folder."""
    path = Path(name)
    if not path.is_dir():
        return [path]
    try:
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    if not files:
        raise UsageError(f"{name}: has no file that ends with {', '.join(_SUFFIXES)}")
    return files


def _other(node: yaml.Node, place: Place) -> Note | None:
    """A note for an object of another kind; None for a policy, even a misspelt one, and for anything not an object."""
    kind = peek(node, "kind")
    is_other = kind and kind not in POLICY_KINDS and not nearest(kind, POLICY_KINDS, 0.7)
    return Note(place, f"a {kind}") if is_other else None


def _policy(node: yaml.Node, place: Place, namespace: _Namespace, problems: Problems) -> Policy | None:
    """Reads one object; None when it has errors, which are added to `problems`."""
    version = peek(node, "apiVersion")
    if version and version != API_VERSION:
        problems.add(place, f"has apiVersion {version}; expected {API_VERSION}")
        return None
    whole = check(node, POLICY, place, problems)
    if whole is None:
        return None
    before = len(problems.found)
    policy = _resolve(whole, namespace, problems)
    return policy if len(problems.found) == before else None


def _resolve(whole: Part, namespace: _Namespace, problems: Problems) -> Policy | None:
    metadata, spec = whole.part("metadata"), whole.part("spec")
    if metadata is None or spec is None:
        return None
    own_namespace = metadata.text("namespace") or None
    names_none = whole.text("kind") == POLICY_KINDS[1] and own_namespace is None
    if names_none:
        own_namespace = namespace if isinstance(namespace, str) else namespace()
    notes: list[Note] = []
    if whole.text("kind") == POLICY_KINDS[0] and own_namespace is not None:
        own_namespace = None
        notes.append(Note(metadata.at("namespace"), f"does nothing: a {POLICY_KINDS[0]} is for the whole cluster"))
    lists = read_lists(spec, problems)
    if not _OBJECT_NAME.fullmatch(metadata.text("name")) or len(metadata.text("name")) > _LONGEST_NAME:
        what = f"{metadata.text('name')!r} is not a valid Kubernetes name: use lower-case letters, digits, - and ."
        notes.append(Note(metadata.at("name"), what))
    hooks = YamlHookReader(spec, lists, problems, notes).read()
    if spec.flag("loader"):
        hooks = (*hooks, loader_hook(spec.at("loader")))
    if not hooks and not problems.found:
        problems.add(spec.place, "has no hooks: kprobes, fentries, tracepoints, uprobes, usdts, lsmhooks or loader")
    calls, generated = _enforcers(spec, lists, problems)
    if not calls and not generated:
        for action in (action for hook in hooks for selector in hook.selectors for action in selector.actions):
            if action.kind == "NotifyEnforcer":
                problems.add(action.place, "NotifyEnforcer needs spec.enforcers, which names the calls it may deny")
    return Policy(
        name=metadata.text("name"),
        scope=read_scope(spec, problems, own_namespace),
        hooks=hooks,
        options=_options(spec, problems),
        enforcer_calls=calls,
        enforcer_generated=generated,
        annotations=metadata.text_map("annotations"),
        notes=tuple(notes),
        place=whole.place,
        names_no_namespace=names_none,
    )


def _enforcers(
    spec: Part, lists: Lists, problems: Problems
) -> tuple[tuple[SystemCall | str, ...], tuple[Generated, ...]]:
    calls: list[SystemCall | str] = []
    generated: list[Generated] = []
    for part in spec.parts("enforcers"):
        for scalar in part.scalars("calls"):
            with problems.collecting():
                group = lists.get(scalar)
                if group is not None and group.generated:
                    generated.append(group.generated)
                else:
                    for value in group.values if group else (scalar,):
                        is_function = value.text.startswith("security_")
                        calls.append(value.text if is_function else need_system_call(value))
    return tuple(dict.fromkeys(calls)), tuple(generated)


def _options(spec: Part, problems: Problems) -> PolicyOptions:
    values: dict[str, Scalar] = {}
    for part in spec.parts("options"):
        if part.text("name") in values:
            problems.add(part.at("name"), f"the option {part.text('name')} is set twice")
        values[part.text("name")] = part.scalar("value")
    with problems.collecting():
        mode, method = _one_of(values.get("policy-mode"), _MODES), _one_of(values.get("override-method"), _METHODS)
        for name in ("disable-kprobe-multi", "disable-uprobe-multi"):
            _check_truth(values.get(name))
        if (size := values.get("sleepable-preload-size")) is not None:
            need_number(size, 1, 1 << 30)
        return PolicyOptions(mode, method)
    return PolicyOptions()


def _one_of(scalar: Scalar | None, choices: Sequence[Choice]) -> Choice | None:
    if scalar is not None and scalar.text not in choices:
        raise WrongYaml(scalar.place, f"{scalar.text!r} is not known; it is {' or '.join(choices)}")
    return one_of(scalar.text, choices, choices[0]) if scalar else None


def _check_truth(scalar: Scalar | None) -> None:
    if scalar is not None and scalar.text.lower() not in _TRUTHS:
        raise WrongYaml(scalar.place, f"{scalar.text!r} is neither true nor false")


# The policies that ship with this program: manifests/policies/NAME.yaml.


SUMMARY = "gadget/summary"
"""Annotation: one line of text for lists."""


@dataclass(frozen=True)
class BuiltinPolicy:
    """One policy that ships with this program."""

    name: str
    path: Path
    policy: Policy

    @property
    def summary(self) -> str:
        """One line of text for lists."""
        return self.policy.annotations.get(SUMMARY, "")


def read_builtin_policies() -> list[BuiltinPolicy]:
    """All built-in policies, sorted by name. Raises GadgetError when the package has none."""
    found = []
    for path in sorted(_folder().glob("*.yaml")):
        (policy,) = parse_policies([(str(path), path.read_text(encoding="utf-8"))], "default")
        found.append(BuiltinPolicy(path.stem, path, policy))
    return found


def builtin_files(names: Sequence[str]) -> list[str]:
    """The files of the named policies. Raises UsageError, which suggests similar names, when there is no such
    policy."""
    known = {path.stem: str(path) for path in _folder().glob("*.yaml")} if names else {}
    for name in names:
        if name not in known:
            near = did_you_mean(name, sorted(known))
            raise UsageError(f"there is no policy {name!r}{near}", "kubectl gadget policy list")
    return [known[name] for name in names]


def _folder() -> Path:
    package = Path(str(files("kubectl_gadget")))
    for folder in (package / "built" / "manifests" / "policies", package.parent / "manifests" / "policies"):
        if folder.is_dir():
            return folder
    raise GadgetError("this package has no policies", "install it again")
