"""The steps of finetune_classifier.py."""
