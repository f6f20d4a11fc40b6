"""An uplink slot of several users: code, pilots, estimates, equaliser. Björnson, Hoydis & Sanguinetti (2017), B.19.

Codes and constellations are Sionna's: LDPC of 5G NR, QAM with Gray labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fanfold.adapters.sionna import sionna_at
from fanfold.core.noise import circular
from fanfold.core.settings import Checked
from fanfold.core.table import Table
from fanfold.estimators.ofdm import GridEstimator
from fanfold.observation import Estimator
from fanfold.problems import OFDMChannel

SLOT_SYMBOLS = 14
PERFECT = "perfect"
QAM_BITS = (2, 4, 6, 8)  # of a symbol
Make = Callable[[OFDMChannel], Estimator]


@dataclass(frozen=True)
class SlotsSent:
    """An event of a simulation: so many of its rounds of slots are done.

    Example:
        >>> from fanfold.evaluation.link import SlotsSent
        >>> SlotsSent(done=1, total=4).total
        4
    """

    done: int
    total: int


@dataclass(frozen=True)
class Uplink(Checked):
    """`y = Σ_u h_u x_u + w` at every resource element of a slot: users of one antenna, equal power, a comb offset each.

    A source of one symbol stands still for the slot: one symbol of pilots, 13 of data. Others have 14 symbols, those in
    `at` with pilots. SNR is that of one user at one antenna and resource element, in pilots and data alike.

    Raises:
        ValueError: If a source has neither 1 nor 14 symbols, or a number is not one that a link can have.

    Example:
        >>> from fanfold.evaluation.link import Uplink
        >>> round(Uplink("umi", users=4).efficiency(bler=0.1), 2)  # bit/s/Hz
        3.34
    """

    source: str = "umi"
    users: int = 4
    bits: int = 2  # bits of a symbol: 2 is QPSK, 4 is 16-QAM
    rate: float = 0.5  # rate of the code
    at: tuple[int, ...] = (2, 11)
    iterations: int = 12  # iterations of the decoder
    channels_a_round: int = 512  # number of test channels a round; fewer where a source keeps fewer

    def __post_init__(self):
        if not (self.users >= 1 and self.channels_a_round >= self.users and self.iterations >= 1):
            raise ValueError(
                f"users {self.users}, channels_a_round {self.channels_a_round}, iterations {self.iterations}: take at "
                "least one user and one iteration, and as many test channels as users."
            )
        if self.bits not in QAM_BITS or not 0 < self.rate < 1:
            raise ValueError(
                f"bits {self.bits}, rate {self.rate}: take {QAM_BITS} bits a symbol and a rate between 0 and 1."
            )
        if sorted(set(self.at)) != sorted(self.at) or not all(0 <= symbol < SLOT_SYMBOLS for symbol in self.at):
            raise ValueError(f"at is {self.at}; name different symbols from 0 to {SLOT_SYMBOLS - 1}.")
        if self.symbols not in (1, SLOT_SYMBOLS):
            raise ValueError(
                f"{self.source} has {self.symbols} symbols; a slot has {SLOT_SYMBOLS}, or 1 that stands still."
            )

    @property
    def symbols(self) -> int:
        """The number of symbols of the source."""
        return OFDMChannel(self.source).layout.symbols

    @cached_property
    def problems(self) -> list[OFDMChannel]:
        """The problem of each user, with its pilots."""
        places = "" if self.symbols == 1 else "@" + ",".join(map(str, self.at))
        return [OFDMChannel(self.source, f"comb-{self.users}:offset={k}{places}") for k in range(self.users)]

    @cached_property
    def pilots(self) -> Tensor:
        """The pilots of all users, ones: `(tx, 1, symbol, subcarrier)`."""
        return torch.stack([p.mask for p in self.problems]).to(torch.complex64)[:, None]

    @property
    def data_symbols(self) -> int:
        """The number of symbols of the slot that carry data."""
        return SLOT_SYMBOLS - 1 if self.symbols == 1 else SLOT_SYMBOLS - len(self.at)

    @property
    def coded_bits(self) -> int:
        """The number of bits of a user's codeword, which fills its slot."""
        return self.data_symbols * self.problems[0].layout.subcarriers * self.bits

    @property
    def payload(self) -> int:
        """The number of information bits of a codeword."""
        return int(self.rate * self.coded_bits)

    def efficiency(self, bler: float) -> float:
        """Information bits that arrive for each resource element of the slot, of all users: bit/s/Hz, pilots off."""
        return self.users * self.payload * (1 - bler) / (SLOT_SYMBOLS * self.problems[0].layout.subcarriers)

    def estimators(self, makers: Mapping[str, Make]) -> dict[str, GridEstimator]:
        """Estimators of the whole grid, each made for every user's pilots."""
        return {
            name: GridEstimator(self.pilots, {(k, 0): make(p) for k, p in enumerate(self.problems)})
            for name, make in makers.items()
        }

    def channels(self, generator: torch.Generator) -> Tensor:
        """Draw test channels, each once, in random company: `[batch, 1, rx_ant, tx, 1, symbol, subcarrier]`.

        Raises:
            ValueError: If there are fewer than users.
        """
        h = self.problems[0].channels.draw(self.channels_a_round, generator, "test")
        if len(h) < self.users:
            raise ValueError(
                f"{self.source} keeps {len(h)} channels for testing, {self.users} users take one each; pass more."
            )
        h = h[: len(h) // self.users * self.users].unflatten(0, (-1, self.users))
        return h.transpose(1, 2)[:, None, :, :, None]


def lmmse_equalise(y: Tensor, h: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate symbols of unit power by unbiased LMMSE, with the variances of their errors, both `(..., users)`.

    Args:
        y: Received `(..., antennas)`.
        h: Channels `(..., antennas, users)`.
        noise: Variance at each antenna `(..., antennas)`: of the noise and of errors of the channel estimates.
    """
    weighted = (h / noise[..., None]).mH  # Hᴴ R⁻¹
    A = torch.linalg.inv(weighted @ h + torch.eye(h.shape[-1], dtype=h.dtype))
    left = A.diagonal(dim1=-2, dim2=-1).real  # 1 - diag(G H)
    kept = (1 - left).clamp_min(torch.finfo(left.dtype).eps)
    return (A @ (weighted @ y[..., None]))[..., 0] / kept, left / kept


def simulate(
    link: Uplink,
    estimators: Mapping[str, GridEstimator],
    snrs_db: Sequence[float],
    rounds: int,
    seed: int,
    on_event: Callable[[SlotsSent], None] | None = None,
) -> Table:
    """Measure error rates with every estimate and with the perfect channel, on the same channels, bits and noise.

    Returns:
        Rows with estimate, snr_db, ber (uncoded), ber_ci (95 %), coded_ber, bler, efficiency and blocks.

    Raises:
        ImportError: If Sionna is missing.
        ValueError: If there is no round or SNR, or there are fewer than two slots, of which no interval can be told.
    """
    if rounds < 1 or not snrs_db:
        raise ValueError(f"{rounds} rounds at SNRs of {[*snrs_db]} dB; take at least one of each.")
    rows, done = [], 0
    with sionna_at(seed), torch.no_grad():
        coder = _Coder(link)
        for snr_db in snrs_db:
            errors_of: dict[str, list[Tensor]] = {}
            for repeat in range(rounds):  # the same draws at every SNR, so that curves are smooth
                generator = torch.Generator().manual_seed(1000 * seed + repeat)
                for name, errors in _errors(link, coder, estimators, 10 ** (-snr_db / 10), generator).items():
                    errors_of.setdefault(name, []).append(errors)
                done += 1
                if on_event:
                    on_event(SlotsSent(done, rounds * len(snrs_db)))
            rows += [_row(link, name, snr_db, torch.cat(errors)) for name, errors in errors_of.items()]
    return Table(rows)


def _row(link: Uplink, name: str, snr_db: float, errors: Tensor) -> dict[str, Any]:
    """A row from errors `(slots, users, 3)`: the shares of wrong coded and information bits, and of lost blocks."""
    if len(errors) < 2:
        raise ValueError(
            f"{len(errors)} slots; an interval takes two, so pass more rounds, more channels_a_round, or a source that "
            "keeps more for testing."
        )
    ber, coded, bler = errors.mean((0, 1)).tolist()
    ci = 1.96 * errors[..., 0].mean(1).std().item() / len(errors) ** 0.5  # users of a slot are not independent
    return {
        "estimate": name,
        "snr_db": snr_db,
        "ber": ber,
        "ber_ci": ci,
        "coded_ber": coded,
        "bler": bler,
        "efficiency": link.efficiency(bler),
        "blocks": errors[..., 0].numel(),
    }


def _errors(
    link: Uplink,
    coder: "_Coder",
    estimators: Mapping[str, GridEstimator],
    noise_var: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    h, v = link.channels(generator), torch.tensor(noise_var)
    received = (h * link.pilots).sum((3, 4))
    received = received + circular(tuple(received.shape), generator, received.dtype, v)
    payload = torch.randint(2, (len(h), link.users, link.payload), generator=generator).float()
    coded = coder.encode(payload)
    x = coder.map(coded).unflatten(-1, (link.data_symbols, -1)).permute(0, 2, 3, 1)  # (slots, symbol, subcarrier, user)
    at_data = _data(link, h)
    y = (at_data @ x[..., None])[..., 0]
    y = y + circular(tuple(y.shape), generator, y.dtype, v)
    known = {PERFECT: (at_data, v.expand(at_data.shape[:-1]))}
    for name, estimator in estimators.items():
        h_hat, err_var = estimator(received, noise_var)
        known[name] = _data(link, h_hat), noise_var + _data(link, err_var).sum(-1)
    errors = {}
    for name, (h_hat, noise) in known.items():
        x_hat, var = lmmse_equalise(y, h_hat, noise)
        logits = coder.demap(*(t.expand(x.shape).permute(0, 3, 1, 2).flatten(2) for t in (x_hat, var)))
        raw, wrong = ((logits > 0) != (coded > 0)).float(), (coder.decode(logits) != payload).float()
        errors[name] = torch.stack([raw.mean(-1), wrong.mean(-1), wrong.amax(-1)], -1)
    return errors


def _data(link: Uplink, h: Tensor) -> Tensor:
    """Channels at the symbols with data: `(slots, symbols or 1, subcarriers, antennas, users)`."""
    h = h[:, 0, :, :, 0]
    if link.symbols > 1:
        h = h[..., [s for s in range(SLOT_SYMBOLS) if s not in link.at], :]
    return h.permute(0, 3, 4, 1, 2)


class _Coder:
    """Sionna's code and constellation of a link: min-sum decoding, which needs no exact noise variance.

    Args:
        link: Its payload, coded bits and constellation.

    Raises:
        ImportError: If Sionna is missing.
    """

    def __init__(self, link: Uplink):
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
        from sionna.phy.mapping import Demapper, Mapper

        self.encode = LDPC5GEncoder(link.payload, link.coded_bits, num_bits_per_symbol=link.bits)
        self.decode = LDPC5GDecoder(self.encode, cn_update="offset-minsum", num_iter=link.iterations)
        self.map = Mapper("qam", link.bits)
        self.demap = Demapper("maxlog", "qam", link.bits)
