"""Who made a release: a detached signature over all of its files, by OpenSSF model signing with a key pair, offline.

The signature is a file of the release and covers every other one, the manifest too: SHA-256 of each in an in-toto
statement, signed by ECDSA, as JSON of a sigstore bundle. `model_signing verify key` reads it without fanfold.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from fanfold.deploy.release.bundle import SIGNATURE, Bundle

REASONS = {  # what the library's errors begin with, and what we say
    "Signature mismatch": "a file was changed, added or lost after it was made",
    "Key mismatch": "it was made with another key",
    "": "it was made with another key, or changed",
}
CURVES = "key of an elliptic curve P-256, P-384 or P-521, in PEM without a password"


def signs_with(key: str | Path) -> Callable[[Path], None]:
    """What writes a signature into a folder, with a private key that was read.

    Args:
        key: The file of the key.

    Raises:
        ImportError: If model-signing is not installed.
        OSError: If the file cannot be read.
        ValueError: If it holds no such key.
    """
    signing = _library("signing")
    config = _with_key(key, lambda: signing.Config().use_elliptic_key_signer(private_key=key), "private")
    return lambda folder: config.sign(folder, folder / SIGNATURE)


def checks_with(key: str | Path) -> Callable[[Bundle], None]:
    """What raises a `ValueError` unless a release is just as the holder of a key signed it.

    Args:
        key: The file of the public key.

    Raises:
        ImportError: If model-signing is not installed.
        OSError: If the file cannot be read.
        ValueError: If it holds no such key.
    """
    verifying = _library("verifying")
    config = _with_key(key, lambda: verifying.Config().use_elliptic_key_verifier(public_key=key), "public")

    def check(bundle: Bundle) -> None:
        if not bundle.signed:
            raise ValueError(f"it has no {SIGNATURE}: nobody signed it.")
        bundle.parsed(SIGNATURE, bundle.signed)  # neither too large nor too deep for the library
        try:
            with redirect_stdout(StringIO()):  # it prints where a signature does not say its key
                config.verify(bundle.path, bundle.path / SIGNATURE)
        except Exception as error:  # of many kinds, all of them the file's fault
            said = str(error).partition("\n")[0]
            reason = REASONS.get(said.partition(":")[0], said)
            raise ValueError(f"the signature does not hold: {reason}.") from error

    return check


def _library(part: str) -> Any:
    try:
        return import_module(f"model_signing.{part}")
    except ImportError as missing:
        raise ImportError("signatures need model-signing: pip install 'fanfold[sign]'") from missing


def _with_key(key: str | Path, configure: Callable[[], Any], kind: str) -> Any:
    """What signs or checks with a key. Every file counts but the signature, those that git would ignore too."""
    with Path(key).open("rb"):  # the system says best what is wrong with a path
        pass
    try:
        config = configure()
    except Exception as error:  # of many kinds: a key of another sort has no curve
        raise ValueError(f"{key} is no {kind} {CURVES} ({str(error)[:80]}).") from error
    hashing = _library("hashing").Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    return config.set_hashing_config(hashing)
