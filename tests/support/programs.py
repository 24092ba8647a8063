"""Programs that the documentation and the examples show, as a reader runs them."""

import contextlib
import io

import torch


def printed_by(text):
    """What the program prints, in this process: it has imported already what most programs take seconds to import."""
    with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})
    return printed.getvalue()
