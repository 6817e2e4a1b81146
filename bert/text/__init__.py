"""Text: vocabularies, tokenizers, and the input arrays for BERT."""
