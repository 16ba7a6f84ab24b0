"""The page: one HTML file that holds its styles, script, pictures and numbers, and asks no network for more.

Text from data (names of categories, rows, files) reaches the page as JSON alone, and its script puts it there
as text, never as markup. A content security policy forbids every other script and every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from typing import Any

SCRIPTS = ("base.js", "player.js", "tables.js", "cases.js", "main.js")
"""In the order in which they are put together: each uses those before it."""
GENERATOR = "vistk report"


def html(content: dict[str, Any], title: str = "vistk report") -> str:
    """The page of a report's content, see :func:`vistk.pages.collect.collect`."""
    style = _asset("page.css")
    script = "\n".join(_asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "generator": GENERATOR,
        "policy": policy,
        "title": escape(title),
        "style": style,
        "script": script,
        "data": as_json(content),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def as_json(content: Any) -> str:
    """JSON that can stand in a ``script`` element: without ``<`` nothing in it ends the element."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def is_report(text: str) -> bool:
    """Whether the beginning of a file is that of a page made here."""
    return f'<meta name="generator" content="{GENERATOR}">' in text


def _asset(name: str) -> str:
    return files("vistk.pages").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
