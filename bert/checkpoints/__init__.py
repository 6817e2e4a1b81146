"""Models as files: found, fetched, read and written, in the formats of all who made them."""
