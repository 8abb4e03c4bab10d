"""Turn the files of a data set, as their owners publish them, into its prepared form (`promptseg.data.prepared`).

``tree`` opens folders and archives, ``volumes`` and ``intensity`` read what is in them, ``layouts`` find the cases of
a data set, ``run`` writes them; ``check``, ``preview`` and ``push`` work on what was written.
"""
