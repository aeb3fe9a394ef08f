"""How Sphinx builds this site; nothing is fetched while it does."""

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

# Single backquotes in docstrings: a link where it leads somewhere, else just code.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    # What others document, type variables, and the one thing of `muxado.wire`.
    (
        "py:.*",
        r"(_asyncio|_ssl|asyncio|collections|concurrent|contextlib|enum|http|io|os|pathlib|socket"
        r"|socketserver|ssl|types|typing)\..*",
    ),
    (
        "py:.*",
        r"(_?trio|aiohttp|anyio|grpclib|httpcore|httpx|hypercorn|requests|urllib3|uvicorn)\..*",
    ),
    ("py:class", r"muxado\..*\.(P|T|SessionT|StreamT|WireFormat)"),
]

# Pages of the repository that are part of the site too: what our links to them mean here.
ELSEWHERE = {
    "../benchmarks/README.md": "/project/benchmarks.md",
    "../SECURITY.md": "/project/vulnerabilities.md",
}


# What the modules import for type checkers only, and their signatures name.
FOR_TYPE_CHECKERS: dict[str, dict[str, object]] = {
    "muxado.asyncio.stream": {"Session": muxado.Session},
    "muxado.asyncio.transport": {"Session": muxado.Session},
    "muxado.sync.stream": {"Session": muxado.sync.Session},
    "muxado.sync.stream_listener": {
        "Session": muxado.sync.Session,
        "Stream": muxado.sync.Stream,
    },
    "muxado.trio.stream": {"Session": muxado.trio.Session},
    "muxado.testing": {"muxado_trio": muxado.trio},
    "muxado.adapters.anyio": {
        "AnySession": muxado.Session | muxado.trio.Session,
        "AnyStream": muxado.Stream | muxado.trio.Stream,
    },
    "muxado.adapters.httpcore": {"on_trio": muxado.trio},
    "muxado.adapters.httpx": {"on_trio": muxado.trio},
}


def link_elsewhere(app: Sphinx, docname: str, source: list[str]) -> None:
    """Have links out of this folder lead to the pages that stand for their targets."""
    for target, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")


def link_pages(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Have a page that a docstring names be a link."""
    lines[:] = [re.sub(r"docs/(architecture|protocol)\.md", r":doc:`/\1`", line) for line in lines]


def hide_constructor(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """Show no arguments of classes that users don't make."""
    if what == "class" and re.match("Not for users", obj.__init__.__doc__ or ""):
        return "", None
    return None


def setup(app: Sphinx) -> None:
    """Be called by Sphinx at the start."""
    for module, names in FOR_TYPE_CHECKERS.items():
        vars(import_module(module)).update(names)
    app.connect("source-read", link_elsewhere)
    app.connect("autodoc-process-docstring", link_pages)
    app.connect("autodoc-process-signature", hide_constructor)
    app.add_lexer("hex", TextLexer)  # Pygments has none for the frames of the protocol page
