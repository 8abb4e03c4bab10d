"""A model whose module does not import, as with a library that is missing."""

raise ImportError("libmissing.so.1: cannot open shared object file: No such file or directory")
