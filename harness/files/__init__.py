"""Bring pinned files of models and data sets to this machine, whole and checked."""
