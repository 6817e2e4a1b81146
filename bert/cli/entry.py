"""The scripts as commands without ``.py``: entry points, which run the file of that name."""

import os
import sys
from pathlib import Path


def run_script():
    """Run the script beside this command that has its name, in this process."""
    script = Path(sys.argv[0]).resolve().with_suffix('.py')
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])
