"""Code shared by fine-tuning and pre-training; the loops themselves are in the scripts."""
