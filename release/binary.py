"""The start of the self-contained binary, which needs no Python on the machine.

It runs the command line, completion when it is called by that name, or, for a process of its own, one module of the
package: see kubectl_gadget/python_process.py. PyInstaller's loader points LD_LIBRARY_PATH to our libraries, and
programs that we start, such as credential plugins and the command of `ci run`, must not load these.
"""

import os
import runpy
import sys
from collections.abc import MutableMapping
from pathlib import Path

from kubectl_gadget.python_process import MODULE

AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)


def set_up(environment: MutableMapping[str, str]) -> None:
    """Undoes what the loader did to the environment, and names the system's certificate authorities, since our OpenSSL
    looks for them where the system that built it has them."""
    environment.pop("LD_LIBRARY_PATH", None)
    before = environment.pop("LD_LIBRARY_PATH_ORIG", None)
    if before is not None:
        environment["LD_LIBRARY_PATH"] = before
    if not environment.keys() & {"SSL_CERT_FILE", "SSL_CERT_DIR"}:
        found = next(filter(os.path.exists, AUTHORITIES), None)
        if found:
            environment["SSL_CERT_FILE"] = found


def main() -> None:
    set_up(os.environ)
    if sys.argv[1:2] == [MODULE]:
        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif Path(sys.argv[0]).name.startswith("kubectl_complete"):
        from kubectl_gadget.cli.complete import main as complete

        complete()
    else:
        from kubectl_gadget.cli.main import main as command_line

        command_line()


if __name__ == "__main__":
    main()
