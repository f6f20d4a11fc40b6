"""Whether a run was made on this machine: a seal over its config, by a key that never leaves the machine.

The key is 32 random bytes in `fanfold/seal.key` of the user's state directory, `XDG_STATE_HOME` or `~/.local/state`,
which the user alone can read. Whoever sends a run cannot seal its config, nor another one.
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
    """Seal the config of a run directory as made here; where this machine keeps no key, it stays without a seal."""
    key = _key()
    if key is not None:
        write_whole(folder / FILE, _code(key, config).encode(), follow=False)


def is_sealed(folder: Path, config: bytes) -> bool:
    """Whether a config was sealed on this machine, by this user."""
    if not is_regular(folder / FILE):
        return False
    key = _key()
    return key is not None and hmac.compare_digest(_code(key, config).encode(), read_regular(folder / FILE))


def key_file() -> Path:
    """The file of this machine's key."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "fanfold" / "seal.key"


def _code(key: bytes, config: bytes) -> str:
    return hmac.new(key, b"fanfold run\0" + config, hashlib.sha256).hexdigest()


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
