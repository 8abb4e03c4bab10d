"""The built-in data sets: one small module each, a SPEC and a load()."""
