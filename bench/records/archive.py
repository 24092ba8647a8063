"""The records of a results folder in one file, `records.tar.xz`, small enough to be kept beside the report made of them.

It has the plans, the plug-ins and, of the runs that the plans name, specs, outcomes and records: all that is read of a
folder, byte for byte.  Checkpoints and what trackers keep are left out.  The same folder gives the same bytes, which
`tar -xf` unpacks.

An archive may come from anyone, as a results folder may: only regular files are unpacked, by names that a results folder
has, and no more of them than is usual.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.records.errors import RecordError, ReportError
from bench.records.files import check_output, read, reason, storing, write_output
from bench.records.plans import ARCHIVE, Manifest, experiments_in
from bench.records.run_folder import read_run

SUFFIX = ".tar.xz"
PARTS = ("spec.json", "outcome.json", "records.jsonl")
"""Files of a run.  Its outcome is read before its records, so that one that ends meanwhile is packed as not ended."""
INSIDE = re.compile(
    r"experiments/[^/.][^/]*\.json|plugins/[^/.][^/]*/[^/.][^/]*|[0-9A-Za-z]+/(?:spec\.json|outcome\.json|records\.jsonl)"
)
"""The names that an archive may have."""
LARGEST, MOST_FILES = 2**29, 200_000
"""What an archive may hold, in bytes, and in how many files."""
SMALLEST_DICTIONARY, LARGEST_DICTIONARY = 2**16, 2**26
MEMORY = 2 * LARGEST_DICTIONARY
"""What unpacking may take for itself, in bytes: twice as much as the archives that are written here need."""
MEGABYTE = 1_000_000
LISTED = 5
_REMEDY = f"`oho-bench pack DIR -o {ARCHIVE}` writes one"


def write_archive(root: Path, output: Path, *, limit: float) -> int:
    """Packs a results folder into an archive of at most `limit` megabytes and returns its length in bytes.

    Raises:
        RecordError: if the folder holds no experiment, or a file that is not as it was written.
        ReportError: if the archive is longer, which names what takes the room, or if it cannot be written.
    """
    if not output.name.endswith(SUFFIX):
        raise ReportError(f"{output}: an archive's name ends in {SUFFIX}")
    check_output(output)
    manifests = experiments_in(root)
    files = dict(_files(root, manifests))
    content = _compressed(_tarred(files))
    if len(content) > limit * MEGABYTE:
        size = f"{len(content) / MEGABYTE:.3g} MB are more than --limit {limit:g}"
        raise ReportError(f"{output}: {size}; before compression {_shares(files, manifests)}; nothing was written")
    write_output(output, content)
    return len(content)


def _files(root: Path, manifests: list[Manifest]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of each file of an archive, files of a kind together."""
    planned = dict.fromkeys(run for manifest in manifests for run in manifest.runs)
    runs = [run for run in planned if (root / run / "spec.json").exists()]
    for run in runs:
        read_run(root / run)  # raises where it is damaged
    names = [f"experiments/{manifest.experiment}.json" for manifest in manifests]
    names += sorted(path.relative_to(root).as_posix() for path in root.glob("plugins/*/*") if path.suffix == ".py")
    names += [f"{run}/{part}" for part in PARTS for run in runs]
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # a run that has not ended has no outcome
            yield name, _content(root / name)


def _content(path: Path) -> bytes:
    try:
        return read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({reason(error)})") from None


def _tarred(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)  # of no user, at no time, so that the bytes depend on the files alone
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if len(files) > MOST_FILES or packed.tell() > LARGEST:
        most = f"{LARGEST // 2**20} MiB and {MOST_FILES:,} files"
        raise ReportError(f"{len(files):,} files of {packed.tell() / MEGABYTE:,.0f} MB; an archive holds at most {most}")
    return packed.getvalue()


def _compressed(content: bytes) -> bytes:
    """Compresses as far as xz can, with no larger a dictionary, which costs memory, than the content fills."""
    size = min(max(len(content), SMALLEST_DICTIONARY), LARGEST_DICTIONARY)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}]
    return lzma.compress(content, filters=filters)


def _shares(files: Mapping[str, bytes], manifests: list[Manifest]) -> str:
    """Returns the sizes of the experiments' files in words, the largest first."""
    of = {run: manifest.experiment for manifest in reversed(manifests) for run in manifest.runs}
    sizes: Counter[str] = Counter()
    for name, content in files.items():
        sizes[of.get(name.partition("/")[0], "plans and plug-ins")] += len(content)
    shares = [f"{name} {size / MEGABYTE:.3g}" for name, size in sizes.most_common(LISTED)]
    return f"{sizes.total() / MEGABYTE:.3g} MB: {', '.join(shares)}{', ...' if len(sizes) > LISTED else ''}"


def archive_at(path: Path) -> Path | None:
    """Returns the archive that a path is or that the folder keeps in the place of its runs; None if there is none."""
    if path.name.endswith(SUFFIX) and path.is_file():
        return path
    return path / ARCHIVE if (path / ARCHIVE).exists() and not (path / "experiments").exists() else None


@contextlib.contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """Yields a results folder: the path or, where an archive stands in its place, a temporary folder of what that holds.

    Raises `RecordError` for an archive that is damaged or not one of records; errors in the block name the archive.
    """
    archive = archive_at(path)
    if archive is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="oho-bench-") as scratch:
        folder = Path(scratch)
        try:
            # What a user names may be a link, what a folder holds may not.
            _unpack(archive.resolve() if archive == path else archive, folder)
            yield folder
        except (RecordError, ReportError) as error:
            raise type(error)(str(error).replace(scratch, str(archive))) from None


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(archive)), mode="r:") as members:
            for number, member in enumerate(members, start=1):
                name = member.name
                if not (member.isreg() and not member.issparse() and INSIDE.fullmatch(name) and name.isprintable()):
                    raise RecordError(f"{archive}: holds {name!r}, which no archive of records does; {_REMEDY}")
                if number > MOST_FILES or member.size > LARGEST or (folder / name).exists():
                    raise RecordError(f"{archive}: holds too many files, or {name!r} twice; {_REMEDY}")
                content = members.extractfile(member)
                assert content is not None
                with storing(folder):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content.read())
    except (tarfile.TarError, ValueError, OverflowError, KeyError) as error:
        raise RecordError(f"{archive}: is not an archive of records ({error}); {_REMEDY}") from None


def _decompressed(archive: Path) -> bytes:
    try:
        packed = read(archive)
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
        content = decoder.decompress(packed, LARGEST + 1)
    except OSError as error:
        raise RecordError(f"{archive}: cannot be read ({reason(error)})") from None
    except lzma.LZMAError as error:
        raise RecordError(f"{archive}: is damaged or not compressed with xz ({error}); {_REMEDY}") from None
    if len(content) > LARGEST:
        raise RecordError(f"{archive}: holds more than {LARGEST // 2**20} MiB, which no archive of records does; {_REMEDY}")
    if not decoder.eof:
        raise RecordError(f"{archive}: ends before its end, as a file that was not copied whole; {_REMEDY}")
    return content
