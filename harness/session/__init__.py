"""One pytest session: options, selection of cells, fixtures, the report at its end."""
