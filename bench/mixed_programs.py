"""Programs of different kinds that start and end all the time, as on a build machine: compilers, interpreters, shells.

Each kind has a shell that runs its command again and again. They do what they can in the CPU time that other work
leaves them, so a measurement beside them needs its own count of what they did: `rounds`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCES = {
    "plain.c": "".join(f"int f{n}(int a, int b) {{ return a * {n} + b % (a + {n + 1}); }}\n" for n in range(3000)),
    "classes.cc": "#include <iostream>\n#include <map>\n#include <regex>\nint main(int argc, char** argv) {\n"
    "  std::map<std::string, int> found;\n  std::regex word(argv[0]);\n  found[argv[0]] += argc;\n"
    "  std::cout << found.size() << std::regex_match(argv[0], word);\n}\n",
    "words.py": "import json, re, collections\ntext = json.dumps([{'n': n, 'word': str(n) * 7} for n in range(60000)])"
    "\nprint(len(json.loads(text)), collections.Counter(re.findall('[0-9]{7}', text)).most_common(1))\n",
    "words.js": "const m = new Map(); for (let i = 0; i < 3e5; i++) { const k = 'w' + (i % 977); m.set(k,"
    " (m.get(k) || 0) + JSON.stringify({i, k}).length); } console.log(m.size);\n",
    "words.pl": "my %n; for my $i (1..600000) { $n{$i % 977} .= chr(65 + $i % 26); } print scalar(keys %n), qq(\\n);\n",
    "Words.java": "import java.util.*; class Words { public static void main(String[] a) { var m = new HashMap<String,"
    'Integer>(); for (int i = 0; i < 2000000; i++) m.merge("w" + i % 977, i, Integer::sum); System.out.println('
    "m.size()); } }\n",
    "words.go": 'package main\n\nimport (\n\t"fmt"\n\t"sort"\n)\n\nfunc main() {\n\twords := map[string]int{}\n'
    "\tfor i := 0; i < 3000000; i++ {\n\t\twords[fmt.Sprint(i%977)] += i\n\t}\n\tkeys := []string{}\n"
    "\tfor key := range words {\n\t\tkeys = append(keys, key)\n\t}\n\tsort.Strings(keys)\n\t"
    "fmt.Println(len(keys))\n}\n",
    "words.rs": "use std::collections::HashMap;\nfn main() { let mut m: HashMap<String, u64> = HashMap::new();\n"
    'for i in 0..9 { *m.entry(i.to_string()).or_default() += i; } println!("{:?}", m); }\n',
}
_KINDS = {
    "C": ("gcc", "gcc -O2 -c plain.c -o plain.o"),
    "C++": ("g++", "g++ -O1 -c classes.cc -o classes.o"),
    "Rust": ("rustc", "rustc -O --crate-name words words.rs -o words.rust"),
    "Go": ("go", "./words.go.exe"),
    "Java": ("java", "java -Xshare:auto -cp . Words"),
    "Node": ("node", "node words.js"),
    "Python": ("python3", "python3 words.py"),
    "modules": ("python3", "python3 -c 'import asyncio, http.server, xml.dom.minidom, unittest, decimal'"),
    "Perl": ("perl", "perl words.pl"),
    "shell": ("sh", "for n in 1 2 3 4 5 6 7 8; do ls / | grep -c u; cat plain.c | head -n $n | wc -l; done"),
    "git": (
        "git",
        "git add plain.c && git -c user.name=n -c user.email=e commit -qm m --allow-empty && git log",
    ),
    "openssl": (
        "openssl",
        "openssl genrsa 2048 && openssl dgst -sha256 plain.o && openssl enc -aes-256-cbc -k k -pbkdf2 -in plain.c",
    ),
    "awk": ("awk", "awk '{ n[$1 $2] += length($0) } END { print length(n) }' plain.c && sort -R plain.c"),
    "xz": ("xz", "xz -2 -c plain.o && gzip -9 -c plain.c"),
    "tar": ("tar", "tar -c -C /usr/include . | sha256sum && find /usr/share/doc -name '*.gz'"),
}
_BEFORE = {"Java": "javac Words.java", "Go": "go build -o words.go.exe words.go", "git": "git init -q"}
"""What a kind needs once."""


@contextmanager
def mixed_programs() -> Iterator[Path]:
    """Runs one shell for each kind whose program is here. Yields the folder, for rounds()."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in _SOURCES.items():
            (folder / file).write_text(text)
        subprocess.run(["gcc", "-O1", "-c", "plain.c", "-o", "plain.o"], cwd=folder, check=True)
        kinds = {kind: command for kind, (program, command) in _KINDS.items() if shutil.which(program)}
        for kind in kinds.keys() & _BEFORE.keys():
            subprocess.run(_BEFORE[kind], shell=True, cwd=folder, check=True)
        shells = [
            subprocess.Popen(
                ["sh", "-c", f"while kill -0 {os.getpid()}; do ({command}); echo >&3; done 3> '{kind}.rounds'"],
                cwd=folder,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for kind, command in kinds.items()
        ]
        try:
            yield folder
        finally:
            for shell in shells:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()


def rounds(folder: Path) -> dict[str, int]:
    """How many times each kind has run."""
    return {path.stem: path.stat().st_size for path in sorted(folder.glob("*.rounds"))}
