"""TLS contexts of an authority that only the tests trust."""

from __future__ import annotations

import ssl

import trustme

ALPN = "muxado/2"


class Tls:
    """The authority and what it has issued.

    Attributes:
        server: a server's context, with a certificate for localhost and 127.0.0.1.
        client: a client's context that trusts it.
        mutual_server: the same server, which demands a certificate of its clients.
        mutual_client: the same client, with one.
    """

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.server = self.new_server()
        self.client = self.new_client()
        self.mutual_server = self.new_server()
        self.mutual_server.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(self.mutual_server)
        self.mutual_client = self.new_client()
        self.authority.issue_cert("client@example.org").configure_cert(self.mutual_client)

    def new_server(self, *protocols: str) -> ssl.SSLContext:
        """Return a server's context that speaks these ALPN protocols."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def new_client(self, *protocols: str) -> ssl.SSLContext:
        """Return a client's context that offers these ALPN protocols."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
