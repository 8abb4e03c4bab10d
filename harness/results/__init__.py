"""What a result is, what it depends on, and how it is kept on disk."""
