"""The built-in models: one small module each, a SPEC and a load()."""
