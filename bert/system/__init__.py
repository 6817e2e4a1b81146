"""The ground floor: errors, files, the environment, the machine and its processes."""
