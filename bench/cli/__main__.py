"""`python -m bench.cli`: the command line without the console script's check of installed packages."""

from bench.cli import app
from bench.process.standard_streams import open_closed
from bench.process.surroundings import begin

if __name__ == "__main__":
    open_closed()
    begin()
    app()
