"""What must fit together in the rules of each format."""

from __future__ import annotations

import pytest

from muxado.errors import UsageError
from muxado.wire import FORMATS, TYPES_IN_SYN
from muxado.wire.rules import PING_DRAWS_RESET


@pytest.mark.parametrize("name", FORMATS)
def test_the_encoder_packs_as_much_as_the_rules_say_and_no_more(name: str) -> None:
    rules, encoder = FORMATS[name].rules, FORMATS[name].encoder
    encoder.data_header(rules.last_id, rules.max_data, False, False)
    with pytest.raises(UsageError):
        encoder.data_header(rules.last_id, rules.max_data + 1, False, False)
    with pytest.raises(UsageError):
        encoder.data_header(rules.last_id + 1, 1, False, False)


@pytest.mark.parametrize("name", FORMATS)
def test_the_rules_of_a_format_fit_together(name: str) -> None:
    rules = FORMATS[name].rules
    assert rules.first_client_id % 2 == 1
    assert rules.first_server_id % 2 == 0
    assert rules.first_client_id < rules.last_id
    if rules.types == TYPES_IN_SYN:
        assert rules.opens_apart
        assert rules.heartbeat_type >= rules.first_reserved_type
    if rules.unacknowledged:
        assert rules.opens_apart
    if rules.pings == PING_DRAWS_RESET:
        assert rules.resets
        assert rules.ping_id >= 0
    if rules.codes:
        assert rules.resets
