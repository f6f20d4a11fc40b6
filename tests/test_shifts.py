"""Shifts draw what they say, and the table says what they do."""

import json
import math

import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.units import db, power
from fanfold.guard import Shift, shift_table, shifts
from fanfold.guard.shifts.altered import Altered
from fanfold.guard.shifts.shift_cells import Ratio, ShiftCell, ShiftTable
from fanfold.problems import REGISTRY
from fanfold.problems.protocols import kind_of
from fanfold.report.shifted import shift_sections
from fanfold.runs.directory import Run
from problem_rows import ROWS

SPARSE = ff.problems.CompressedSensing(n=60, m=30, snr_db=20.0)
COMPLEX = ff.problems.RFImaging("gaussian", (8, 8), (6, 6), snr_db=20.0)
UMI = ff.problems.OFDMChannel("umi", snr_db=10.0)
TONE = ff.problems.Tone(n=32)
DOA = ff.problems.DirectionOfArrival(sensors=8, snapshots=4, snr_db=100.0)
BOX = ff.problems.Box((0.0, -1.0), (1.0, 3.0))
SIMULATOR = ff.problems.BatchSimulator(BOX, lambda x, generator: torch.cat([x, x.square()], -1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(problem, n: int = 2000, seed: int = 0):
    return problem.sample(n, generator(seed))


def both(altered: Altered, n: int = 2000):
    """The nominal draw and the changed one, of the same chance."""
    return *drawn(altered.problem, n), *drawn(altered, n)


# Every kind of problem


@pytest.mark.parametrize("name", REGISTRY)
def test_every_kind_of_problem_has_shifts_that_repeat_and_differ_from_the_nominal_draw(name, tmp_path):
    """The draw changes, or what is claimed of it; of few numbers perhaps none is hit by a gross error."""
    for row in ROWS[name].values():
        problem, n = row.problem(tmp_path).held_out(), 5 if row.draws > 20 else 2
        nominal = drawn(problem, n)
        found = shifts(problem)
        assert len({shift.name for shift in found}) == len(found) >= 5
        assert len({shift.family for shift in found}) >= 3
        for shift in found:
            (x, obs), (x2, again) = drawn(shift.problem, n), drawn(shift.problem, n)
            assert torch.equal(x, x2)
            assert torch.equal(obs.y, again.y)
            assert torch.isfinite(obs.y).all()
            assert x.shape[1:] == nominal[0].shape[1:]
            assert obs.y.shape[1:] == nominal[1].y.shape[1:]
            assert kind_of(shift.problem) == kind_of(problem)
            claimed = obs.noise_var is not None and not torch.equal(obs.noise_var, nominal[1].noise_var)
            moved = not torch.equal(obs.y, nominal[1].y) or not torch.equal(x, nominal[0])
            assert claimed or moved or shift.family == "gross errors", shift.name


NIL = {
    "gain": lambda p: ff.guard.Amplified(p, 1.0),
    "tails": lambda p: ff.guard.HeavyTailed(p, None),
    "correlation": lambda p: ff.guard.Correlated(p),
    "noise": lambda p: ff.guard.Noisier(p, 1.0),
    "added": lambda p: ff.guard.Added(p),
    "claim": lambda p: ff.guard.NoiseClaimed(p),
    "scale": lambda p: ff.guard.Boosted(p),
    "phase": lambda p: ff.guard.PhaseTurned(p),
    "drift": lambda p: ff.guard.CalibrationDrift(p),
    "dead": lambda p: ff.guard.Dead(p),
    "tone": lambda p: ff.guard.Interfered(p, "tone"),
    "pulse": lambda p: ff.guard.Interfered(p, "pulse"),
    "radio": lambda p: ff.guard.RadioInterfered(p, "tone"),
    "user": lambda p: ff.guard.SecondUser(p),
    "operator": lambda p: ff.guard.Misbelieved(p),
    "prior": lambda p: ff.guard.BeyondPrior(p),
    "errors": lambda p: ff.guard.Contaminated(p),
}


@pytest.mark.parametrize("name", NIL)
@pytest.mark.parametrize("problem", [SPARSE, UMI], ids=["sparse", "umi"])
def test_no_severity_is_the_nominal_draw_bit_for_bit(name, problem):
    (x, obs), (x2, same) = drawn(problem, 20), drawn(NIL[name](problem), 20)
    assert torch.equal(x, x2)
    assert torch.equal(obs.y, same.y)
    assert torch.equal(obs.noise_var, same.noise_var)


def test_a_further_direction_without_power_is_none():
    assert torch.equal(drawn(ff.guard.ExtraDirection(DOA), 5)[1].y, drawn(DOA, 5)[1].y)


# Severities


def test_louder_signals_are_so_many_times_as_large_in_the_same_noise():
    x, obs, x3, louder = both(ff.guard.Amplified(SPARSE, 3.0))
    assert torch.equal(x3, 3 * x)
    assert torch.allclose(louder.y - SPARSE.A @ x3, obs.y - SPARSE.A @ x, atol=1e-4)


def test_heavy_tails_are_those_of_student():
    """The median of |t| of two degrees is `√(2/3)`; a quantile errs by `√(p q / n)` over the density there."""
    x, obs, heavy, y = both(ff.guard.HeavyTailed(SPARSE, 2))
    values = heavy[heavy != 0].abs()
    assert torch.equal(heavy != 0, x != 0)
    density = 2 * (2 + 2 / 3) ** -1.5  # of |t| at its median
    assert abs(values.median() - math.sqrt(2 / 3)) < 4 * 0.5 / len(values) ** 0.5 / density
    beyond = (values > 10).double().mean()
    p = 1 - 10 / math.sqrt(102)
    assert abs(beyond - p) < 4 * math.sqrt(p / len(values))
    residual = y.y - SPARSE.A @ heavy
    assert torch.allclose(residual, obs.y - SPARSE.A @ x, atol=1e-5 * float(heavy.abs().max()))


def test_correlated_values_and_supports_keep_their_marginals():
    n, k = 4000, 60
    x = drawn(ff.guard.Correlated(SPARSE.shifted(sparsity=0.5), values=0.8), n)[0]
    pair = (x[:, 1:] != 0) & (x[:, :-1] != 0)
    product = (x[:, 1:] * x[:, :-1])[pair]
    assert abs(product.mean() - 0.8) < 4 * 1.3 * 8 / len(product) ** 0.5  # neighbours within a sample are alike
    values = x[x != 0]
    assert abs(values.square().mean() - 1) < 4 * math.sqrt(2) * 4 / len(values) ** 0.5
    s = drawn(ff.guard.Correlated(SPARSE, support=0.8), n)[0] != 0
    share = s.double().mean()
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 * 9 / (n * k))  # (1 + .8) / (1 - .8) as many draws count as one
    stays = s[:, 1:][s[:, :-1]].double().mean()
    assert abs(stays - (0.8 + 0.2 * 0.1)) < 4 * math.sqrt(0.15 / s[:, :-1].sum())


@pytest.mark.parametrize("problem", [SPARSE, COMPLEX, UMI, TONE], ids=["sparse", "rf", "channels", "tone"])
@pytest.mark.parametrize("known", [False, True])
def test_more_noise_has_the_variance_that_it_says(problem, known):
    _, obs, _, noisier = both(ff.guard.Noisier(problem, 2.0, known=known))
    more = power(noisier.y - obs.y)
    ratio = (more.mean() / obs.noise_var.mean()).item()
    assert abs(ratio - 3) < 3 * 4 * math.sqrt(2 / more.numel())
    assert torch.allclose(noisier.noise_var, (4 if known else 1) * obs.noise_var)


def test_a_claim_changes_no_measurement():
    _, obs, _, claimed = both(ff.guard.NoiseClaimed(SPARSE, 0.25))
    assert torch.equal(obs.y, claimed.y)
    assert torch.allclose(claimed.noise_var, obs.noise_var / 4)


@pytest.mark.parametrize("problem", [SPARSE, COMPLEX], ids=["real", "complex"])
def test_an_operator_is_wrong_by_as_much_as_it_says(problem):
    """Signals are white, so that `E x` has the power of x times that of E, but for chance."""
    x, obs, _, other = both(ff.guard.Misbelieved(problem, 0.1), 4000)
    moved, there = power(other.y - obs.y).sum(-1), power(problem.A @ x).sum(-1)
    ratio = (moved.mean() / there.mean()).item()
    assert other.A is problem.A
    assert abs(ratio / 0.01 - 1) < 4 * 2 * (moved.std() / moved.mean()).item() / 4000**0.5


def test_an_operator_of_each_sample_is_wrong_for_each():
    detection = ff.problems.MIMODetection(users=3, antennas=6)
    x, obs, _, other = both(ff.guard.Misbelieved(detection, 0.1), 4000)
    ratio = (power(other.y - obs.y).mean() / power(obs.A @ x).mean()).item()
    assert abs(ratio / 0.01 - 1) < 4 * 2 / 4000**0.5


@pytest.mark.parametrize("problem", [SPARSE, COMPLEX, TONE], ids=["sparse", "rf", "tone"])
@pytest.mark.parametrize("form", ["tone", "pulse"])
def test_interference_has_its_level_over_each_sample_exactly(problem, form):
    _, obs, _, hit = both(ff.guard.Interfered(problem, form, -7.0), 200)
    level = power(hit.y - obs.y).sum(-1) / power(obs.y).sum(-1)
    assert torch.allclose(level, torch.full_like(level, 10**-0.7), rtol=1e-3)
    touched = (power(hit.y - obs.y) > 0).double().mean()
    assert touched == 1 or (form == "pulse" and abs(touched - 0.1) < 0.02)


def test_radio_interference_falls_where_it_must():
    """A tone on one pilot subcarrier of all antennas; a pulse on all subcarriers; the level is exact."""
    _, obs, _, hit = both(ff.guard.RadioInterfered(UMI, "tone", 0.0), 50)
    added = (hit.y - obs.y).unflatten(-1, (UMI.layout.antennas, -1)).abs() > 1e-4
    assert (added.any(1).sum(-1) == 1).all()
    assert torch.equal(added.any(1), added.all(1))
    _, obs, _, hit = both(ff.guard.RadioInterfered(UMI, "pulse", 0.0), 50)
    assert ((hit.y - obs.y).abs() > 0).all()
    level = power(hit.y - obs.y).sum(-1) / power(obs.y).sum(-1)
    assert torch.allclose(level, torch.ones_like(level), rtol=1e-3)


def test_a_second_user_is_a_channel_of_the_same_kind():
    """Powers of UMi's channels are one each; the mean over users is that of the first but for the level."""
    x, obs, _, hit = both(ff.guard.SecondUser(UMI, -10.0), 128)
    ratio = (power(hit.y - obs.y).mean() / power(UMI.A @ x).mean()).item()
    assert abs(db(ratio) + 10) < 1.0


def test_a_further_direction_has_its_power():
    _, obs, _, hit = both(ff.guard.ExtraDirection(DOA, -3.0), 2000)
    added = power(hit.y - obs.y).mean().item()
    assert abs(added / 10**-0.3 - 1) < 4 / math.sqrt(2000 * DOA.snapshots)  # sensors see the same signal


def test_dead_sensors_are_the_same_in_every_draw():
    y = drawn(ff.guard.Dead(DOA, 2, DOA.snapshots), 50)[1].y.unflatten(-1, (8, 4))
    dead = (y == 0).all(-1)
    assert (dead == dead[0]).all()
    assert dead[0].sum() == 2
    assert not torch.equal(dead[0], (drawn(ff.guard.Dead(DOA, 2, 4, 1), 1)[1].y.unflatten(-1, (8, 4)) == 0).all(-1)[0])
    with pytest.raises(ValueError, match="pass fewer"):
        drawn(ff.guard.Dead(SPARSE, 31), 1)


def test_receivers_drift_by_the_gain_and_phase_that_they_say():
    many = ff.guard.CalibrationDrift(COMPLEX, gain_db=2.0, phase_deg=20.0).responses(4000, torch.complex128)
    for deviation, wanted in ((20 * many.abs().log10(), 2.0), (many.angle().rad2deg(), 20.0)):
        assert abs(deviation.std() / wanted - 1) < 4 / math.sqrt(2 * 4000)
    _, obs, _, other = both(ff.guard.CalibrationDrift(COMPLEX, gain_db=2.0, phase_deg=20.0), 20)
    responses = other.y / obs.y
    assert torch.allclose(responses, responses[:1].expand_as(responses), rtol=1e-3)
    with pytest.raises(ValueError, match="real measurements have no phase"):
        drawn(ff.guard.CalibrationDrift(SPARSE, phase_deg=1.0), 1)


def test_a_common_phase_changes_no_law_of_circular_measurements():
    """The second moments are those of before: what `seen=False` says."""
    _, obs, _, turned = both(ff.guard.PhaseTurned(COMPLEX, 60.0), 4000)
    assert torch.allclose(power(obs.y), power(turned.y), rtol=1e-4)
    pseudo = [(y.square().mean(0).abs().mean() / power(y).mean()).item() for y in (obs.y, turned.y)]
    assert max(pseudo) < 4 * 3 / 4000**0.5


def test_gross_errors_hit_their_share():
    _, obs, _, hit = both(ff.guard.Contaminated(SPARSE, 0.1), 2000)
    share = (obs.y != hit.y).double().mean().item()
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / obs.y.numel())
    errors = (hit.y - obs.y) / obs.y.square().mean(-1, keepdim=True).sqrt()
    size = errors[obs.y != hit.y].square().mean().item()
    assert abs(size / 25 - 1) < 4 * math.sqrt(2 / (0.1 * obs.y.numel()))


