"""Resource grids as the field writes them, and channel estimation of several users on orthogonal pilots.

Channels are `[batch, rx, rx_ant, tx, stream, symbol, subcarrier]` and received grids `[batch, rx, rx_ant, symbol,
subcarrier]`, the shapes of Sionna (Hoydis et al., 2022). Where one stream alone sends a pilot x, `y = h x + w` gives
`y / x`, the least-squares estimate of h.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fanfold.linops import Mask
from fanfold.observation import Estimate, Observation

FIELD = "[batch, rx, rx_ant, tx, stream, symbol, subcarrier]"
RECEIVED = "[batch, rx, rx_ant, symbol, subcarrier]"
MODULUS_TOLERANCE = 1e-3  # of the pilots of a stream, relative: the rounding of half precision


def links_of(H: Tensor) -> Tensor:
    """Reshape channels of the field's shape to one row a link, `(batch·rx·tx·stream, rx_ant·symbol·subcarrier)`.

    Raises:
        ValueError: If there are not seven axes.
    """
    if H.ndim != 7:
        raise ValueError(f"channels have shape {tuple(H.shape)}; pass {FIELD}.")
    return H.permute(0, 1, 3, 4, 2, 5, 6).flatten(4).flatten(0, 3)


def field_of(links: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape links to the field's shape: the inverse of `links_of`.

    Args:
        links: `(batch·rx·tx·stream, rx_ant·symbol·subcarrier)`.
        shape: `(batch, rx, rx_ant, tx, stream, symbol, subcarrier)`.

    Raises:
        ValueError: If it does not hold these links.
    """
    if len(shape) != 7:
        raise ValueError(f"shape is {tuple(shape)}; pass the seven sizes of {FIELD}.")
    batch, rx, antennas, tx, streams, symbols, subcarriers = shape
    want = (batch * rx * tx * streams, antennas * symbols * subcarriers)
    if tuple(links.shape) != want:
        raise ValueError(f"links have shape {tuple(links.shape)}; {FIELD} of {tuple(shape)} has links {want}.")
    return links.reshape(batch, rx, tx, streams, antennas, symbols, subcarriers).permute(0, 1, 4, 2, 3, 5, 6)


def pilot_grid(mask: Tensor, pilots: Tensor) -> Tensor:
    """Put pilots on their grid, zero elsewhere: `(tx, stream, symbol, subcarrier)`.

    Args:
        mask: Where pilots may be, `(tx, stream, symbol, subcarrier)`, as `PilotPattern.mask` of Sionna says it.
        pilots: Their values, `(tx, stream, pilots)`, subcarriers fastest, with zeros where others send.

    Raises:
        ValueError: If the shapes do not fit.
    """
    mask = mask.bool()
    if mask.ndim != 4 or pilots.shape[:2] != mask.shape[:2] or (mask.sum((2, 3)) != pilots.shape[-1]).any():
        raise ValueError(
            f"pilots have shape {tuple(pilots.shape)} and their mask {tuple(mask.shape)}; pass (tx, stream, pilots) "
            "and (tx, stream, symbol, subcarrier) with as many set entries for each stream."
        )
    grid = torch.zeros(mask.shape, dtype=pilots.dtype)
    grid[mask] = pilots.flatten()
    return grid


