"""The ground floor: errors, files, the machine and its processes."""
