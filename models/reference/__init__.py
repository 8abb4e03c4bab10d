"""Bounds to compare with: floors that answer with the prompt itself, and a ceiling that sees the target."""
