"""What the documentation site needs beyond Markdown: mkdocs calls these functions (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import re


def on_page_markdown(markdown: str, **_about: object) -> str:
    """Return a page whose code fences have their file names as titles: ```toml promptseg.toml is no Markdown."""
    return re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
