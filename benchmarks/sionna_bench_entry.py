"""LMMSE of fanfold as a channel estimator of Sionna, in the set-up of Sionna Bench's MIMO-OFDM channel estimation.

Set as its pages say: uplink, one cell, 4 users of one antenna, 16 antennas, 14 OFDM symbols of 624 subcarriers, pilots
on the third and the twelfth symbol in Sionna's `KroneckerPilotPattern`, LMMSE detection by Sionna's `LinearDetector`
with the error variances that the estimator tells, LDPC; NMSE (a ratio of sums), BER and BLER against Eb/N0.
`FanfoldChannelEstimator` is what an entry is: a `sionna.phy.ofdm.BaseChannelEstimator` that is made from a resource
grid and maps `(y, no)` to `(h_hat, err_var)`, `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]`.

Checked here: that interface, shapes and types against Sionna PHY 2.2, its detector and decoder, and Sionna's own least
squares with linear interpolation beside ours, on the same channels, bits and noise. Not checked, for Sionna Bench was
not at hand: its runner, covariances, seeds and draws; modulation, code rate, array and speeds, which its pages do not
say (here: QPSK, rate 1/2, UMi at 3.5 GHz and 30 kHz, 4 rows and 2 columns of crossed pairs of antennas, 3 km/h, each
user at unit power); and the fields of its files of results, which are named here by its three measures. The numbers
are therefore not those of its leaderboard.

Needs `fanfold[channels]`. Writes a JSON file of results; exit code 1 if LMMSE does not beat least squares everywhere.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sionna.phy import config
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import (
    BaseChannelEstimator,
    LinearDetector,
    LSChannelEstimator,
    RemoveNulledSubcarriers,
    ResourceGrid,
    ResourceGridMapper,
)
from sionna.phy.utils import ebnodb2no
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.estimators.ofdm import ChannelCovariance, GridEstimator, Wiener
from fanfold.problems import OFDMChannel
from fanfold.problems.radio.resource_grid import pilot_grid
from fanfold.propagation import TR38901

USERS, ANTENNAS, SYMBOLS, SUBCARRIERS, PILOT_SYMBOLS = 4, 16, 14, 624, (2, 11)
BITS, RATE = 2, 0.5
RECIPE = TR38901("umi", array=(2, 2, 4), symbols=SYMBOLS, subcarriers=SUBCARRIERS)
LAYOUT = f"rayleigh:array=2x2x4,symbols={SYMBOLS},subcarriers={SUBCARRIERS}"
MEASURES = ("nmse", "ber", "bler")


class FanfoldChannelEstimator(BaseChannelEstimator):
    """LMMSE over antennas, time and frequency with a covariance `space ⊗ time ⊗ frequency`.

    Args:
        resource_grid: Of Sionna, its pilots orthogonal in frequency.
        space: `(rx_ant, rx_ant)`.
        time: `(symbols, symbols)`.
        frequency: `(subcarriers, subcarriers)`.
        kwargs: precision and device, as of `BaseChannelEstimator`.
    """

    def __init__(self, resource_grid: ResourceGrid, space: Tensor, time: Tensor, frequency: Tensor, **kwargs: Any):
        super().__init__(resource_grid, **kwargs)
        pattern = resource_grid.pilot_pattern
        self.pilots = pilot_grid(torch.as_tensor(pattern.mask).cpu(), torch.as_tensor(pattern.pilots).cpu())
        covariance = ChannelCovariance(space, torch.kron(time, frequency))
        at, streams = ",".join(map(str, PILOT_SYMBOLS)), self.pilots.shape[0]
        filters = {}
        for k in range(streams):
            problem = OFDMChannel(LAYOUT, f"comb-{streams}:offset={k}@{at}")
            if not torch.equal(problem.mask, self.pilots[k, 0] != 0):
                raise ValueError(f"pilots of transmitter {k} are not {problem.pilots}; pass a Kronecker pilot pattern.")
            filters[k, 0] = Wiener.of(problem, covariance, known_power=True)
        self.estimator = GridEstimator(self.pilots, filters)

    def call(self, y: Tensor, no: Tensor) -> tuple[Tensor, Tensor]:
        """From the received grid `[batch, rx, rx_ant, symbol, fft_size]` and its noise variance, a number."""
        return self.estimator(self._remove_nulled_scs(y), float(no))


def covariances(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of space, time and frequency, each the mean over the others.

    Args:
        h: Channels `(n, antennas, symbols, subcarriers)`.
    """
    factors = []
    for axis in (1, 2, 3):
        rows = h.movedim(axis, -1).flatten(0, -2)
        C = (rows.mT @ rows.conj()).to(torch.complex128)
        factors.append(C / C.diagonal().real.mean())
    return factors[0], factors[1], factors[2]


