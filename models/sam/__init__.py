"""SAM and its descendants: built-in models, and adapters for checkpoints of your own."""
