"""An example of a package that is broken in two ways."""
