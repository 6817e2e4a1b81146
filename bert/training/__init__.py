"""What fine-tuning and pre-training share; the loops themselves are in the scripts."""
