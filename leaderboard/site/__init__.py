"""The report: a static site of results, made by ``promptseg report``, that opens from a folder without a server."""
