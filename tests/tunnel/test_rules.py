"""Rules: what each kind allows, and that it allows nothing else."""

from __future__ import annotations

import pytest

from muxado import UsageError
from muxado.tunnel.rules import DEFAULT_RULES, Rights, Rule


@pytest.mark.parametrize(
    "line",
    [
        "expose:80",
        "expose:20000-20999",
        "expose:*",
        "private:web",
        "private:*",
        "reach:db-1",
        "forward:db.example:5432",
        "forward:10.0.0.0/8:*",
        "forward:10.1.2.3:1-2",
        "forward:[fd00::/8]:443",
        "forward:[::1]:443",
        "forward:localhost:80",
    ],
)
def test_a_rule_is_written_as_it_is_read(line: str) -> None:
    assert str(Rule.parse(line)) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "expose",
        "expose:",
        "expose:0",
        "expose:65536",
        "expose:9-8",
        "expose:1-2-3",
        "expose:８０",
        "private:",
        "private:Web",
        "private:a.b",
        "reach:*",
        "reach:-a",
        "forward:80",
        "forward::80",
        "forward:*:80",
        "forward:10.0.0.1/8:80",
        "forward:10.0.0:80",
        "forward:::1:80",
        "forward:host:http",
        "allow:everything",
    ],
)
def test_what_is_no_rule_is_an_error(line: str) -> None:
    with pytest.raises(UsageError):
        Rule.parse(line)


def test_the_default_is_a_range_of_ports_and_private_names() -> None:
    rights = Rights(DEFAULT_RULES)
    assert rights.may_expose(20000)
    assert rights.may_expose(20999)
    assert not rights.may_expose(19999)
    assert not rights.may_expose(21000)
    assert rights.may_offer("anything")
    assert not rights.may_reach("anything")
    assert not rights.may_dial("forward", "192.0.2.1", "192.0.2.1", 80)


def test_nothing_is_allowed_without_a_rule() -> None:
    rights = Rights(())
    assert not rights.may_expose(80)
    assert not rights.may_offer("a")
    assert not rights.may_reach("a")
    assert not rights.may_dial("forward", "a", "8.8.8.8", 80)


def test_names_are_those_of_the_rule_and_of_its_kind() -> None:
    rights = Rights(["private:a", "reach:b"])
    assert rights.may_offer("a")
    assert not rights.may_offer("b")
    assert rights.may_reach("b")
    assert not rights.may_reach("a")


@pytest.mark.parametrize(
    ("rule", "host", "port", "might"),
    [
        ("forward:db:80", "DB.", 80, True),
        ("forward:db:80", "db", 81, False),
        ("forward:db:80", "other", 80, False),
        ("forward:10.0.0.0/8:80", "other", 80, True),
        ("forward:10.0.0.0/8:80", "10.1.2.3", 80, True),
        ("forward:10.0.0.0/8:80", "11.1.2.3", 80, False),
        ("socks:db:80", "db", 80, False),
    ],
)
def test_what_no_right_can_lead_to_is_known_before_it_is_dialled(
    rule: str, host: str, port: int, might: bool
) -> None:
    assert Rights((rule,)).might_dial("forward", host, port) is might


@pytest.mark.parametrize(
    ("rule", "host", "address", "port", "allowed"),
    [
        ("forward:db.example:5432", "db.example", "10.0.0.5", 5432, True),
        ("forward:db.example:5432", "DB.Example.", "10.0.0.5", 5432, True),
        ("forward:db.example:5432", "db.example", "10.0.0.5", 5433, False),
        ("forward:db.example:5432", "10.0.0.5", "10.0.0.5", 5432, False),
        ("forward:db.example:5432", "db.example", "127.0.0.1", 5432, False),
        ("forward:db.example:5432", "db.example", "169.254.169.254", 5432, False),
        ("forward:db.example:5432", "db.example", "::ffff:127.0.0.1", 5432, False),
        ("forward:10.0.0.0/8:*", "anything.example", "10.9.9.9", 80, True),
        ("forward:10.0.0.0/8:*", "anything.example", "::ffff:10.9.9.9", 80, True),
        ("forward:10.0.0.0/8:*", "10.0.0.1", "11.0.0.1", 80, False),
        ("forward:0.0.0.0/0:*", "127.0.0.1", "127.0.0.1", 80, False),
        ("forward:0.0.0.0/0:*", "x.example", "169.254.169.254", 80, False),
        ("forward:0.0.0.0/0:*", "x.example", "0.0.0.0", 80, False),
        ("forward:127.0.0.0/8:*", "127.0.0.1", "127.0.0.1", 80, False),
        ("forward:127.0.0.1:80", "127.0.0.1", "127.0.0.1", 80, True),
        ("forward:127.0.0.1:80", "127.0.0.2", "127.0.0.2", 80, False),
        ("forward:localhost:80", "localhost", "::1", 80, True),
        ("forward:localhost:80", "localhost", "169.254.169.254", 80, False),
        ("forward:[::/0]:80", "x.example", "fe80::1%eth0", 80, False),
        ("forward:[::/0]:80", "x.example", "2001:db9::1", 80, True),
        ("forward:[::/0]:80", "x.example", "192.0.2.1", 80, False),
    ],
)
def test_a_target_is_judged_by_the_address_that_is_dialled(
    rule: str, host: str, address: str, port: int, allowed: bool
) -> None:
    assert Rights([rule]).may_dial("forward", host, address, port) is allowed


def test_the_port_of_the_server_itself_must_be_named_by_its_address() -> None:
    assert not Rights(["forward:10.0.0.0/8:*"]).may_dial("forward", "x", "10.0.0.1", 7443, own=True)
    assert not Rights(["forward:x:*"]).may_dial("forward", "x", "10.0.0.1", 7443, own=True)
    assert Rights(["forward:10.0.0.1:*"]).may_dial("forward", "x", "10.0.0.1", 7443, own=True)
