"""What several test files share. `tests` is on the import path, so tests say ``from support.blocks import ...``."""