def test_added_noise_has_its_level():
    _, obs, _, hit = both(ff.guard.Added(TONE, -10.0), 500)
    level = (power(hit.y - obs.y).sum(-1) / power(obs.y).sum(-1)).mean().item()
    assert abs(level / 0.1 - 1) < 4 / math.sqrt(500 * 32)


def test_parameters_beyond_the_prior_are_so_far_beyond():
    x = drawn(ff.guard.BeyondPrior(SIMULATOR, 0.25), 400)[0]
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    beyond = torch.where(x < low, low - x, torch.where(x > high, x - high, 0.0)) / (high - low)
    assert ((beyond > 0).sum(-1) == 1).all()
    assert torch.allclose(beyond.sum(-1), torch.tensor(0.25), atol=1e-5)
    share = (beyond[:, 0] > 0).double().mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / 400**0.5
    with pytest.raises(ValueError, match="no parameter with limits"):
        drawn(ff.guard.BeyondPrior(SPARSE, 0.1), 3)


def test_a_simulator_may_declare_other_nuisances():
    class Bench(ff.problems.BatchSimulator):
        def other_nuisances(self):
            return {"a room of 40 degrees": SIMULATOR}

    bench = Bench(BOX, lambda x, generator: x)
    assert Shift("nuisance", "a room of 40 degrees", SIMULATOR) in shifts(bench)


