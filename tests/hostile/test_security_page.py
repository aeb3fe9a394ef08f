"""The TLS settings of docs/security.md, as they stand there, between real endpoints."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

import muxado
from muxado import SessionError
from tests.patience import patience

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make the files that the page speaks of, and return what its blocks define."""
    servers, clients = trustme.CA(), trustme.CA()
    servers.cert_pem.write_to_path(tmp_path / "servers-ca.pem")
    clients.cert_pem.write_to_path(tmp_path / "clients-ca.pem")
    write(tmp_path, "server", servers.issue_cert("example.org"))
    write(tmp_path, "client", clients.issue_cert("agent-7.example.org"))
    write(tmp_path, "other", clients.issue_cert("agent-8.example.org"))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, found)
    return found


def write(folder: Path, name: str, cert: trustme.LeafCert) -> None:
    cert.private_key_pem.write_to_path(folder / f"{name}.key")
    cert.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")


async def dial(server: muxado.Server, context: ssl.SSLContext) -> muxado.Session:
    host, port = server.addresses[0]
    return await muxado.connect(host, port, ssl=context, server_hostname="example.org")


async def test_a_server_alone_has_a_certificate(names: dict[str, Any]) -> None:
    context = ssl.create_default_context(cafile="servers-ca.pem")
    context.set_alpn_protocols(["muxado/2"])
    async with (
        asyncio.timeout(patience(5)),
        muxado.serve(hold, "127.0.0.1", 0, ssl=names["server_context"]()) as server,
        await dial(server, context) as session,
    ):
        assert await session.ping() > 0
        tls = session.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "muxado/2")


async def test_both_have_certificates_and_the_handler_looks_at_the_name(
    names: dict[str, Any],
) -> None:
    async with (
        asyncio.timeout(patience(5)),
        muxado.serve(
            names["handler"], "127.0.0.1", 0, ssl=names["mutual_server_context"]()
        ) as server,
    ):
        async with await dial(server, names["client_context"]()) as session:
            assert await session.ping() > 0
        context = names["client_context"]()
        context.load_cert_chain("other.pem", "other.key")
        other = await dial(server, context)
        await other.wait_closed()
        reason = other.close_reason
        assert reason is not None
        assert (reason.clean, reason.by_peer) == (True, True)


async def test_a_client_without_a_certificate_is_told_by_the_sessions_end(
    names: dict[str, Any],
) -> None:
    context = ssl.create_default_context(cafile="servers-ca.pem")
    async with (
        asyncio.timeout(patience(5)),
        muxado.serve(hold, "127.0.0.1", 0, ssl=names["mutual_server_context"]()) as server,
    ):
        session = await dial(server, context)
        with pytest.raises(SessionError):
            await session.accept()


async def hold(session: muxado.Session) -> None:
    async for _ in session:
        pass
