"""Compile the C++ operators ahead of their first use, and print the path of the library."""

from bert.cli.flags import Parser
from bert.cli.program import run
from bert.ops import build
from bert.system import packages
from bert.system.errors import ToolkitError
from bert.system.terminal import show


def main():
    """Build the operators and print the path of the library."""
    Parser(__doc__, prog='python -m bert.ops').parse_args()
    packages.check_mxnet()
    try:
        show(str(build.build()))
    except ToolkitError as error:
        raise ToolkitError(
            f"the operators cannot be built, MXNet's own are used: {error}"
        ) from None


if __name__ == '__main__':
    run(main)
