"""Render the board as Markdown: pure. Every text that comes from plugins, data or results passes through `escape`."""

from promptseg.leaderboard.render.document import render

__all__ = ["render"]