def test_channels_move_faster_and_spread_wider_where_their_source_says_how():
    jakes = ff.problems.OFDMChannel("jakes:array=1x2,subcarriers=12,delay_spread_ns=100,speed_mps=30")
    moved = {s.name: s.problem.channels for s in shifts(jakes) if s.family in ("Doppler", "delay spread")}
    assert {source.speed_mps for name, source in moved.items() if "m/s" in name} == {10.0, 100.0}
    assert sorted(round(s.delay_spread_ns) for name, s in moved.items() if "ns" in name) == [33, 300]
    assert all(source.layout == jakes.layout for source in moved.values())
    scenarios = [s.problem.layout for s in shifts(UMI) if s.family == "scenario"]
    assert len(scenarios) >= 3
    assert all(layout == UMI.layout for layout in scenarios)


STILL = ["rayleigh", "kronecker", "kronecker:frequency=0.8,space=0.5x0.5x0.2", "rician:frequency=0.9"]


@pytest.mark.parametrize("source", STILL)
def test_sources_that_stand_still_move_and_spread_where_that_can_be_said(source):
    """Doppler over symbols alone, with the correlations of before; a delay spread for a correlation over frequency."""
    axes = "array=2x2x2,subcarriers=12,symbols=3"
    problem = ff.problems.OFDMChannel(f"{source}{',' if ':' in source else ':'}{axes}", "comb-2")
    moved = {s.name: s.problem.channels for s in shifts(problem) if s.family in ("Doppler", "delay spread")}
    before = problem.channels.correlations()
    fast = [channels for name, channels in moved.items() if "m/s" in name]
    assert len(fast) == (0 if source.startswith("rician") else 3)
    for channels in fast:
        *space, time, frequency = channels.correlations()
        assert all(torch.allclose(a, b) for a, b in zip([*space, frequency], [*before[:-2], before[-1]], strict=True))
        assert time[0, 1].real < 1
    spreads = [channels.correlations()[-1][0, 1].abs().item() for name, channels in moved.items() if " ns" in name]
    if source != "rayleigh":
        shorter, longer = spreads
        assert longer < before[-1][0, 1].abs() < shorter < 1
    assert not [s for s in shifts(problem.shifted(source=f"kronecker:{axes[:-1]}1")) if s.family == "Doppler"]


