"""Convert a model to another format and verify it, or compare two: ``python -m bert.convert``."""
