"""The console script.  If only the library `oho` is installed, it says how to install the suite."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from bench.process.standard_streams import open_closed
from bench.process.surroundings import begin


def main() -> None:
    """Carries out the command line; the exit code is 2 if packages of the suite are not installed."""
    open_closed()
    begin()
    try:
        from bench.cli import app

        app(prog_name="oho-bench")
    except ModuleNotFoundError as error:
        if not _lacks_packages():
            raise
        print(
            f"oho-bench: the suite's packages are not installed (there is no {error.name}); pip install 'oho-bench[bench]'",
            file=sys.stderr,
        )
        sys.exit(2)


def _lacks_packages() -> bool:
    """Returns whether a package of the extra `bench` is missing."""
    try:
        for requirement in distribution("oho-bench").requires or ():
            if re.search(r"extra == .bench.", requirement):
                distribution(re.split(r"[^\w.-]", requirement)[0])
    except PackageNotFoundError:
        return True
    return False


if __name__ == "__main__":
    main()
