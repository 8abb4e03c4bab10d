"""An example of a package that brings a model, a data set and a prompt mode to promptseg."""
