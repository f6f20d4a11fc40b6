"""The folder of a release: its files with their hashes, read as something that anyone may have sent.

manifest.json           every other file, with its size and SHA-256
signature.json          who made it, over all others: there if the release was signed
certificate.json        what was measured, against which limits
certificate.html        the same to read
model-card.md           what the model is for, where, and how good
bom.cdx.json            a bill of materials, CycloneDX with a model card
profile.toml            the profile that the release was held against
run/                    config, operator and weights, as a run directory keeps them
golden.safetensors      golden vectors
cells.safetensors       errors of every draw in every cell
onnx/, c/, integer/     the exported programs
guarded/                of a guarded release: the guard without its network, golden calls, and its programs

To read it is to read these files and no others: nothing is unpacked or unpickled, no link is followed.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fanfold.core.data_files import check_depth
from fanfold.core.files import file_hash, is_regular, read_regular, write_whole

MANIFEST, CERTIFICATE, PAGE, CARD, BILL = (
    "manifest.json", "certificate.json", "certificate.html", "model-card.md", "bom.cdx.json",
)  # fmt: skip
SIGNATURE = "signature.json"  # the one file that the manifest does not list, as it is made after that
PROFILE, GOLDEN, CELLS, RUN = "profile.toml", "golden.safetensors", "cells.safetensors", "run"
CONFIG, ENVIRONMENT, WEIGHTS = "run/config.toml", "run/environment.json", "run/weights.safetensors"
OPERATOR, ONNX, C_SOURCE = "run/operator.safetensors", "onnx/estimator.onnx", "c/estimator.c"
INTEGER, GUARDED = "integer", "guarded/"  # the folders of an integer program and of a guard
GUARD, MONITOR, CALLS = "guarded/guard.safetensors", "guarded/monitor.safetensors", "guarded/golden.safetensors"
OF_GUARD = {"guard": GUARD, "monitor": MONITOR, "golden calls": CALLS}  # what a certificate has the hashes of
GUARDED_ONNX, GUARDED_C = "guarded/guarded.onnx", "guarded/guarded.c"
NEEDED = (CERTIFICATE, PROFILE, GOLDEN, CELLS, CONFIG, ENVIRONMENT, WEIGHTS)
SCHEMA = 1
MOST_FILES, DEEPEST = 100, 4
MOST_BYTES = 2**31  # of all files
MOST_TEXT = 2**24  # of a file that is parsed as a whole
MOST_HEADER = 2**20  # of a file of tensors
TEXTS = (".json", ".toml", ".md", ".html")


class Entry(NamedTuple):
    """What a manifest says of a file.

    Example:
        >>> from fanfold.deploy.release.bundle import Entry
        >>> Entry("0" * 64, 12).size
        12
    """

    sha256: str
    size: int  # in bytes


class Bundle:
    """A release that was opened and found whole: every file is listed, and is what its hash says.

    Args:
        path: The folder.

    Attributes:
        signed: How many bytes its signature has; 0 if it is not signed.

    Raises:
        ValueError: If it is no such folder, or something about it is not as it should be; says what.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        check_bundle_folder(self.path)
        files = dict(_listed(self.path, ""))
        if MANIFEST not in files:
            raise ValueError(f"{self.path} has no {MANIFEST}: it is no release, or not a whole one.")
        self.entries = _entries(self.parsed(MANIFEST, files.pop(MANIFEST)))
        self.signed = files.pop(SIGNATURE, 0)
        for name in files:
            if name not in self.entries:
                raise ValueError(f"{self.path} holds {name}, which its manifest does not list.")
        for name in (*NEEDED, *self.entries):
            if name not in files:
                raise ValueError(f"{self.path} lacks {name}: it is not whole; get it anew.")
        for name, entry in self.entries.items():
            self._check(name, files[name], entry)

    def _check(self, name: str, size: int, entry: Entry) -> None:
        if size != entry.size:
            state = "cut short" if size < entry.size else "longer than it was"
            raise ValueError(f"{name} is {state}: it has {size} bytes, and the manifest says {entry.size}.")
        if PurePosixPath(name).suffix in TEXTS and size > MOST_TEXT:
            raise ValueError(f"{name} has {size} bytes, more than any text of a release ({MOST_TEXT}).")
        if name.endswith(".safetensors"):
            check_header(self.path / name, size)
        if file_hash(self.path / name) != entry.sha256:
            raise ValueError(f"{name} was changed: its SHA-256 is not that of the manifest.")

    def read(self, name: str) -> bytes:
        """The bytes of a file of the manifest.

        Raises:
            ValueError: If there is no such file.
        """
        if name not in self.entries:
            raise ValueError(f"{self.path} has no {name}.")
        return read_regular(self.path / name)

    def json(self, name: str) -> dict[str, Any]:
        """The object of a JSON file.

        Raises:
            ValueError: If it holds none.
        """
        return self.parsed(name, self.entries[name].size)

    def parsed(self, name: str, size: int) -> dict[str, Any]:
        """The object of a JSON file of so many bytes, whether the manifest lists it or not.

        Raises:
            ValueError: If it holds none, or is too large or too deep to be parsed.
        """
        if size > MOST_TEXT:
            raise ValueError(f"{name} has {size} bytes, more than any text of a release ({MOST_TEXT}).")
        try:
            data = json.loads(read_regular(self.path / name))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is no JSON ({str(error)[:80]}).") from error
        if not isinstance(data, dict):
            raise ValueError(f"{name} holds no object.")
        check_depth(data)
        return data

    def hash_of(self, name: str) -> str | None:
        """The SHA-256 of a file; None where there is none."""
        return self.entries[name].sha256 if name in self.entries else None


