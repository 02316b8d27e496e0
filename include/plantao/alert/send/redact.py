"""What may not leave: values of rows, and secrets. Pure."""

from __future__ import annotations

import re

QUOTED = re.compile(r"(?<!\w)'([^'\n]{1,500})'(?!\w)|\"([^\"\n]{1,500})\"")
# What a message calls a column is the name of one, and no value of a row.
COLUMNS = re.compile(r"\bcolumns? ('[^'\n]{1,100}'(?:(?:, | or | and )'[^'\n]{1,100}')*)")


def escape(text: str) -> str:
    """Return text that Slack takes as text: no mention, no link and no mark-up of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def redacted(text: str, names: frozenset[str]) -> str:
    """Return text without values that it quotes, and without mail addresses; names of columns, and `names`, stay."""
    names |= {name for found in COLUMNS.findall(text) for name in re.findall(r"'([^']+)'", found)}
    text = re.sub(r"[\w.+-]+@[\w-]+\.[\w.]+", "…", text)
    return QUOTED.sub(
        lambda found: found[0] if (found[1] or found[2]) in names else f"{found[0][0]}…{found[0][0]}", text
    )


def masked(text: str) -> str:
    """Return text without secrets, whatever the settings: tokens, passwords in addresses, webhooks."""
    text = re.sub(r"xox[a-z]-[\w-]+", "***", text)
    text = re.sub(r"(hooks\.slack\.com/services/)\S+", r"\1***", text)
    text = re.sub(r"(://[^\s:/@]*:)[^\s/]+@", r"\1***@", text)
    return re.sub(r"(?i)\b(password|passwd|secret|token)(\s*[=:]\s*)\S+", r"\1\2***", text)
