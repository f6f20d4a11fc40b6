"""The posterior mean of a Gaussian mixture of Kronecker covariances. Koller, Fesl, Turan & Utschick (2022).

Components are learned by expectation-maximisation, Dempster, Laird & Rubin (1977); Kronecker factors as moments, the
first round of the flip-flop of Dutilleul (1999).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fanfold.draws import PREPARATION_STREAM, draw, generator_of
from fanfold.estimators.ofdm.covariance import ChannelCovariance, signal_power
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.observation import Estimate, Observation
from fanfold.problems.ofdm_channel import OFDMChannel
from fanfold.units import power

CHUNK = 1000  # draws at a time
LOADING = 0.01  # noise variance at which draws are told apart: channels without noise are singular


@dataclass(frozen=True)
class Mixture:
    """Weights and covariances of the components, `E h hᴴ = space_k ⊗ F C_k Fᴴ` of channels of unit mean power.

    F `(entries, modes)` has orthonormal columns, the strongest directions over the grid of one antenna.
    """

    weights: Tensor  # (components,)
    space: Tensor  # (components, antennas, antennas), mean diagonal one
    modes: Tensor  # (components, modes, modes): C_k
    basis: Tensor  # (entries, modes): F
    rounds: int = 0  # of expectation and maximisation that made it


def learn_mixture(
    problem: OFDMChannel,
    components: int = 16,
    samples: int = 20_000,
    modes: int = 14,
    seed: int = 0,
    start: Mixture | None = None,
) -> Iterator[tuple[Mixture, float]]:
    """Expectation-maximisation without an end: the mixture after each round and its mean log-likelihood so far.

    Args:
        problem: Where channels come from; its pilots do not matter.
        components: How many.
        samples: Training channels.
        modes: Directions over the grid that are kept, at most.
        seed: Of the draws and of the first components.
        start: Where to go on from.

    Raises:
        ValueError: If there are fewer draws than eight for each component.
    """
    if samples < 8 * components:
        raise ValueError(f"{samples} draws for {components} components; pass at least {8 * components}.")
    x, _ = draw(problem, samples, seed, PREPARATION_STREAM, 0)
    h = x.unflatten(1, (problem.layout.antennas, -1))
    whole = ChannelCovariance.learn(problem, samples, seed)
    basis = torch.linalg.eigh(whole.grid)[1].flip(1)[:, : min(modes, h.shape[-1])]
    c = h @ basis.conj().to(h.dtype)  # (draws, antennas, modes)
    mixture = start or _first(c, basis, components, generator_of(seed, PREPARATION_STREAM, 1))
    while True:
        mixture, likelihood = _round(mixture, c)
        yield mixture, likelihood


def _first(c: Tensor, basis: Tensor, components: int, generator: torch.Generator) -> Mixture:
    """Each component from a few draws near one of them, as their beams' powers say, drawn in to the whole."""
    profile = power(torch.fft.fft(c[..., :1], dim=1, norm="ortho")).flatten(1).sqrt()
    profile = profile / profile.norm(dim=1, keepdim=True)
    centres = profile[torch.randperm(len(c), generator=generator)[:components]]
    for _ in range(5):  # of k-means on the sphere
        nearest = (profile @ centres.mT).argmax(1)
        sums = torch.zeros_like(centres).index_add(0, nearest, profile)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres)
        centres = centres / centres.norm(dim=1, keepdim=True)
    share = nn.functional.one_hot((profile @ centres.mT).argmax(1), components).float()
    return _moments(c, 0.9 * share + 0.1 / components, basis, 0)


def _round(mixture: Mixture, c: Tensor) -> tuple[Mixture, float]:
    parts = [_log_likelihoods(mixture, part) for part in c.split(CHUNK)]
    log = torch.cat(parts) + mixture.weights.log()
    return _moments(c, log.softmax(1).float(), mixture.basis, mixture.rounds + 1), log.logsumexp(1).mean().item()


def _log_likelihoods(mixture: Mixture, c: Tensor) -> Tensor:
    """`(draws, components)` of coefficients `(draws, antennas, modes)` in noise of variance LOADING, but a constant."""
    of_space, U = torch.linalg.eigh(mixture.space)
    of_modes, V = torch.linalg.eigh(mixture.modes)
    d = of_space.clamp_min(0)[:, None] * of_modes.clamp_min(0)[:, :, None] + LOADING
    by_antenna, found = c.mT.contiguous(), []
    for k in range(len(d)):
        z = V[k].mH.to(c.dtype) @ (by_antenna.flatten(0, 1) @ U[k].conj().to(c.dtype)).view_as(by_antenna)
        found.append(-(power(z) / d[k].float()).sum((1, 2)).double() - d[k].log().sum())
    return torch.stack(found, 1)


