"""Make calibration pairs of an array whose elements are not what its geometry file says.

    python examples/rf/make_pairs.py examples/rf/array.toml pairs.npz

Here a simulated array stands for yours: known scenes x, and what its elements, each with a phase error of 10 degrees
and a gain error of 1 dB, measure of them. With a real one, put reflectors at known voxels and store what arrives in
the same two arrays. Beside the pairs go a measurement to try `fanfold apply` on, `y.npy`, and what was there, `x.npy`.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fanfold.problems import RFGeometry


def main(geometry: str, out: str, samples: int = 500) -> None:
    """Write pairs, and one more measurement beside them."""
    array = RFGeometry(geometry, sparsity=0.05, snr_db=30, phase_deg=10, gain_db=1)
    x, obs = array.sample(samples + 1, torch.Generator().manual_seed(0))
    np.savez(out, x=x[1:].numpy(), y=obs.y[1:].numpy())
    np.save(Path(out).with_name("x.npy"), x[0].numpy())
    np.save(Path(out).with_name("y.npy"), obs.y[0].numpy())


if __name__ == "__main__":
    main(*sys.argv[1:3])
