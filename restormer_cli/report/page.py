"""Makes one HTML file from a template, a style, scripts and data, safely apart."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

SCRIPTS = ("dom.js", "grid.js", "viewer.js", "page.js")

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def as_html(values: Mapping[str, Any]) -> bytes:
    """Make the page for the values of a report, in UTF-8.

    The page's security policy allows only our own script and style, by their hashes, and no
    connections.
    """
    script = "\n".join(_text(name) for name in SCRIPTS)
    style = _text("page.css")
    parts = {
        "title": html.escape(str(values["title"]).encode("utf-8", "replace").decode("utf-8")),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "data": as_json(values),
    }
    # In one pass: what is put in is not looked at again.
    page = _PLACEHOLDER.sub(lambda match: parts[match[1]], _text("page.html"))
    return page.encode("utf-8")


def as_json(values: Mapping[str, Any]) -> str:
    """Make JSON for a ``script`` element: ASCII without ``<``, ``>`` and ``&``."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash of an inline element for a Content-Security-Policy."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
