"""A shift by name: what changes in the world, by how much, and whether anything could see it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatch

from fanfold.core.settings import Checked
from fanfold.core.units import db
from fanfold.guard.shifts.beyond_simulator import Contaminated
from fanfold.guard.shifts.interference import Interfered
from fanfold.guard.shifts.noise import Added
from fanfold.guard.shifts.sensors import Boosted
from fanfold.problems.base import Problem


@dataclass(frozen=True)
class Shift(Checked):
    """A problem that has drifted from another one, and how far.

    Example:
        >>> import fanfold as ff
        >>> shift = ff.guard.shifts(ff.problems.CompressedSensing(n=40, m=20))[0]
        >>> shift.name, shift.problem.snr_db
        ('noise, x2 (+6.0 dB) and known', 33.979400086720375)
    """

    family: str  # what changes, in words; a family is tuned on as a whole or not at all
    severity: str  # how far, with its unit
    problem: Problem  # what draws then
    seen: bool = True  # whether the law of the observation changes at all, so that something could see it
    untouched: bool = False  # whether no network and no guard of this package was tuned or trained on its family

    @property
    def name(self) -> str:
        """Family and severity."""
        return f"{self.family}, {self.severity}"


@singledispatch
def shifts(problem: Problem) -> tuple[Shift, ...]:
    """The shifts of a kind of problem, each by name with a severity in physical units.

    A kind says its own where it is registered, `shifts.register(MyProblem)`; of any other problem only the
    measurements change: their gain, noise, gross errors, interference.

    Args:
        problem: What an estimator was trained on, or is to be used for.

    Example:
        >>> import fanfold as ff
        >>> sorted({shift.family for shift in ff.guard.shifts(ff.problems.LinearGaussian(n=2, m=3))})
        ['SNR', 'claimed noise', 'gain', 'gross errors', 'heavy tails', 'interference', 'noise, not known']
    """
    return tuple(of_measurements(problem))


def of_measurements(problem) -> Iterable[Shift]:
    """What can happen to the measurements of any problem, whatever they are of."""
    for gain_db in (-10.0, 3.0, 10.0):
        yield Shift("gain", f"{gain_db:+g} dB", Boosted(problem, gain_db))
    for level_db in (-20.0, -10.0):
        yield Shift("noise, not known", f"{level_db:g} dB over y", Added(problem, level_db))
    for share in (0.01, 0.1):
        yield Shift("gross errors", f"{100 * share:g} % of y, 5 times its size", Contaminated(problem, share))
    for level_db in (-20.0, -10.0):
        yield Shift("interference", f"a tone, {level_db:g} dB over y", Interfered(problem, "tone", level_db))


def times(factor: float) -> str:
    """A factor on an amplitude in words: `x2 (+6.0 dB)`."""
    return f"x{factor:g} ({2 * db(factor):+.1f} dB)"
