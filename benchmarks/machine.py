"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from .contenders import ROOT, Peer


def describe_machine() -> dict[str, object]:
    """Return the machine, the system and the source's revision."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "machine": platform.machine(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "revision": _revision(),
    }


def describe_versions(peers: list[Peer]) -> dict[str, str]:
    """Return the versions of everything that takes part."""
    versions: dict[str, str] = {}
    for peer in peers:
        for name, version in peer.versions:
            if name != "build":
                versions.setdefault(name, version)
    return dict(sorted(versions.items()))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> float:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0.0
    return round(pages / 2**30, 1)


def _revision() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
