"""Evaluate one model on one data set: prompts, predictions, rows. Its source is part of every fingerprint."""
