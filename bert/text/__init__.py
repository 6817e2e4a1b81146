"""Text: vocabularies, tokenizers, and the arrays that BERT takes."""
