"""Models as files: how to find, fetch, read and write them in every format in use."""