class Chain:
    """Transmitter, channel and receiver of Sionna around an estimator."""

    def __init__(self):
        self.grid = ResourceGrid(
            SYMBOLS, SUBCARRIERS, 30e3, USERS, 1, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[*PILOT_SYMBOLS]
        )
        coded = self.grid.num_data_symbols * BITS
        self.encoder = LDPC5GEncoder(int(RATE * coded), coded, num_bits_per_symbol=BITS)
        self.decoder = LDPC5GDecoder(self.encoder)
        self.to_grid, self.to_symbols = ResourceGridMapper(self.grid), Mapper("qam", BITS)
        streams = StreamManagement(np.ones((1, USERS), int), 1)
        self.detector = LinearDetector("lmmse", "bit", "app", self.grid, streams, "qam", BITS)
        self.without_guards = RemoveNulledSubcarriers(self.grid)

    def errors(self, h: Tensor, ebno_db: float, estimators: Mapping[str, Any], seed: int) -> dict[str, list[float]]:
        """For each estimator the sums of squared errors and channels, and the shares of wrong bits and blocks."""
        generator = torch.Generator().manual_seed(seed)
        no = torch.as_tensor(ebnodb2no(ebno_db, BITS, RATE, self.grid)).cpu()
        bits = torch.randint(2, (len(h), USERS, 1, self.encoder.k), generator=generator).float()
        x = self.to_grid(self.to_symbols(self.encoder(bits)))
        y = torch.einsum("brmtskf,btskf->brmkf", h, x)
        y = y + circular(tuple(y.shape), generator, y.dtype, no)
        errors = {}
        for name, estimator in estimators.items():
            h_hat, err_var = (h, torch.zeros(1)) if estimator is None else estimator(y, no)
            wrong = (self.decoder(self.detector(y, h_hat, err_var, no)) != bits).float()
            squares = ((h_hat - h).abs().square().sum(), h.abs().square().sum())
            errors[name] = [*map(float, squares), wrong.mean().item(), wrong.amax(-1).mean().item()]
        return errors


def blocks(count: int, seed: int) -> Tensor:
    """Channels of all users, `[batch, 1, rx_ant, tx, 1, symbol, subcarrier]`."""
    h, _ = RECIPE.make(count * USERS, seed)
    return h.unflatten(0, (count, USERS)).transpose(1, 2)[:, None, :, :, None]


def main() -> int:
    """Run and write; 0 if LMMSE beats least squares at every Eb/N0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=4, help="slots at each Eb/N0, 4 codewords each")
    parser.add_argument("--training", type=int, default=100, help="channels that covariances are learned from")
    parser.add_argument("--ebno-db", type=float, nargs="+", default=[-10.0, -5.0, 0.0, 5.0, 10.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fanfold_mimo_ofdm_chest.json"))
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    config.seed = chosen.seed  # Sionna draws the pilots
    chain = Chain()
    learned = covariances(RECIPE.make(chosen.training, chosen.seed + 1)[0])
    estimators = {
        "perfect": None,
        "LSChannelEstimator (lin_time_avg)": LSChannelEstimator(chain.grid, "lin_time_avg"),
        "FanfoldChannelEstimator (LMMSE)": FanfoldChannelEstimator(chain.grid, *learned),
    }
    curves: dict[str, dict[str, list[float]]] = {name: {m: [] for m in MEASURES} for name in estimators}
    h = blocks(chosen.blocks, chosen.seed + 2)
    for ebno_db in chosen.ebno_db:
        for name, (error, power, ber, bler) in chain.errors(h, ebno_db, estimators, chosen.seed).items():
            for measure, value in zip(MEASURES, (error / power, ber, bler)):
                curves[name][measure].append(value)
            print(
                f"{ebno_db:6.1f} dB  {name:36s} NMSE {error / power:9.2e}  BER {ber:8.2e}  BLER {bler:.3f}", flush=True
            )
    settings = {"users": USERS, "antennas": ANTENNAS, "symbols": SYMBOLS, "subcarriers": SUBCARRIERS}
    results = {
        "benchmark": "mimo_ofdm_chest",
        "ebno_db": chosen.ebno_db,
        "results": curves,
        "blocks": chosen.blocks,
        "seed": chosen.seed,
        "settings": {**settings, "pilot_ofdm_symbol_indices": PILOT_SYMBOLS, "bits": BITS, "rate": RATE},
        "channels": RECIPE.describe(),
        "versions": {name: version(name) for name in ("fanfold", "torch", "sionna-no-rt")},
    }
    chosen.out.write_text(json.dumps(results, indent=1))
    _, least_squares, ours = (curves[name]["nmse"] for name in estimators)
    return int(any(a >= b for a, b in zip(ours, least_squares)))


if __name__ == "__main__":
    sys.exit(main())
