"""Our click models beside the repositories of their authors; `compare_rivals.py` is the command."""
