"""The steps of create_pretraining_data.py and run_pretraining.py."""
