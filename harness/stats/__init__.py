"""Pure statistics of arrays: bootstrap, paired comparisons, betting, ranks. Imports numpy alone."""
