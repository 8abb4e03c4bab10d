"""From stored rows to numbers, and what these mean for a test: thresholds, baselines, gates, early stopping."""
