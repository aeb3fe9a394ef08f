"""What sessions and streams promise over every transport, over each road."""

from __future__ import annotations

from tests.asyncio.test_contract import *  # noqa: F403
