"""Find specs by name (entry points, promptseg.toml) and the code that a spec refers to."""

from promptseg.registry.entries import GROUPS, Registered, RegisteredTask, Registry, build

__all__ = ["GROUPS", "Registered", "RegisteredTask", "Registry", "build"]
