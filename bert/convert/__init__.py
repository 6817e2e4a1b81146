"""Convert a model to another format with proof, or compare two: ``python -m bert.convert``."""