def _moments(c: Tensor, share: Tensor, basis: Tensor, rounds: int) -> Mixture:
    """Weights and Kronecker factors of draws that belong to components by so much, `(draws, components)`."""
    antennas, modes, entries = c.shape[1], c.shape[2], len(basis)
    space, over_modes = [], []
    for k in range(share.shape[1]):
        h = c * share[:, k, None, None].sqrt()
        rows = h.transpose(1, 2).reshape(-1, antennas)
        space.append(rows.mT @ rows.conj())
        rows = h.reshape(-1, modes)
        over_modes.append(rows.mT @ rows.conj())
    counts = share.double().sum(0)
    S, C = (torch.stack(list_).to(torch.complex128) for list_ in (space, over_modes))
    S, C = (S + S.mH) / 2, (C + C.mH) / (2 * antennas * counts[:, None, None].clamp_min(1e-12))
    trace = S.diagonal(dim1=1, dim2=2).real.mean(-1).clamp_min(1e-300)
    S = S / trace[:, None, None]
    little = 4 / counts.clamp_min(4)[:, None, None]  # components of few draws are drawn in to white ones
    S = (1 - little) * S + little * torch.eye(antennas, dtype=S.dtype)
    assert entries >= modes
    return Mixture((counts + 1) / (counts + 1).sum(), S, C, basis, rounds)


class KroneckerGMM(nn.Module):
    """The posterior mean of a mixture: LMMSE filters of all components, weighted by how well each explains the pilots.

    With one component it is LMMSE over space and grid. The error variance is that of the mixture, by the law of total
    variance.

    Args:
        problem: Layout and pilots.
        mixture: Of channels of unit mean power.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

    Raises:
        ValueError: If the mixture is of another layout.
    """

    def __init__(self, problem: OFDMChannel, mixture: Mixture, *, known_power: bool = False):
        super().__init__()
        antennas, entries = problem.layout.antennas, problem.layout.n // problem.layout.antennas
        if mixture.space.shape[-1] != antennas or len(mixture.basis) != entries:
            raise ValueError(
                f"the mixture is of {mixture.space.shape[-1]} antennas and {len(mixture.basis)} resource elements, the "
                f"problem has {antennas} and {entries}."
            )
        self.known_power = known_power
        pick = problem.mask.flatten().nonzero().flatten()
        grid = mixture.basis @ mixture.modes @ mixture.basis.mH  # (components, entries, entries)
        of_pilots, V = torch.linalg.eigh(grid[:, pick][:, :, pick])
        of_space, U = torch.linalg.eigh(mixture.space)
        self.register_buffer("log_weights", mixture.weights.log().float())
        self.register_buffer("space", of_space.clamp_min(0).float())  # (components, antennas)
        self.register_buffer("pilots", of_pilots.clamp_min(0).float())  # (components, pilots)
        self.register_buffer("U", U.to(torch.complex64))
        self.register_buffer("V", V.to(torch.complex64))
        self.register_buffer("back", (grid[:, :, pick] @ V).to(torch.complex64))  # (components, entries, pilots)
        self.register_buffer("own", grid.diagonal(dim1=1, dim2=2).real.float())  # (components, entries)
        weights = mixture.weights[:, None, None]
        self.noise_variance = NoiseVariance((weights * mixture.space).sum(0), (weights * grid).sum(0)[pick][:, pick])

    @classmethod
    def learn(
        cls, problem: OFDMChannel, components: int = 16, samples: int = 20_000, rounds: int = 15, seed: int = 0
    ) -> "KroneckerGMM":
        """After so many rounds of expectation-maximisation."""
        steps = learn_mixture(problem, components, samples, seed=seed)
        mixture = [next(steps) for _ in range(rounds)][-1][0]
        return cls(problem, mixture)

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(batch, n)` and its error variance."""
        noise_var = self.noise_variance(obs.y) if obs.noise_var is None else obs.noise_var
        scale = torch.ones_like(noise_var) if self.known_power else signal_power(obs.y, noise_var)
        scale = scale.reshape(-1, 1, 1)
        y = obs.y.unflatten(-1, (self.U.shape[-1], -1)) / scale.sqrt()
        own = self.space[:, :, None] * self.pilots[:, None] + (noise_var.reshape(-1, 1, 1) / scale)[:, None]
        z = self.U.mH @ y[:, None] @ self.V.conj()  # (batch, components, antennas, pilots)
        share = (self.log_weights - (power(z) / own + own.log()).sum((2, 3))).softmax(1)[..., None, None]
        each = self.U @ (z * (self.space[:, :, None] / own)) @ self.back.mT
        x = (share * each).sum(1)
        var = (share * (self._variances(own) + power(each))).sum(1) - power(x)
        var = torch.maximum(var, torch.finfo(var.dtype).eps * power(x)) * scale
        return Estimate((x * scale.sqrt()).flatten(1), var.expand(x.shape).flatten(1))

    def _variances(self, own: Tensor) -> Tensor:
        """Of the errors of each component, `(batch, components, antennas, entries)`."""
        of_antenna = (power(self.U) * self.space[:, None]).sum(2)
        explained = (power(self.U) * self.space.square()[:, None]) @ own.reciprocal() @ power(self.back).mT
        return (of_antenna[:, :, None] * self.own[:, None] - explained).clamp_min(0)