def test_the_standards_places_are_shifts_where_they_can_be_drawn():
    pytest.importorskip("sionna")
    named = {s.severity: s.problem for s in shifts(UMI) if s.family == "scenario" and "38.901" in s.severity}
    assert set(named) == {f"{model} of TR 38.901" for model in ("uma", "inh", "cdl-c", "cdl-d")}
    assert all(problem.layout == UMI.layout for problem in named.values())
    x, _ = drawn(named["cdl-c of TR 38.901"], 4)
    assert power(x).mean().item() == pytest.approx(1, abs=1e-5)
    profile = ff.problems.OFDMChannel("tr38901:model=cdl-c,array=2x2x2,subcarriers=12,symbols=2,spacing_khz=60")
    moved = [(s.family, s.problem.channels) for s in shifts(profile) if s.family in ("Doppler", "delay spread")]
    assert [c.speed_mps for family, c in moved if family == "Doppler"] == [10.0, 30.0, 100.0]
    assert [round(c.delay_spread_ns) for family, c in moved if family == "delay spread"] == [33, 300]
    assert all(c.layout == profile.layout for _, c in moved)


def test_without_the_package_that_draws_them_the_standards_places_are_no_shifts(monkeypatch):
    def missing(self):
        raise ImportError

    monkeypatch.setattr(ff.propagation.TR38901, "versions", missing)
    assert not [s for s in shifts(UMI) if "38.901" in s.severity]


