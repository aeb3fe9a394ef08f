"""What sessions and streams promise in every front end, over WebSockets."""

from __future__ import annotations

from tests.contract.test_sessions import *  # noqa: F403
from tests.contract.test_streams import *  # noqa: F403
