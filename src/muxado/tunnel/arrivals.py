"""Sessions that have just come: bounded in number, memory and time until they say who they are."""

from __future__ import annotations

from dataclasses import replace

from ..asyncio import Session
from ..cluster.control import Control, welcome
from ..cluster.errors import HeaderError
from ..cluster.lines import Message
from ..config import Config
from ..errors import MuxadoError
from .denials import Denials
from .outages import why

__all__ = ["Arrivals", "address_of", "host_of"]

MOST_SILENT = 64  # sessions that have not said hello
SILENT_MEMORY = 16 * 1024  # bytes that each of them may have sent, unread
HELLO_TIMEOUT = 10.0  # seconds


class Arrivals:
    """Hears hello, of a bounded number of sessions at once; the oldest gives way to a new one.

    Args:
        config: the settings of a session once it has said hello.
        denials: where is told who said none.

    Attributes:
        config: the settings of a session until then.
    """

    def __init__(self, config: Config, denials: Denials) -> None:
        self.config: Config = replace(
            config,
            max_incoming_streams=1,
            max_receive_memory=min(SILENT_MEMORY, config.max_receive_memory),
        )
        self._later = config
        self._denials = denials
        self._silent: dict[Session, None] = {}

    async def hear(self, session: Session) -> tuple[Control, Message] | None:
        """Wait for the hello of a session that was accepted; None if it says none.

        The session has its full limits once this returns one.
        """
        self._silent[session] = None
        if len(self._silent) > MOST_SILENT:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.abort(401)
        try:
            control, hello = await welcome(session, timeout=HELLO_TIMEOUT)
        except (HeaderError, EOFError, TimeoutError, MuxadoError) as exc:
            self._denials.tell(
                "hello", host_of(session), f"{address_of(session)} said no hello: {why(exc)}"
            )
            return None
        finally:
            self._silent.pop(session, None)
        session.raise_limits(self._later.max_incoming_streams, self._later.max_receive_memory)
        return control, hello


def address_of(session: Session) -> str:
    """Return where a session's client is, as host and port."""
    found = session.remote_address
    return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else str(found)


def host_of(session: Session) -> str:
    """Return the host that a session's client is on."""
    found = session.remote_address
    return str(found[0]) if isinstance(found, tuple) else str(found)