def test_the_untouched_families_of_sparse_recovery_are_two():
    assert {s.family for s in shifts(SPARSE) if s.untouched} == {"correlation", "calibration drift"}


def test_settings_of_the_nominal_problem_are_shifted_through():
    louder = ff.guard.Amplified(SPARSE, 3.0).shifted(snr_db=5.0, factor=2.0)
    assert (louder.problem.snr_db, louder.factor) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ff.guard.Amplified(SPARSE, 0.0), "factor"),
        (lambda: ff.guard.HeavyTailed(SPARSE, 0), "degrees"),
        (lambda: ff.guard.Correlated(SPARSE, values=1.0), "values"),
        (lambda: ff.guard.Noisier(SPARSE, 0.5), "factor"),
        (lambda: ff.guard.NoiseClaimed(SPARSE, -1.0), "factor"),
        (lambda: ff.guard.Dead(SPARSE, -1), "dead"),
        (lambda: ff.guard.Misbelieved(SPARSE, -0.1), "error"),
        (lambda: ff.guard.Contaminated(SPARSE, 1.5), "share"),
        (lambda: ff.guard.CalibrationDrift(SPARSE, -1.0), "gain_db"),
        (lambda: drawn(ff.guard.PhaseTurned(SPARSE, 3.0), 1), "no phase"),
        (lambda: drawn(ff.guard.Correlated(UMI, values=0.5), 1), "Bernoulli-Gaussian"),
        (lambda: drawn(ff.guard.Misbelieved(TONE, 0.1), 1), "no operator"),
        (lambda: drawn(ff.guard.Amplified(TONE, 2.0), 1), "sample_at"),
        (lambda: drawn(ff.guard.Noisier(SIMULATOR, 2.0), 1), "take Added"),
        (lambda: drawn(ff.guard.NoiseClaimed(SIMULATOR, 2.0), 1), "claim no noise variance"),
        (lambda: drawn(ff.guard.SecondUser(SPARSE, -3.0), 1), "problem of channels"),
        (lambda: drawn(ff.guard.RadioInterfered(SPARSE, "tone", -3.0), 1), "problem of channels"),
        (lambda: ff.guard.ExtraDirection(SPARSE, -3.0), "DirectionOfArrival"),
    ],
)
def test_bad_settings_say_what_to_pass(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# The table

NET = ff.iterate(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), 8)
SAFE = ff.iterate(ff.algorithms.FISTA(lam=0.05), 100)


