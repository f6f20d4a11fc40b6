"""One user's uplink over a slot: LDPC code, QAM, combining of all antennas with an estimated channel, soft decisions.

The code and the mapping are those of 5G NR (3GPP TS 38.212, 5.3.2; TS 38.211, 5.1), from Sionna (Hoydis et al., 2022).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fanfold.noise import circular
from fanfold.observation import Estimate, Observation
from fanfold.problems import OFDMChannel

SLOT = 14  # OFDM symbols
BITS = {"QPSK": 2, "16-QAM": 4}
CHUNK = 256  # codewords that are decoded at a time


@dataclass(frozen=True)
class Link:
    """A slot whose first symbol has the pilots of a problem; every element without a pilot carries data.

    The channel stays for a slot. One codeword of rate 1/2 fills it. Sent symbols and pilots have unit mean power, so
    that the SNR of the problem, at an antenna before combining, is that of data too.
    """

    problem: OFDMChannel  # of one symbol
    modulation: str = "QPSK"
    iterations: int = 20  # of belief propagation
    rate: float = 0.5

    def __post_init__(self):
        if self.problem.layout.symbols != 1 or self.modulation not in BITS:
            raise ValueError(
                f"{self.problem.layout.symbols} symbols with {self.modulation}; pass a problem of one symbol and "
                f"{' or '.join(BITS)}."
            )

    @cached_property
    def columns(self) -> Tensor:
        """The subcarrier of each element with data `(elements,)`, symbol by symbol."""
        free = torch.ones(SLOT, self.problem.layout.subcarriers, dtype=torch.bool)
        free[0] = ~self.problem.mask[0]
        return free.nonzero()[:, 1]

    @property
    def coded(self) -> int:
        """Bits of a codeword."""
        return BITS[self.modulation] * len(self.columns)

    @property
    def efficiency(self) -> float:
        """Information bits for each resource element of the slot, pilots taken off, if every block arrives."""
        return int(self.rate * self.coded) / (SLOT * self.problem.layout.subcarriers)

    @cached_property
    def codec(self) -> "Codec":
        """Code and mapping."""
        return Codec(int(self.rate * self.coded), self.coded, BITS[self.modulation], self.iterations)

    def received(self, channels: Tensor, snr_db: float, generator: torch.Generator) -> "Slot":
        """Slots over channels `(batch, antennas · subcarriers)` at an SNR."""
        noise_var = 10 ** (-snr_db / 10)
        bits = torch.randint(2, (len(channels), self.codec.k), generator=generator).float()
        coded = self.codec.encoded(bits)
        y = self.problem.A @ channels
        y = y + noise_var**0.5 * circular(tuple(y.shape), generator, y.dtype, 1.0)
        noise = circular((len(channels), len(self.columns)), generator, y.dtype, 1.0)
        pilots = Observation(y, self.problem.A, torch.tensor(noise_var))
        return Slot(bits, coded, self.codec.mapped(coded), pilots, noise, noise_var)

    def soft_bits(self, channels: Tensor, slot: "Slot", estimate: Estimate) -> Tensor:
        """Log-likelihood ratios `(batch, coded)` of coded bits after combining."""
        planes = (self.problem.layout.antennas, self.problem.layout.subcarriers)
        var = torch.zeros(estimate.x.shape) if estimate.var is None else estimate.var
        h, h_hat, v = (part.unflatten(-1, planes) for part in (channels, estimate.x, var))
        gain, spread, told = combined(h, h_hat, v, slot.noise_var)
        at = self.columns
        r = gain[:, at] * slot.symbols + spread.sqrt()[:, at] * slot.noise
        return self.codec.demapped(r, told[:, at])


@dataclass(frozen=True)
class Slot:
    """What was sent and what arrived."""

    bits: Tensor  # (batch, information bits)
    coded: Tensor  # (batch, coded)
    symbols: Tensor  # (batch, elements)
    pilots: Observation
    noise: Tensor  # (batch, elements), of unit variance, after combining
    noise_var: float


def combined(h: Tensor, h_hat: Tensor, var: Tensor, noise_var: float) -> tuple[Tensor, Tensor, Tensor]:
    """LMMSE combining of antennas, unbiased, of a receiver that knows the estimate and the variances of its errors.

    `x̂ = Σ g y` with `g = ĥ*/(σ² + v) / Σ |ĥ|²/(σ² + v)` (Tse & Viswanath, 2005, 3.3.1, with errors as further noise).
    Of independent noise at the antennas nothing is left but its sum `Σ g w`, Gaussian with `σ² Σ |g|²`, so that this
    alone is drawn: the same law at a fraction of the cost.

    Args:
        h: The channel `(batch, antennas, subcarriers)`.
        h_hat: Its estimate.
        var: Error variances of the estimate.
        noise_var: At an antenna, σ².

    Returns:
        Of a subcarrier `(batch, subcarriers)`: the factor of the symbol, the noise variance, and the noise variance
        that the receiver believes in.
    """
    level = (noise_var + var).clamp_min(torch.finfo(var.dtype).tiny)
    total = (h_hat.abs().square() / level).sum(1).clamp_min(torch.finfo(var.dtype).tiny)
    g = h_hat.conj() / level / total[:, None]
    return (g * h).sum(1), noise_var * g.abs().square().sum(1), total.reciprocal()


class Codec:
    """LDPC code of 5G NR with its rate matching and bit interleaving, and Gray-labelled QAM.

    Raises:
        ImportError: If Sionna is missing.
    """

    def __init__(self, k: int, n: int, bits: int, iterations: int):
        try:
            from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
            from sionna.phy.mapping import Demapper, Mapper
        except ImportError as error:
            raise ImportError("coded links take Sionna's LDPC code: pip install 'fanfold[channels]'") from error
        device: Any = {"device": "cpu", "precision": "single"}
        self.k, self.n = k, n
        self.encoded = LDPC5GEncoder(k, n, num_bits_per_symbol=bits, **device)
        self.decoder = LDPC5GDecoder(self.encoded, num_iter=iterations, **device)
        self.mapped = Mapper("qam", bits, **device)
        self._demapper = Demapper("app", "qam", bits, **device)

    def demapped(self, r: Tensor, noise_var: Tensor) -> Tensor:
        """Log-likelihood ratios `(batch, n)`, positive for ones, of received symbols `(batch, n / bits)`."""
        return self._demapper(r, noise_var)

    def decoded(self, soft: Tensor) -> Tensor:
        """Information bits `(batch, k)` from log-likelihood ratios `(batch, n)`."""
        return torch.cat([self.decoder(part) for part in soft.split(CHUNK)])


def rayleigh_rate(snr: float, antennas: int) -> float:
    """Bit error rate of QPSK with maximum-ratio combining over independent Rayleigh fading, the channel known.

    Proakis & Salehi (2008), eqs. 13.4-15 and -16, with `snr / 2` a bit and antenna.
    """
    mu = math.sqrt(snr / 2 / (1 + snr / 2))
    terms = (math.comb(antennas - 1 + k, k) * ((1 + mu) / 2) ** k for k in range(antennas))
    return ((1 - mu) / 2) ** antennas * sum(terms)
