"""A server and a client of grpcio: `python -m tests.bpf.grpc_carts TIMES LARGE`.

They have an interpreter of their own: a process that has imported grpc should not fork, and grpc's threads have crashed
in a process that was forked from one with threads.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.bpf import network


class Carts(grpc.GenericRpcHandler):
    """/shop.Carts/Get gives what is asked for, Fail fails, List gives many."""

    def service(self, details: Any) -> Any:
        match details.method:
            case "/shop.Carts/Get":
                return grpc.unary_unary_rpc_method_handler(lambda asked, _: bytes(int(asked)))
            case "/shop.Carts/Fail":
                return grpc.unary_unary_rpc_method_handler(
                    lambda asked, context: context.abort(grpc.StatusCode.NOT_FOUND, f"no cart {asked.decode()}")
                )
            case "/shop.Carts/List":
                return grpc.unary_stream_rpc_method_handler(lambda asked, _: (b"x" * 11 for _ in range(int(asked))))
        return None


def call(times: int, large: int) -> None:
    """Starts a server and calls each method so often, but List and one that does not exist once. Every tenth answer is
    large."""
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Carts(),))
    port = server.add_insecure_port(f"{network.V4}:0")
    server.start()
    with grpc.insecure_channel(f"{network.V4}:{port}") as channel:
        get, fail = (channel.unary_unary(f"/shop.Carts/{name}") for name in ("Get", "Fail"))
        for number in range(times):
            assert len(get(b"%d" % (number if number % 10 else large), timeout=60)) in (number, large)
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                fail(b"%d" % number, timeout=60)
        assert len(list(channel.unary_stream("/shop.Carts/List")(b"7", timeout=60))) == 7
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            channel.unary_unary("/shop.Other/None")(b"", timeout=60)
    server.stop(None).wait()


if __name__ == "__main__":
    call(*map(int, sys.argv[1:]))