def test_the_table_holds_the_guarded_estimator_to_the_baseline():
    """1.05 is the goal of a thousand calls; 300 pay the same few calls to learn, and chance as much as they have.

    A wrong sign, which nothing sees, nothing guards against: the network follows y further than what shrinks.
    """
    guard = ff.guard.guarded(NET, SAFE, SPARSE, reach=0.99, samples=200)
    monitor = ff.guard.monitor(NET, SPARSE, alarm=0.05, draws=800)
    some = [s for s in shifts(SPARSE) if s.family in ("gain", "noise, not known", "operator", "common phase")]
    peers = {"FISTA": SAFE, "LMMSE": ff.estimators.LMMSE.of(SPARSE)}
    table = shift_table(
        NET, SPARSE, guarded=guard, peers=peers, monitor=monitor, cells=some, calls=300, samples=50, between=100.0
    )
    home, *rest = table.cells
    assert home.family == "none"
    assert table.baseline == "FISTA"
    assert home.risk.high < 1
    assert home.limit_db is not None
    assert home.detected < 0.05 + 4 * math.sqrt(0.05 / 300)
    assert home.guarded_db < home.network_db + 0.5
    for cell in rest:
        assert cell.risk.low <= cell.risk.value <= cell.risk.high
        spread = (cell.guarded_risk.high - cell.guarded_risk.low) / 2
        assert cell.guarded_risk.value < 1.05 + spread or not cell.seen, cell.severity
        assert set(cell.peers_db) == {"FISTA", "LMMSE"}
        if not cell.seen:
            assert cell.detected < 0.05 + 4 * math.sqrt(0.05 / 300)
            assert cell.risk.value == pytest.approx(1, abs=0.1)  # neither knows
    loudest = next(cell for cell in rest if (cell.family, cell.severity[:3]) == ("noise, not known", "x10"))
    assert loudest.detected > 0.9
    assert loudest.delay <= loudest.alarmed_after <= 20
    assert guard.calls.all == 0
    held = json.loads(json.dumps(table.as_dict()))
    assert held["summary"]["cells"] == len(some) == len(held["rows"]) - 1
    assert held["summary"]["worst_risk"] == max(c.risk.value for c in rest)
    assert table.markdown().count("\n") == len(some) + 2
    assert "Guarded" in table.verdict


def test_without_anything_named_the_best_peer_is_the_baseline():
    peers = {"zero": lambda obs: ff.Estimate(0 * (obs.A.H @ obs.y)), "FISTA": SAFE}
    table = shift_table(NET, SPARSE, peers=peers, cells=shifts(SPARSE)[:1], calls=20, samples=20)
    assert table.baseline == "FISTA"
    assert table.cells[0].guarded_risk is None


def test_a_network_that_gives_no_number_is_infinitely_bad_and_the_table_says_so():
    def broken(obs):
        return ff.Estimate(torch.full_like(obs.A.H @ obs.y, math.nan))

    table = shift_table(broken, SPARSE, baseline=SAFE, peers={}, cells=shifts(SPARSE)[:1], calls=20)
    assert all(cell.risk.value == math.inf and cell.harmful for cell in table.cells)


def test_a_specialist_is_as_good_as_the_network_and_better_where_there_is_something_to_learn():
    ista = ff.algorithms.ISTA(lam=0.05)
    net = ff.unfold(ista, SPARSE, 4, {"step": "per-layer", "threshold": "per-layer"})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cells = [s for s in shifts(SPARSE) if s.family == "gain"]
    table = shift_table(net, SPARSE, baseline=SAFE, peers={}, cells=cells, calls=500, specialist_steps=30)
    gains = [cell.network_db - cell.specialist_db for cell in table.cells]
    assert max(gains) > 0.1
    assert min(gains) > -0.1  # the best step is chosen by other draws than these 500
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert "specialist_db" in table.table.columns
    alone = shift_table(net, SPARSE, baseline=SAFE, peers={}, cells=cells[:1], calls=10)
    assert "specialist_db" not in alone.table.columns
    assert all(cell.specialist_db is None for cell in alone.cells)