def observations_of(
    received: Tensor, pilots: Tensor, noise_var: float | Tensor | None = None
) -> dict[tuple[int, int], Observation]:
    """Observe the links of each stream at its own pilots, by least squares: `h = y / x`.

    Args:
        received: `[batch, rx, rx_ant, symbol, subcarrier]`, complex.
        pilots: `(tx, stream, symbol, subcarrier)`, complex, of one modulus for each stream, zero where it has none.
        noise_var: Noise variance of a received resource element, a number or `(batch, rx)`; None if unknown.

    Returns:
        By transmitter and stream, an observation of the `batch·rx` links, its noise variance that of `h`.

    Raises:
        ValueError: If shapes do not fit, a stream has no pilots or of several moduli, or two streams share an element.
    """
    _check(received, pilots)
    observations = {}
    for tx, stream in torch.cartesian_prod(*map(torch.arange, pilots.shape[:2])).reshape(-1, 2).tolist():
        mask = pilots[tx, stream] != 0
        sent = pilots[tx, stream][mask]
        power = _power(sent, f"stream {stream} of transmitter {tx}")
        y = (received[..., mask] / sent).flatten(2).flatten(0, 1).to(received.dtype)
        index = mask.expand(received.shape[2], -1, -1).flatten().nonzero().flatten()
        var = None if noise_var is None else _variance(noise_var, received) / power
        observations[tx, stream] = Observation(y, Mask(index, received[0, 0].numel(), received.dtype), var)
    return observations


def estimates_in_field(estimates: dict[tuple[int, int], Estimate], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gather the estimates of all streams as Sionna takes them: `(h_hat, err_var)`, both in the field's shape.

    Args:
        estimates: By transmitter and stream, of `batch·rx` links each, as `observations_of` orders them.
        shape: `(batch, rx, rx_ant, tx, stream, symbol, subcarrier)`.

    Raises:
        ValueError: If streams or error variances are missing, or the shape is not theirs.
    """
    if len(shape) != 7:
        raise ValueError(f"shape is {tuple(shape)}; pass the seven sizes of {FIELD}.")
    keys = [(tx, stream) for tx in range(shape[3]) for stream in range(shape[4])]
    missing = [key for key in keys if key not in estimates]
    if missing:
        raise ValueError(f"there is no estimate of (transmitter, stream) {missing[0]}; {len(missing)} are missing.")
    x = torch.stack([estimates[key].x for key in keys], 1)
    var = torch.stack([_error_variance(estimates[key]) for key in keys], 1)
    return field_of(x.flatten(0, 1), shape), field_of(var.flatten(0, 1), shape)


def _error_variance(estimate: Estimate) -> Tensor:
    if estimate.var is None:
        raise ValueError("an estimate has no error variance, which the equaliser needs; take an estimator with one.")
    return estimate.var.expand(estimate.x.shape)


def _check(received: Tensor, pilots: Tensor) -> None:
    if received.ndim != 5 or not received.is_complex():
        raise ValueError(f"the grid is {received.dtype} {tuple(received.shape)}; pass complex {RECEIVED}.")
    if pilots.ndim != 4 or pilots.shape[2:] != received.shape[3:]:
        raise ValueError(
            f"pilots have shape {tuple(pilots.shape)}; for this grid pass (tx, stream, *{tuple(received.shape[3:])})."
        )
    shared = ((pilots != 0).sum((0, 1)) > 1).nonzero()
    if len(shared):
        symbol, subcarrier = shared[0].tolist()
        raise ValueError(
            f"two streams have pilots on symbol {symbol}, subcarrier {subcarrier}; they are told apart only where one "
            "sends: take other offsets."
        )


def _power(pilots: Tensor, whose: str) -> Tensor:
    """The power of a pilot, which all of a stream have."""
    if not len(pilots):
        raise ValueError(f"{whose} has no pilots; give it some.")
    power = pilots.abs().square()
    if (power - power.mean()).abs().max() > 2 * MODULUS_TOLERANCE * power.mean():
        raise ValueError(
            f"pilots of {whose} have powers from {power.min():g} to {power.max():g}, so that their noise would differ; "
            "take pilots of one modulus, QPSK say."
        )
    return power.mean()


def _variance(noise_var: float | Tensor, received: Tensor) -> Tensor:
    """The noise variance as a tensor, `()` or `(batch·rx, 1)`."""
    var = torch.as_tensor(noise_var, dtype=received.real.dtype)
    if not var.ndim:
        return var
    if var.shape != received.shape[:2]:
        raise ValueError(f"noise_var has shape {tuple(var.shape)}; pass a number or {tuple(received.shape[:2])}.")
    return var.reshape(-1, 1)
