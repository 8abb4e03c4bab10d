"""Run the cells of one (model, data set) here or on a Ray cluster, reusing stored results."""
