"""The command `promptseg`."""
