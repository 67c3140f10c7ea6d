"""A fake cluster to try the command line on: python -m tests.fake_cluster --nodes 3"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.fake_cluster.cluster import FakeCluster


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--kubeconfig", type=Path, help="where to write it (default: a temporary folder)")
    options = parser.parse_args()
    async with FakeCluster(options.nodes, tls=options.tls, port=options.port) as cluster:
        for node in cluster.nodes:
            cluster.add_pod(f"pod-on-{node}", node, labels={"app": "demo"})
        with tempfile.TemporaryDirectory() as directory:
            path = cluster.write_kubeconfig(options.kubeconfig or Path(directory) / "kubeconfig")
            sys.stdout.write(f"export KUBECONFIG={path}\n# kubectl get pods, kubectl gadget …; Ctrl-C ends it\n")
            sys.stdout.flush()
            await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
