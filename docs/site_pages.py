"""Makes the site's pages that are not files of this folder: a hook of mkdocs.

Files of the repository that pages link to are part of the site, under the paths they have in the repository; links out of
`docs/` lead there.  The tables of methods, tasks, data sets, figures and commands are read off the code.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from bench.cli import app
from bench.command.option_help import DRAWN, described
from bench.experiment.registries import DATA_SETS, FIGURES, METHODS, TASKS

ROOT = Path(__file__).parents[1]
SHOWN = (
    "*.md", "CITATION.cff", "configs/**/*.yaml", "examples/*.py", "results/**/*.*", "tests/golden/README.md",
)  # fmt: skip
"""What belongs to the site from outside of `docs/`."""
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s:#]+)(?=[)#\s])")
"""A relative link's target, without its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds files of the repository and generated pages."""
    for path in sorted(path for pattern in SHOWN for path in ROOT.glob(pattern)):
        if "__pycache__" not in path.parts:
            files.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    for name, lines in GENERATED.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links between files of the repository links between files of the site."""
    here = page.file.src_uri
    source = posixpath.join("docs", here) if page.file.src_dir == config.docs_dir else here

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))
        target = target.removeprefix("docs/")
        is_shown = files.get_file_from_path(target) is not None
        return posixpath.relpath(target, posixpath.dirname(here) or ".") if is_shown else match["target"]

    return LINK.sub(moved, markdown)


def methods() -> Iterator[str]:
    """The page of the methods."""
    yield from ("# Methods", "", "What an experiment's `methods` may name. `oho-bench list NAME` prints the same.", "")
    yield from (DRAWN, "")
    for family in dict.fromkeys(entry.family for entry in METHODS.values()):
        yield from (f"## Family: {family}", "")
        for name, entry in METHODS.items():
            if entry.family == family:
                yield from _options(name, "###")
                if entry.package:
                    yield from (f"It needs the package `{entry.package.distribution}`.", "")


def tasks() -> Iterator[str]:
    """The page of the tasks."""
    yield from ("# Tasks", "", "What an experiment's `task` may name. `oho-bench list NAME` prints the same.", "")
    for name in TASKS:
        yield from _options(name, "##")


def data_sets() -> Iterator[str]:
    """The page of the data sets."""
    yield "# Data sets"
    yield from ("", "`oho-bench data list` says which of them are there, and `oho-bench data fetch NAME` fetches one.")
    rows = ((f"`{name}`", entry.description, f"{entry.training_examples:,}") for name, entry in DATA_SETS.items())
    yield from _table(("name", "what", "training examples"), rows)


def figures() -> Iterator[str]:
    """The page of the figures."""
    yield from ("# Figures", "", "What an experiment's `figures` may name, and what `oho-bench figure NAME` draws.")
    rows = ((f"`{name}`", entry.title, entry.description) for name, entry in FIGURES.items())
    yield from _table(("name", "title", "what it shows"), rows)


def command_line() -> Iterator[str]:
    """The page of the commands: what `--help` says of each."""
    yield "# The command line"
    pending = [("oho-bench", typer.main.get_command(app), None)]
    while pending:
        name, command, parent = pending.pop(0)
        context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=100)
        inner = getattr(command, "commands", {})
        title = context.command_path
        yield from ("", f"## `{title}`" if parent else "", "", "```text", command.get_help(context), "```")
        pending = [(key, one, context) for key, one in inner.items()] + pending


def _options(name: str, heading: str) -> Iterator[str]:
    """The section of one method or task."""
    found = described(METHODS[name] if name in METHODS else TASKS[name])
    yield from (f"{heading} {name}", "", f"{found.description[:1].upper()}{found.description[1:]}.", "", found.explanation)
    rows = ((f"`{option.name}`", f"`{option.default}`", option.takes) for option in found.options)
    yield from _table(("option", "default", "takes"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield ""
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


GENERATED = {"methods": methods, "tasks": tasks, "data-sets": data_sets, "figures": figures, "command-line": command_line}
"""Pages of `reference/` by name."""
