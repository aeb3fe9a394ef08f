"""The pages about running a fleet: what they configure is taken, and their sums are right."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("cryptography")
pytest.importorskip("redis")

from muxado.cli.tunnel import server
from muxado.tunnel import Server
from muxado.tunnel.rights_file import read_rights
from muxado.tunnel.settings import Settings, read_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "howto" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SCALE = (DOCS / "scale.md").read_text(encoding="utf-8")


def block(start: str) -> str:
    """Return the block of the page that begins so."""
    [found] = [each for each in BLOCKS if each.startswith(start)]
    return str(found)


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(block("listen = "))
    (tmp_path / "rights.toml").write_text(block("[clients.laptop]"))
    settings = read_settings(path, {})
    assert settings.rights is not None
    rights = read_rights(settings.rights)
    assert rights["laptop"].may_expose(20080)
    assert rights["laptop"].connections == 200
    assert rights["office"].may_reach("db")
    # The key is the option's name, so nothing of the page is a setting that there is not.
    assert settings.directory is not None
    assert settings.proxy_protocol


def test_nothing_stops_the_server_before_its_grace_is_over() -> None:
    times = re.findall(
        r"(?:TimeoutStopSec=|terminationGracePeriodSeconds: |docker stop --time )(\d+)", PAGE
    )
    assert len(times) == 3
    assert all(int(each) > Settings().grace for each in times)


def test_the_options_of_the_page_are_the_commands() -> None:
    known = {name for option in server.params for name in option.opts}
    text = re.sub(r"docker \S+.*|useradd.*|pip install.*|muxado invite.*", "", PAGE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - {"--from"}  # the client's
    assert {"--advertise", "--admin", "--workers"} < named
    assert named <= known


def test_the_deployment_asks_what_the_server_answers() -> None:
    yaml = pytest.importorskip("yaml")
    deployment: dict[str, Any] = yaml.safe_load(block("apiVersion: apps/v1"))
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {each["containerPort"] for each in container["ports"]}
    place = container["args"][container["args"].index("--admin") + 1]
    admin = int(place.rpartition(":")[2])
    for probe, path in (("readinessProbe", "/ready"), ("livenessProbe", "/live")):
        assert container[probe]["httpGet"] == {"path": path, "port": admin}
    assert admin in ports
    assert {each["name"] for each in container["env"]} >= {"MUXADO_DIRECTORY"}


def test_haproxy_takes_its_block(tmp_path: Path) -> None:
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    path = tmp_path / "haproxy.cfg"
    path.write_text(block("listen muxado"))
    checked = subprocess.run(
        [program, "-c", "-f", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_metrics_of_the_page_are_told(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    from muxado.tunnel.prometheus import metrics_of

    async def tell() -> str:
        async with Server(tmp_path, "127.0.0.1", 0) as running:
            running.denials.tell("hello", "somebody", "may not")
            return metrics_of(running).decode()

    told = asyncio.run(tell())
    named = re.findall(r"muxado_(?:cluster|tunnel)_[a-z_]+[a-z]", PAGE)
    # "`muxado_tunnel_clients`, `_services`": the further ones are written without the beginning.
    [more] = re.findall(r"`muxado_tunnel_clients`(.*?)by reason", PAGE, re.DOTALL)
    named += [f"muxado_tunnel{name}" for name in re.findall(r"`(_[a-z_]+)`", more)]
    assert len(named) > 6
    assert [name for name in named if f"\n{name}" not in told] == []


# The arithmetic


def figure(row: str) -> list[float]:
    """Return the numbers of the last cell of a row of the page."""
    [cells] = re.findall(rf"^\| {re.escape(row)}[^|]*\|(.*)\|$", SCALE, re.MULTILINE)
    return [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\.?\d*", cells)]


def test_a_million_is_what_the_page_says_it_is() -> None:
    agents, processes = figure("agents")[0], figure("processes, 25,000 agents each")[0]
    assert agents == processes * 25_000 == 1_000_000
    assert figure("sessions between nodes")[0] == processes * (processes - 1) / 2
    plain = figure("memory of the server, with Redis")[0]
    assert figure("memory, plain")[0] == pytest.approx(agents * plain / 2**20, rel=0.1)
    renewals, cores = figure("renewals a second, lease 30 s")[:2]
    assert renewals == agents * 3 / 30
    assert cores == pytest.approx(renewals * figure("for a renewal")[0] / 1e6)
    assert figure("claims after one process is lost")[0] == agents / processes