def test_the_table_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="specialist_steps is -1"):
        shift_table(NET, SPARSE, baseline=SAFE, peers={}, calls=10, specialist_steps=-1)
    with pytest.raises(ValueError, match="Iterated has nothing to learn, so it has no specialists"):
        shift_table(NET, SPARSE, baseline=SAFE, peers={}, calls=10, specialist_steps=5)
    with pytest.raises(ValueError, match="nothing to compare"):
        shift_table(NET, SPARSE, peers={}, calls=10)
    with pytest.raises(ValueError, match="calls is 1"):
        shift_table(NET, SPARSE, baseline=SAFE, peers={}, calls=1)
    with pytest.raises(ValueError, match="no cells"):
        shift_table(NET, SPARSE, baseline=SAFE, peers={}, cells=[], calls=10)
    guard = ff.guard.guarded(SAFE, SAFE, SPARSE, reach=0.9, samples=20)
    with pytest.raises(ValueError, match="guarded is around another estimator"):
        shift_table(NET, SPARSE, guarded=guard, peers={}, calls=10)


def test_the_worst_quarter_is_the_mean_of_the_largest_risks():
    def cell(risk: float, alarmed_after: int | None = None) -> ShiftCell:
        ratio = Ratio(risk, risk, risk)
        errors = {"network_db": 0.0, "baseline_db": 0.0, "guarded_db": None, "peers_db": {}, "limit_db": None}
        late = {"detected": None, "alarmed_after": alarmed_after, "delay": None, "in_fallback": None}
        named = {"family": "gain", "severity": f"x{risk:g}", "seen": True, "untouched": False, "calls": 10}
        return ShiftCell(**named, **errors, risk=ratio, guarded_risk=None, **late)

    table = ShiftTable([cell(r, 3 if r < 1 else None) for r in (0.5, 0.9, 1.0, 2.0, 3.0, 7.0)], "FISTA", 0.01)
    assert table.cvar() == (7 + 3) / 2
    assert table.worst.severity == "x7"
    assert table.summary["harmful"] == 3
    assert table.summary["benign_alarms"] == 2


# A run


def test_a_run_says_what_shifts_do_to_it_and_its_page_shows_it(tmp_path, capsys):
    """Tones have no operator: the monitor guards. A damaged table is refused in a sentence."""
    run = tmp_path / "run"
    small = ["--n", "12", "--steps", "20", "--batch", "16", "--validate-every", "10", "--validation-samples", "50"]
    assert cli.run(["train", "tone", "neural", *small, "--threads", "1", "--run-dir", str(run)]) == 0
    evaluate = ["evaluate", str(run), "--samples", "30", "--json"]
    assert cli.run([*evaluate, "--baseline", "zero"]) == 2
    assert "add --shifts" in capsys.readouterr().err
    assert cli.run([*evaluate, "--specialist-steps", "5"]) == 2
    assert "--specialist-steps 5 is for the cells of --shifts; add --shifts." in capsys.readouterr().err
    assert cli.run([*evaluate, "--shifts", "--baseline", "maximum likelyhood"]) == 2
    assert "Did you mean 'maximum likelihood'?" in capsys.readouterr().err
    assert cli.run([*evaluate, "--shifts", "--baseline", "exact posterior"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows, summary = result["shifts"]["rows"], result["shifts"]["summary"]
    assert {row["estimator"] for row in result["rows"]} >= {"network", "exact posterior"}
    assert summary["baseline"] == "exact posterior"
    assert len(rows) == 1 + summary["cells"] == 1 + len(shifts(ff.problems.Tone(n=12)))
    assert rows[0]["risk"] > 1
    assert rows[0]["guarded_db"] is not None
    assert "maximum likelihood, dB" in rows[0]
    kept = Run.open(run)
    (section,) = shift_sections(kept)
    assert len(section.table.rows) == len(rows)
    assert "the worst quarter" in section.text
    kept.keep("shifts", {"rows": [{"family": "none"}]})
    with pytest.raises(ValueError, match=r"damaged.*evaluate --shifts"):
        shift_sections(kept)
