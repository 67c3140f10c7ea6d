"""Writes what image scanners look for: Debian's packages, as dpkg's status and as an SBOM (SPDX 2.3).

Nothing is installed when the image is built, so dpkg writes nothing. A hook of mmdebstrap keeps each package's control
file and list of files; the status is made from them. Of some packages only the licence is kept (left-out.txt), and a
scanner that took them for installed would report vulnerabilities that do not apply.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

INFO = "var/lib/dpkg/info"
STATUS = "var/lib/dpkg/status"
HOOK = (
    'for deb in "$1"/var/cache/apt/archives/*.deb; do '
    'name=$(dpkg-deb -f "$deb" Package); info="$1"/var/lib/dpkg/info; mkdir -p "$info"; '
    'dpkg-deb -f "$deb" >"$info/$name.control"; dpkg-deb --fsys-tarfile "$deb" | tar -t >"$info/$name.list"; done'
)
"""Run by mmdebstrap with the root as $1, while the packages are still present."""
_DOCUMENTATION = "usr/share/doc/"
_FIELD = re.compile(r"^(Package|Version|Architecture|Source|Homepage): (.*)$", re.MULTILINE)


class Package(NamedTuple):
    """One package of which something is in the image."""

    name: str
    version: str
    architecture: str
    source: str
    """the name of the source package, with its version in parentheses if it differs"""
    control: str
    files: tuple[str, ...]
    """its files that are in the image"""


def packages(info: dict[str, bytes], kept: Iterable[str]) -> list[Package]:
    """The packages by name; `info` is the output of HOOK by file name, and `kept` the paths of the files in the
    image."""
    there = set(kept)
    found = []
    for name in sorted(file.removesuffix(".control") for file in info if file.endswith(".control")):
        control = info[f"{name}.control"].decode()
        lines = info.get(f"{name}.list", b"").decode().splitlines()
        files = tuple(sorted(there.intersection(line.removeprefix("./") for line in lines)))
        if all(file.startswith(_DOCUMENTATION) for file in files):
            continue
        field = dict(_FIELD.findall(control))
        source = field.get("Source", name)
        found.append(Package(name, field["Version"], field["Architecture"], source, control.strip() + "\n", files))
    return found


def status(found: Iterable[Package]) -> bytes:
    """dpkg's status file."""
    entries = []
    for package in found:
        first = f"Package: {package.name}\n"
        entries.append(package.control.replace(first, f"{first}Status: install ok installed\n", 1))
    return "\n".join(entries).encode()


def read_status(text: str) -> list[dict[str, str]]:
    """The fields of each package in a status file that status() wrote."""
    return [dict(_FIELD.findall(entry)) for entry in text.split("\n\n") if entry.strip()]


def sbom(
    name: str, version: str, installed: Iterable[dict[str, str]], date: int, linked: Iterable[dict[str, str]] = ()
) -> bytes:
    """The image's SBOM; equal images give equal bytes. `installed` is as returned by read_status(), `linked` the
    sources of our libbpf."""
    debian = [*map(_debian, installed), *map(_source, linked)]
    ours: dict[str, Any] = {
        "SPDXID": "SPDXRef-agent",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
        "copyrightText": "NOASSERTION",
        "externalRefs": [_purl(f"pkg:generic/{name}@{version}")],
    }
    contents = {
        "packages": [ours, *debian],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", ours["SPDXID"]),
            *(_relationship(ours["SPDXID"], "DEPENDS_ON", package["SPDXID"]) for package in debian),
        ],
    }
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://github.com/kubectl-gadget/kubectl-gadget/sbom/{digest}",
        "creationInfo": {
            "created": datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: kubectl-gadget-image-build"],
        },
        **contents,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _debian(fields: dict[str, str]) -> dict[str, Any]:
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    quoted = version.replace("+", "%2B").replace(":", "%3A")
    return {
        "SPDXID": "SPDXRef-deb-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"built from {fields.get('Source', name)}",
        "externalRefs": [
            _purl(f"pkg:deb/debian/{name.replace('+', '%2B')}@{quoted}?arch={architecture}&distro=debian-13")
        ],
    }


def _source(source: dict[str, str]) -> dict[str, Any]:
    name, version = source["name"], source["version"]
    return {
        "SPDXID": f"SPDXRef-source-{name}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": source["licence"],
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"linked into libbpf, from Debian's {source['archive']} with SHA-256 {source['sha256']}",
        "externalRefs": [_purl(f"pkg:generic/{name}@{version}")],
    }


def _purl(locator: str) -> dict[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}


def _relationship(element: str, type: str, related: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": type, "relatedSpdxElement": related}
