"""Sessions over WebSockets, by the library `websockets`.

`connect` and `serve` are for asyncio; `muxado.carriers.websockets.sync` and
`muxado.carriers.websockets.trio` have those of threads and of trio.
"""

from __future__ import annotations

from ._asyncio import connect, serve

__all__ = ["connect", "serve"]
