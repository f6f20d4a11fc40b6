"""Complex numbers are read from real and imaginary parts, however a file stores them, wherever data are read."""

import h5py
import numpy as np
import pytest
import torch

from fanfold.core.complex_parts import complex_parts
from fanfold.problems import Pairs
from fanfold.propagation import source_of

RNG = np.random.default_rng(0)
H = (RNG.standard_normal((20, 4, 6, 2)) @ np.array([1, 1j])).astype(np.complex64)
NAMES = {
    "bare": (["re", "im"], {"": ("re", "im")}),
    "long": (["real", "imag"], {"": ("real", "imag")}),
    "short": (["r", "i"], {"": ("r", "i")}),
    "capitals": (["H_Re", "H_Im"], {"H": ("H_Re", "H_Im")}),
    "group": (["link/H/real", "link/H/imag"], {"link/H": ("link/H/real", "link/H/imag")}),
    "two": (["a_re", "a_im", "b.re", "b.im"], {"a": ("a_re", "a_im"), "b": ("b.re", "b.im")}),
    "alone": (["re", "H"], {}),
    "another": (["H", "H_re", "H_im"], {}),
    "words": (["fire", "fiim", "measure"], {}),
}


@pytest.mark.parametrize(("names", "parts"), NAMES.values(), ids=NAMES)
def test_parts_are_told_by_their_names(names, parts):
    assert complex_parts(names) == parts


def expected() -> torch.Tensor:
    return torch.from_numpy(H / np.sqrt((np.abs(H) ** 2).mean()))


def written(path, how: str) -> str:
    """A file with the channels H, and something else."""
    if how == "npz":
        np.savez(path / "h.npz", H_re=H.real, H_im=H.imag, time=np.arange(20))
        return str(path / "h.npz")
    compound = np.zeros(H.shape, {"r, i": [("r", "f4"), ("i", "f4")]}.get(how, [("real", "f8"), ("imag", "f8")]))
    for part, name in zip((H.real, H.imag), compound.dtype.names, strict=True):
        compound[name] = part
    file = path / ("h.mat" if how == "matlab" else "h.h5")
    with h5py.File(file, "w") as stream:
        if how in ("r, i", "compound"):
            stream["H"] = compound
        elif how == "matlab":
            stream["H"] = compound.T
        elif how == "group":
            stream["link/H/real"], stream["link/H/imag"] = H.real, H.imag
        else:
            stream["re"], stream["im"] = H.real, H.imag
        stream["time"] = np.arange(20)
    return str(file)


@pytest.mark.parametrize("how", ["re, im", "group", "r, i", "compound", "matlab", "npz"])
def test_channels_are_read_as_complex(tmp_path, how):
    source = source_of(written(tmp_path, how))
    torch.testing.assert_close(source.channels[:, :, 0], expected(), rtol=1e-5, atol=1e-6)


def test_parts_of_different_shapes_are_refused(tmp_path):
    with h5py.File(tmp_path / "h.h5", "w") as stream:
        stream["re"], stream["im"] = H.real, H.imag[:5]
    with pytest.raises(ValueError, match=r"shape|im"):
        source_of(str(tmp_path / "h.h5"))


def test_pairs_are_read_as_complex(tmp_path):
    x, y = H[:, :, 0], H[:, 0]
    parts = {"x_re": x.real, "x_im": x.imag, "y_real": y.real, "y_imag": y.imag}
    np.savez(tmp_path / "pairs.npz", **parts)
    stored = Pairs(str(tmp_path / "pairs.npz")).shifted(held_out_share=0.5)
    given = Pairs(x=x, y=y, held_out_share=0.5)
    for one, other in zip(stored.every(), given.every(), strict=True):
        first, second = (v if isinstance(v, torch.Tensor) else v.y for v in (one, other))
        assert torch.equal(first, second)
