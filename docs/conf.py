"""Sphinx builds the site with these settings, and fetches nothing while it does."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pygments.lexers.special import TextLexer

import muxado
import muxado.sync
import muxado.trio

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "muxado"
author = "the muxado authors"
version = release = muxado.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"muxado {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
highlight_language = "text"
smartquotes = False  # a docstring's b"" is code

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

# Single backquotes in docstrings are a link if their target exists, else just code.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    # Names that other projects document, type variables, and one name of `muxado.wire`.
    (
        "py:.*",
        r"(_asyncio|_ssl|asyncio|builtins|collections|concurrent|contextlib|enum|http|io|ipaddress|logging|os|pathlib|socket"
        r"|socketserver|ssl|types|typing)\..*",
    ),
    (
        "py:.*",
        r"(_?trio|aiohttp|anyio|grpclib|httpcore|httpx|hypercorn|nats|prometheus_client|redis|requests"
        r"|urllib3|uvicorn)\..*",
    ),
    ("py:class", r"Stream(Reader|Writer)"),  # asyncio's, imported for their types
    ("py:class", r"muxado\..*\.(P|T|SessionT|StreamT|WireFormat)"),
]

# Files of the repository that are also pages of the site, and the pages that links to them lead to.
ELSEWHERE = {
    "../benchmarks/README.md": "/project/benchmarks.md",
    "../SECURITY.md": "/project/vulnerabilities.md",
}


# Names in signatures that the modules import for type checkers only.
FOR_TYPE_CHECKERS: dict[str, dict[str, object]] = {
    "muxado.asyncio.stream": {"Session": muxado.Session},
    "muxado.sync.stream": {"Session": muxado.sync.Session},
    "muxado.sync.socket_calls": {"Session": muxado.sync.Session},
    "muxado.sync.stream_listener": {
        "Session": muxado.sync.Session,
        "Stream": muxado.sync.Stream,
    },
    "muxado.trio.stream": {"Session": muxado.trio.Session},
    "muxado.testing.pairs": {"muxado_trio": muxado.trio},
    "muxado.adapters.anyio": {
        "AnySession": muxado.Session | muxado.trio.Session,
        "AnyStream": muxado.Stream | muxado.trio.Stream,
    },
    "muxado.framing": {"AsyncStream": muxado.Stream | muxado.trio.Stream},
    "muxado.adapters.httpcore": {"on_trio": muxado.trio},
    "muxado.adapters.httpx": {"on_trio": muxado.trio},
}


def link_elsewhere(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace links to files outside this folder by links to their pages."""
    for target, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")


def link_pages(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make links of the pages that docstrings name."""
    lines[:] = [re.sub(r"docs/(architecture|protocol)\.md", r":doc:`/\1`", line) for line in lines]


def hide_constructor(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """Hide the arguments of classes that users don't create."""
    if what == "class" and re.match("Not for users", obj.__init__.__doc__ or ""):
        return "", None
    return None


def name_types_in_full(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str
) -> tuple[str, str] | None:
    """Have `type[...]` mean Python's own class, and not an attribute of that name."""
    if signature is None or "type[" not in signature:
        return None
    return re.sub(r"(?<![\w.])type\[", "builtins.type[", signature), returns


def setup(app: Sphinx) -> None:
    """Register the functions above with Sphinx."""
    for module, names in FOR_TYPE_CHECKERS.items():
        vars(import_module(module)).update(names)
    app.connect("source-read", link_elsewhere)
    app.connect("autodoc-process-docstring", link_pages)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("autodoc-process-signature", name_types_in_full)
    app.add_lexer("hex", TextLexer)  # Pygments has none for the frames of the protocol page
