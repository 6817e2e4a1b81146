"""Command lines: flags, log lines and progress bars, signals and exit statuses."""
