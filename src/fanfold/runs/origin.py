"""Whether a run was made on this machine, and in which folder: a seal over both, by a key that stays here.

The key is 32 random bytes in `fanfold/seal.key` of the user's state directory, `XDG_STATE_HOME` or `~/.local/state`,
which the user alone can read. Whoever sends a run cannot seal its config, nor another one. A command may name files
from the folder where one is, so that the same one may start something else in another folder: the seal says in which
folder the run was made.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fanfold.core.files import is_regular, read_regular, write_whole

FILE = "sealed"  # in a run directory
KEY_BYTES = 32


def seal(folder: Path, config: bytes) -> None:
    """Seal the config of a run directory as made here, in the present folder, if this machine can keep a key."""
    key, place = _key(), os.getcwdb()
    if key is not None:
        write_whole(folder / FILE, _code(key, config, place) + b" " + place, follow=False)


def made_in(folder: Path, config: bytes) -> Path | None:
    """The folder in which this user was, on this machine, when a run with this config was made; None of other runs."""
    if not is_regular(folder / FILE):
        return None
    key, (code, _, place) = _key(), read_regular(folder / FILE).partition(b" ")
    if key is None or not hmac.compare_digest(_code(key, config, place), code):
        return None
    return Path(os.fsdecode(place))


def check_command(folder: Path, config: bytes, command: str, what: Path) -> None:
    """Refuse to start a program that a run or its config names, unless the run was made here, in the present folder.

    Args:
        folder: The run directory, with the seal.
        config: What the config holds.
        command: The command that would be started.
        what: The run or the config, as the user knows it.

    Raises:
        ValueError: Shows the command, and says how to allow it.
    """
    place = made_in(folder, config)
    if place is not None and place == Path.cwd():
        return
    strange = "was not made on this machine" if place is None else f"was made in {place} and not in this folder"
    raise ValueError(
        f"{what} {strange}, and would start a program: {command!r}. Read the command, and if you trust it, and the "
        "files that it names, allow it: --allow-program, or allow_program=True."
    )


def key_file() -> Path:
    """The file of this machine's key."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "fanfold" / "seal.key"


def _code(key: bytes, config: bytes, place: bytes) -> bytes:
    message = b"fanfold run\0" + hashlib.sha256(config).digest() + place
    return hmac.new(key, message, hashlib.sha256).hexdigest().encode()


def _key() -> bytes | None:
    """The key, made when it is first asked for; None where it cannot be kept, or others could have read it."""
    try:
        file = key_file()
        if not file.exists():
            _make(file)
        mode = file.stat().st_mode
        key = read_regular(file)
    except (OSError, RuntimeError, ValueError):  # no home, nowhere to write
        return None
    readable_by_others = os.name == "posix" and mode & 0o077
    return None if readable_by_others or len(key) != KEY_BYTES else key


def _make(file: Path) -> None:
    """Make a key, or leave the one that another process made at the same moment."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)  # which fails where there is one
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
