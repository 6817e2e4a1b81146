"""Build the operators ahead of their first use: ``python -m bert.ops``."""

from bert import environment
from bert.cli import ToolkitError, build_parser, run
from bert.ops import build


def main():
    """Build, and say where the library is."""
    build_parser(__doc__).parse_args()
    environment.check_mxnet()
    try:
        print(build.build())
    except build.BuildError as error:
        raise ToolkitError(f"the operators cannot be built, MXNet's own will do: {error}") from None


if __name__ == '__main__':
    run(main)
