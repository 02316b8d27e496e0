"""Texts of ours in a database that is not in UTF-8: what its encoding cannot hold is replaced, not refused. Pure."""

from __future__ import annotations

import json
from typing import Any

UTF8 = "UTF8"
# Where no encoding is known, the server takes any bytes as they are; PostgreSQL's escapes of JSON need one that is.
UNKNOWN = "SQL_ASCII"


def replaced(value: Any, codec: str) -> Any:
    """Return parameters of a statement with every character replaced that the codec does not have.

    Text that is JSON is written without escapes: the server would convert these, and refuse what it cannot.
    """
    if isinstance(value, str):
        return _unescaped(value).encode(codec, "replace").decode(codec)
    if isinstance(value, dict):
        return {name: replaced(inner, codec) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replaced(inner, codec) for inner in value)
    return value


def _unescaped(text: str) -> str:
    if "\\u" not in text or text[:1] not in {"{", "[", '"'}:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text
