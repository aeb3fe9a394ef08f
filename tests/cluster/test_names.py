"""What a name in a cluster may be."""

from __future__ import annotations

import pytest

from muxado import UsageError
from muxado.cluster.names import check_name, is_name


@pytest.mark.parametrize("name", ["a", "7", "a-b", "x" * 63, "xn--bcher-kva"])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert is_name(name)
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a b", "a\n", "ä", "x" * 64, None, b"a", 7]
)
def test_anything_else_is_none(name: object) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError, match="DNS label"):
        check_name(name)
