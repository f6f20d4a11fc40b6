"""Other libraries through fanfold's own types: operators of PyLops and deepinv, channels of Sionna."""

from fanfold.adapters.deepinv import from_deepinv
from fanfold.adapters.pylops import from_pylops

__all__ = ["from_deepinv", "from_pylops"]


def __dir__() -> list[str]:
    return __all__
