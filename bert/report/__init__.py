"""The page that says whether a fine-tuning worked: its numbers, words, pictures and markup."""