def check_bundle_folder(path: Path) -> None:
    """Refuse what is no folder.

    Raises:
        ValueError: Says what it is.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which is not followed; give the folder of the release.")
    if path.is_file():
        raise ValueError(f"{path} is a file; archives are not unpacked: give the folder of the release.")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; give the folder of a release, as fanfold certify writes it.")


def check_header(path: Path, size: int) -> None:
    """Refuse a file of tensors whose header is longer than the file, or than any header is, before it is parsed.

    Raises:
        ValueError: Says how long.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MOST_HEADER):
        raise ValueError(f"{path.name} says that its header has {length} bytes; the file has {size}, a header at most "
                         f"{MOST_HEADER}.")  # fmt: skip


def write_manifest(folder: Path) -> None:
    """List all files of a folder with their sizes and hashes, in `manifest.json`."""
    files = {
        name: {"sha256": file_hash(folder / name), "bytes": size}
        for name, size in sorted(_listed(folder, ""))
        if name not in (MANIFEST, SIGNATURE)
    }
    write_whole(folder / MANIFEST, json.dumps({"schema": SCHEMA, "files": files}, indent=1).encode())


def _listed(folder: Path, prefix: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Files below a folder with their sizes, each a plain one; at most so many bytes and files."""
    count = total = 0
    with os.scandir(folder / prefix) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if depth == DEEPEST:
                    raise ValueError(f"{folder} has folders in folders, deeper than any release: {name}.")
                inside = list(_listed(folder, f"{name}/", depth + 1))
            else:
                if not is_regular(folder / name):
                    kind = "a link" if stat.S_ISLNK(entry.stat(follow_symlinks=False).st_mode) else "no plain file"
                    raise ValueError(f"{name} is {kind}, which a release never has.")
                inside = [(name, entry.stat(follow_symlinks=False).st_size)]
            count, total = count + len(inside), total + sum(size for _, size in inside)
            if count > MOST_FILES or total > MOST_BYTES:
                raise ValueError(f"{folder} holds more than {MOST_FILES} files or {MOST_BYTES} bytes.")
            yield from inside


def _entries(data: dict[str, Any]) -> dict[str, Entry]:
    if data.get("schema") != SCHEMA or not isinstance(data.get("files"), dict):
        raise ValueError(f"{MANIFEST} has schema {data.get('schema')!r}; this fanfold reads {SCHEMA}.")
    entries: dict[str, Entry] = {}
    for name, said in data["files"].items():
        parts = name.split("/")
        if any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in parts) or name in (MANIFEST, SIGNATURE):
            raise ValueError(f"{MANIFEST} names {name[:60]!r}, which is no file within the release.")
        if not isinstance(said, dict) or not isinstance(said.get("sha256"), str) or type(said.get("bytes")) is not int:
            raise ValueError(f"{MANIFEST} says neither size nor SHA-256 of {name[:60]!r}.")
        entries[name] = Entry(said["sha256"], said["bytes"])
    return entries
