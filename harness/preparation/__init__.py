"""From the files of a data set, as their owners publish them, to its canonical form (`promptseg.data.prepared`).

``tree`` opens folders and archives, ``volumes`` and ``intensity`` read what is in them, ``layouts`` find the cases of
a data set, ``run`` writes them, ``check``, ``preview`` and ``push`` work on what was written.
"""
