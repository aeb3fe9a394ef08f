"""What an extra brings, and what is said when it is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import muxado.adapters
from muxado.extras import needs

PROJECT = Path(__file__).parents[1]
STANDARD = {"http_client", "socketserver"}  # the standard library's are always there
LIBRARIES = sorted(
    path.stem
    for path in Path(muxado.adapters.__file__).parent.glob("*.py")
    if not path.stem.startswith("_") and path.stem not in STANDARD
)
# What is imported, where it is called otherwise than the extra.
PACKAGES = {"prometheus": "prometheus_client"}
MODULES = {name: f"muxado.adapters.{name}" for name in LIBRARIES} | {
    "trio": "muxado.trio",
    "redis": "muxado.cluster.redis",
    "nats": "muxado.cluster.nats",
}


@pytest.mark.parametrize("name", MODULES)
def test_each_adapter_has_an_extra_of_its_name(name: str) -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any(requirement.startswith(name) for requirement in extras[name])


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_library_names_its_extra(name: str) -> None:
    package = PACKAGES.get(name, name)
    program = f"import sys; sys.modules[{package!r}] = None; import {MODULES[name]}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"pip install 'muxado[{name}]'" in last


def test_the_outermost_extra_is_named_and_the_first_cause_kept() -> None:
    cause = ImportError("no module", name="inner")

    def importing() -> None:
        with needs("outer"), needs("inner"):
            raise cause

    with pytest.raises(ImportError, match=r"muxado\[outer\]") as caught:
        importing()
    assert caught.value.__cause__ is cause
    assert caught.value.name == "inner"
    assert "muxado[inner]" not in str(caught.value)
