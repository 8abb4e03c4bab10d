"""From names to specs (entry points, promptseg.toml) and from specs to code."""

from promptseg.registry.entries import GROUPS, Registered, RegisteredTask, Registry, build

__all__ = ["GROUPS", "Registered", "RegisteredTask", "Registry", "build"]
