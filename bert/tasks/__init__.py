"""The GLUE tasks and the user's own: their files, metrics, predictions and submissions."""
