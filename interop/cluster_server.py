"""A server of a fleet, as a process of its own; SIGTERM has it drain and end."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from tests.patience import patience

import muxado
from muxado.cluster import Directory, Message, Node, PeerTLS
from muxado.cluster.nats import NatsDirectory
from muxado.cluster.redis import RedisDirectory


def directory_at(url: str, lease: float) -> Directory:
    """Return the directory in an engine."""
    if url.startswith("redis:"):
        return RedisDirectory(url, lease=lease, timeout=1.0)
    return NatsDirectory(url, timeout=1.0)


def certificates(folder: Path) -> PeerTLS:
    return PeerTLS(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


async def authenticate(session: muxado.Session, hello: Message) -> str:
    return hello.text("key")


async def main(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        Node(
            directory=directory_at(args.directory, args.lease),
            peers=certificates(args.certificates),
            port=args.peer_port,
        ) as node,
        muxado.serve(
            lambda session: node.serve(session, authenticate),
            "127.0.0.1",
            args.port,
            config=muxado.Config(ping_interval=2.0, ping_timeout=patience(4)),
            proxy_protocol=["127.0.0.0/8"] if args.behind_balancer else None,
        ) as server,
    ):
        print(json.dumps({"node": node.place.node, "address": node.place.address}), flush=True)
        await stop.wait()
        server.stop_listening()  # a balancer would send those that move here again
        await node.drain(args.grace)
        print(json.dumps({"registered": node.stats().registered}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--certificates", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--peer-port", type=int, required=True)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--grace", type=float, default=8.0)
    parser.add_argument("--behind-balancer", action="store_true")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(main(parser.parse_args()))
