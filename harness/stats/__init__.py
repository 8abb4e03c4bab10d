"""Pure statistics of IoU: summaries, bootstrap, paired comparisons, betting, ranks."""
