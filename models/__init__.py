"""Models that come with promptseg: one small module each, a SPEC and a load()."""
