"""Thresholds, baselines and gates: what numbers mean for a test."""
