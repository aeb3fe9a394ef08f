"""What Prometheus is told of the sessions of this process."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import muxado.sync
import muxado.testing
from muxado.adapters.prometheus import Collector
from tests.patience import patience

PATIENCE = patience(10)

ORDER = ("role", "state", "direction", "code", "by", "clean")  # of the labels in a key


def scrape(name: str) -> dict[str, float]:
    """Return the samples of the sessions of a name, as a scrape gives them."""
    registry = CollectorRegistry()
    registry.register(Collector())
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("name") == name:
                values = [labels[label] for label in ORDER if label in labels]
                assert len(values) == len(labels)
                key = " ".join([sample.name, *values])
                found[key] = sample.value
    return found


def test_a_scrape_has_the_sessions_figures() -> None:
    with muxado.testing.sync_pair() as (near, far):
        near.name = "scraped"
        stream = near.open()
        stream.sendall(b"12345")
        near.open(eager=True).reset(403)
        with far.accept(PATIENCE) as other:
            other.sendall(b"123")
            near.ping(PATIENCE)
            far.ping(PATIENCE)
            figures = scrape("scraped")
            stream.close()
    assert figures["muxado_sessions client open"] == 1
    assert figures["muxado_streams client"] == 1
    assert figures["muxado_streams_opened_total client out"] == 2
    assert figures["muxado_streams_opened_total client in"] == 0
    assert figures["muxado_bytes_total client sent"] == 5
    assert figures["muxado_bytes_total client received"] == 3
    assert figures["muxado_unread_bytes client"] == 3
    assert figures["muxado_resets_total client sent 403"] == 1
    assert figures["muxado_round_trip_seconds client"] > 0
    assert not [key for key in figures if key.startswith("muxado_session_ends")]

    after = scrape("scraped")
    assert "muxado_sessions client open" not in after
    assert after["muxado_bytes_total client sent"] == 5
    assert after["muxado_unread_bytes client"] == 0
    assert after["muxado_session_ends_total client NO_ERROR peer yes"] == 1


def test_refusals_and_ends_have_their_codes() -> None:
    config = muxado.Config(max_incoming_streams=1)
    with muxado.testing.sync_pair(server_config=config) as (near, far):
        far.name = "refusing"
        kept = [near.open(eager=True) for _ in range(3)]
        near.ping(PATIENCE)
        figures = scrape("refusing")
        near.abort(99)
        far.wait_closed(PATIENCE)
        for stream in kept:
            stream.close()
    assert figures["muxado_refusals_total server STREAM_REFUSED"] == 2
    assert figures["muxado_resets_total server sent STREAM_REFUSED"] == 2
    assert scrape("refusing")["muxado_session_ends_total server 99 peer no"] == 1


def test_sessions_of_a_name_are_added_up_and_a_strange_name_is_only_a_label() -> None:
    name = 'two "of"\n them\\'
    with muxado.testing.sync_pair() as (near, far), muxado.testing.sync_pair() as (other, _):
        near.name = far.name = other.name = name
        stream = near.open()
        stream.sendall(b"1234567")
        figures = scrape(name)
        assert figures["muxado_sessions client open"] == 2
        assert figures["muxado_sessions server open"] == 1
        assert figures["muxado_bytes_total client sent"] == 7
        stream.close()


def test_registering_looks_at_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: Collector) -> None:
        raise AssertionError

    monkeypatch.setattr(Collector, "collect", look)
    registry = CollectorRegistry()
    registry.register(Collector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector())
