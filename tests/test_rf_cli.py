"""A user's own array at the command line: its geometry file, its calibration pairs, and what is said of wrong ones."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.bounds import support_oracle
from fanfold.cli import main as cli
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db, power
from fanfold.estimators.linear.image import back_projection
from fanfold.linops import Born, Kronecker, partial_fourier, steering, uniform_linear
from fanfold.priors import BernoulliGaussian
from fanfold.problems import RFGeometry
from fanfold.problems.draws import draw
from fanfold.problems.rf.geometry_file import LIGHT, read_geometry
from fanfold.runs.keep import load
from fanfold.unfolding.unfold import iterate

EXAMPLES = Path(__file__).parent.parent / "examples/rf"
ANGLE = '[[axis]]\nkind = "linear-array"\nelements = 7\nfield = 0.8\nvoxels = 8\n'
RANGE = """[[axis]]
kind = "frequencies"
frequencies_hz = [1e9, 1.1e9, 1.2e9, 1.3e9, 1.4e9]
range_m = [1, 2.2]
voxels = 6
"""
NEAR = """[near-field]
transmitters_m = [[-0.1, 0, 0], [0.1, 0, 0]]
receivers_m = [[0, 0.1, 0], [0, 0.2, 0], [0, 0.3, 0]]
first_hz = 9e9
bandwidth_hz = 1e9
count = 3
lowest_m = [-0.1, 0, 0.4]
highest_m = [0.1, 0, 0.6]
voxels = [3, 1, 4]
"""
SHORT = ["--steps", "40", "--batch", "32", "--layers", "4", "--lr", "1e-2", "--validate-every", "20", "--threads", "1"]
N, M = 48, 35  # voxels and measurements of ANGLE and RANGE


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def geometry(tmp_path) -> Path:
    return written(tmp_path, ANGLE + RANGE)


def written(folder: Path, text: str) -> Path:
    (folder / "array.toml").write_text(text)
    return folder / "array.toml"


def factors(folder: Path, text: str) -> tuple:
    A = read_geometry(written(folder, text)).A
    assert isinstance(A, Kronecker)
    return A.factors


def assert_close(a, b):
    """Up to the rounding of phases of some hundred turns in double precision."""
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


# What a geometry file means


def test_a_linear_array_is_its_steering_matrix(tmp_path):
    (A,) = factors(tmp_path, ANGLE)
    assert_close(A, steering(uniform_linear(7), torch.linspace(-0.8, 0.8, 8, dtype=torch.float64), torch.complex128))


def test_positions_are_elements_anywhere(tmp_path):
    np.save(tmp_path / "p.npy", np.array([0, 0.4, 1.7]))
    listed = '[[axis]]\nkind = "positions"\npositions = [0, 0.4, 1.7]\nfield = [-0.2, 0.5]\nvoxels = 8\n'
    (A,), (B,) = factors(tmp_path, listed), factors(tmp_path, listed.replace("[0, 0.4, 1.7]", '"p.npy"'))
    sines = torch.linspace(-0.2, 0.5, 8, dtype=torch.float64)
    assert_close(A, steering(torch.tensor([0, 0.4, 1.7], dtype=torch.float64), sines, torch.complex128))
    assert torch.equal(A, B)


def test_frequencies_see_the_path_there_and_back(tmp_path):
    (A,) = factors(tmp_path, RANGE)
    f, r = torch.linspace(1e9, 1.4e9, 5, dtype=torch.float64), torch.linspace(1, 2.2, 6, dtype=torch.float64)
    assert_close(A, torch.exp(-4j * math.pi * f[:, None] * r / LIGHT) / 5**0.5)
    of_bandwidth = RANGE.replace(RANGE.splitlines()[2], "first_hz = 1e9\nbandwidth_hz = 4e8\ncount = 5")
    assert_close(factors(tmp_path, of_bandwidth)[0], A)


def test_fourier_rows_and_measured_matrices(tmp_path):
    measured = torch.randn(3, 4, dtype=torch.complex128, generator=rng())
    np.save(tmp_path / "m.npy", measured.numpy())
    text = '[[axis]]\nkind = "fourier"\nrows = [0, 2, 5]\nvoxels = 8\n[[axis]]\nkind = "matrix"\nfile = "m.npy"\n'
    A, B = factors(tmp_path, text)
    assert_close(A, partial_fourier(8, torch.tensor([0, 2, 5]), torch.complex128))
    assert torch.equal(B, measured)


def test_axes_are_in_the_order_of_the_file(geometry):
    found = read_geometry(geometry)
    assert (found.scene, found.measured, found.A.shape) == ((8, 6), (7, 5), (M, N))


def test_a_near_field_set_up_is_the_born_operator_of_its_grid(tmp_path):
    found = read_geometry(written(tmp_path, NEAR))
    assert isinstance(found.A, Born)
    assert (found.scene, found.measured) == ((3, 1, 4), (2, 3, 3))
    transmitter, receiver, voxel = (
        torch.tensor(p, dtype=torch.float64) for p in ([0.1, 0, 0], [0, 0.2, 0], [0.1, 0, 0.4])
    )
    path = (voxel - transmitter).norm() + (voxel - receiver).norm()
    row, column = (1 * 3 + 1) * 3 + 2, 2 * 4  # the last frequency; the last x, the first z
    expected = torch.exp(-2j * math.pi * 1e10 / LIGHT * path) / 18**0.5
    assert_close(found.A.matrix()[row, column], expected)


@pytest.mark.parametrize("text", [ANGLE + RANGE, NEAR])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_simulated_scenes_are_measured_by_the_true_array(tmp_path, text, dtype):
    p = RFGeometry(str(written(tmp_path, text)), sparsity=0.5, phase_deg=10, gain_db=1, snr_db=math.inf, dtype=dtype)
    x, obs = p.sample(5, rng())
    assert obs.A is p.A is p.shifted(snr_db=3.0).A
    assert p.true_A is p.shifted().true_A
    assert p.prior is None
    gain = obs.y / (p.A @ x)  # one for each measurement, the same for every scene
    # rounding of sums of n terms that may cancel, over sums of median size
    assert (gain / gain[0] - 1).abs().median() < 100 * torch.finfo(obs.y.dtype).eps
    axes, count = len(p._geometry.measured), sum(p._geometry.measured)
    # a product of one gain an axis, each of 1 dB; their spread is known to about 1 / sqrt(2 count) of itself
    assert (20 * gain[0].abs().log10()).std() < axes**0.5 * (1 + 5 / (2 * count) ** 0.5)
    assert (gain[0].abs().log10()).std() > 0
    assert p.shifted(phase_deg=0.0, gain_db=0.0).true_A is p.A


def test_the_snr_is_that_of_the_measurements(geometry):
    p = RFGeometry(str(geometry), snr_db=7.0)
    x, obs = p.sample(20_000, rng())
    ratio = 10 * math.log10(power(p.A @ x).mean() / power(obs.y - p.A @ x).mean())
    # 20 000 scenes of about five points: their power is known to 1 / sqrt(1e5), twice that for its fourth moment
    assert ratio == pytest.approx(7.0, abs=5 * 10 / math.log(10) * 2 / 1e5**0.5)


# Errors of geometry files


def said(args: list[str], capsys) -> str:
    """What a refused command prints, out of its box."""
    assert cli.run(args) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return " ".join(err.replace("│", " ").split())


MATRIX = '[[axis]]\nkind = "matrix"\nfile = "m.npy"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axis = [", "cannot be read as TOML"),
        ("", "has nothing; give [[axis]] tables or one [near-field]"),
        (ANGLE + NEAR, "has axis and near-field"),
        (ANGLE.replace("[[axis]]", "[axis]"), "double brackets"),
        (ANGLE.replace("[[axis]]", "[[axes]]"), "Did you mean 'axis'?"),
        (ANGLE.replace("linear-array", "linear-aray"), "axis 1: kind is 'linear-aray'"),
        (ANGLE + RANGE.replace("kind", "knd"), "axis 2: kind is missing. Did you mean 'knd'?"),
        (ANGLE.replace("voxels", "voxel"), "axis 1: voxels is missing. Did you mean 'voxel'?"),
        (ANGLE + "spacin = 0.5\n", "no setting 'spacin'; there are kind, spacing"),
        (ANGLE.replace("= 8", "= 8.5"), "voxels is 8.5; give a whole number"),
        (ANGLE.replace("0.8", "1.8"), "field is 1.8; give a sine"),
        (ANGLE + "spacing = 0\n", "positive spacing"),
        (ANGLE + 'spacing = "wide"\n', "spacing is 'wide'; give a finite number"),
        (ANGLE + "spacing = 1.0\n", "cannot tell directions apart over 1.6 in sines, at most 1"),
        (
            '[[axis]]\nkind = "positions"\npositions = [0, 0.5, 0.5]\nfield = 0.5\nvoxels = 4\n',
            "two antennas coincide at",
        ),
        ('[[axis]]\nkind = "positions"\npositions = "p.npy"\nfield = 0.5\nvoxels = 4\n', "there is no file"),
        (RANGE.replace("1.1e9", "1e9"), "is there twice"),
        (RANGE.replace("2.2", "3.2"), "tell ranges apart within c / 2 df = 1.4"),
        (RANGE.replace("[1, 2.2]", "[2.2, 1]"), "give the lowest and the highest, in metres"),
        ('[[axis]]\nkind = "fourier"\nrows = [1, 9]\nvoxels = 8\n', "different numbers from 0 to 7"),
        (MATRIX, "rank 2: some of its rows or columns follow from others"),
        (MATRIX.replace("m.npy", "bad.npy"), "cannot be read as .npy"),
        (NEAR.replace("[0.1, 0, 0]]", "[-0.1, 0, 0]]"), "two transmitters coincide"),
        (NEAR.replace("[[-0.1, 0, 0], [0.1, 0, 0]]", "[[-0.1, 0], [0.1, 0]]"), "transmitters have shape (2, 2)"),
        (NEAR.replace("[3, 1, 4]", "[3, 4]"), "give 3 whole numbers"),
        (NEAR.replace("[3, 1, 4]", "[3, 2, 4]"), "they may agree on axes of one voxel"),
        (NEAR.replace("count = 3", "count = 1"), "bandwidth_hz is 1e+09 over 1 frequencies"),
    ],
)
def test_wrong_geometry_files_are_said_with_their_place(tmp_path, capsys, text, message):
    np.save(tmp_path / "m.npy", np.repeat(np.arange(8.0).reshape(2, 4), 2, 0))
    (tmp_path / "bad.npy").write_text("1 2 3")
    err = said(["train", "rf", "oamp", "--geometry", str(written(tmp_path, text))], capsys)
    assert message in err
    assert "array.toml" in err


def test_a_geometry_that_is_not_there_is_named(capsys):
    assert "there is no geometry file none.toml" in said(["train", "rf", "oamp", "--geometry", "none.toml"], capsys)


# Errors of calibration pairs


def pairs(folder: Path, **changes: np.ndarray | None) -> Path:
    """Pairs that fit, but for the changes."""
    r = np.random.default_rng(0)
    x, y = (r.normal(size=(20, k)) + 1j * r.normal(size=(20, k)) for k in (N, M))
    arrays = {"x": x, "y": y} | changes
    np.savez(folder / "pairs.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "pairs.npz"


def complex_zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.complex64)


with_nan = complex_zeros(20, M)
with_nan[3, 4] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "has no array x; it has y"),
        ({"y": None}, "has no array y; it has x"),
        ({"x": complex_zeros(0, N), "y": complex_zeros(0, M)}, "holds no pairs"),
        ({"x": np.ones((1, N)), "y": complex_zeros(1, M)}, "holds 1 pairs: too few"),
        ({"x": complex_zeros(N)}, "holds no pairs: x has shape (48,)"),
        ({"x": complex_zeros(19, N)}, "holds 19 scenes x and 20 measurements y"),
        ({"x": complex_zeros(20, 47)}, "geometry has 48 voxels; store (samples, 48) or (samples, 8, 6)"),
        ({"y": complex_zeros(20, 36)}, "geometry has 35 measurements; store (samples, 35) or (samples, 7, 5)"),
        ({"x": complex_zeros(20, M), "y": complex_zeros(20, N)}, "Are x and y swapped?"),
        ({"y": np.ones((20, M))}, "real y, torch.float64, but the array measures complex amplitudes: store I + 1j * Q"),
        ({"y": with_nan}, "not finite: (nan+0j) at index (3, 4)"),
        ({"x": np.full((20, N), np.inf)}, "not finite: inf at index (0, 0)"),
        ({"x": complex_zeros(20, N)}, "nothing but zeros in x"),
        ({"noise_var": np.array(-1.0)}, "noise_var is -1"),
        ({"noise_var": np.ones(19)}, "noise_var has shape (19,)"),
        ({"x": np.array([{"a": 1}] * 20, dtype=object)}, "cannot be read as .npz"),
    ],
)
def test_wrong_pairs_are_said_with_what_to_store(geometry, tmp_path, capsys, changes, message):
    path = pairs(tmp_path, **changes)
    err = said(["train", "rf", "oamp", "--geometry", str(geometry), "--pairs", str(path)], capsys)
    assert message in err


def test_pairs_that_are_not_there_are_named_with_the_way_out(geometry, capsys):
    err = said(["train", "rf", "oamp", "--geometry", str(geometry), "--pairs", "none.npz"], capsys)
    assert "there is no file none.npz of calibration pairs" in err
    assert "leave --pairs out to train on simulated scenes" in err


@pytest.mark.filterwarnings("ignore:.*is this the right A")  # these pairs are noise
def test_scenes_and_measurements_may_keep_their_axes_and_precision(geometry, tmp_path):
    flat = RFGeometry(str(geometry), str(pairs(tmp_path))).sample(5, rng())
    stored = np.load(tmp_path / "pairs.npz")
    shaped = pairs(tmp_path, x=stored["x"].reshape(20, 8, 6), y=stored["y"].reshape(20, 7, 5).astype(np.complex64))
    x, obs = RFGeometry(str(geometry), str(shaped)).sample(5, rng())
    assert torch.equal(x, flat[0])
    assert torch.equal(obs.y, flat[1].y)


@pytest.mark.filterwarnings("ignore:.*is this the right A")
def test_the_last_pairs_are_held_out(geometry, tmp_path):
    p = RFGeometry(str(geometry), str(pairs(tmp_path)))
    seen, unseen = p.sample(500, rng())[0], p.held_out().sample(500, rng())[0]
    stored = torch.as_tensor(np.load(tmp_path / "pairs.npz")["x"]).to(torch.complex64)
    assert set(seen[:, 0].tolist()) == set(stored[:16, 0].tolist())
    assert sorted(unseen[:, 0].abs().tolist()) == sorted(stored[16:, 0].abs().tolist())


# From the geometry to an estimate


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    """A folder with a geometry, pairs of an array with 10 degrees of phase error, one more measurement, and a run."""
    folder = tmp_path_factory.mktemp("rf")
    array = RFGeometry(str(written(folder, ANGLE + RANGE)), sparsity=0.05, phase_deg=10, seed=1)
    x, obs = array.sample(601, rng())
    scale = 1e-5  # of what a receiver gives
    np.savez(folder / "pairs.npz", x=scale * x[1:].numpy(), y=scale * obs.y[1:].numpy())
    np.save(folder / "x.npy", scale * x[0].numpy())
    np.save(folder / "y.npy", scale * obs.y[0].numpy())
    args = ["--geometry", str(folder / "array.toml"), "--pairs", str(folder / "pairs.npz")]
    assert cli.run(["train", "rf", "oamp", *args, *SHORT, "--run-dir", str(folder / "run")]) == 0
    return folder


def printed(capsys, args: list[str]) -> dict:
    capsys.readouterr()
    assert cli.run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_training_on_pairs_of_the_true_array_beats_the_nominal_one(calibrated, capsys):
    result = printed(capsys, ["evaluate", str(calibrated / "run")])
    rows = {row["estimator"]: row for row in result["rows"]}
    ours, nominal = rows["unfolded"], rows["untrained OAMP"]
    assert ours["samples"] == 120  # what was held out, each once
    assert ours["high_db"] < nominal["low_db"]  # 95 % intervals apart
    assert ours["limit_db"] is None  # limits for A would not hold


def test_apply_estimates_from_a_measurement_of_the_true_array(calibrated, capsys):
    folder, out = calibrated, calibrated / "x_hat.npy"
    result = printed(capsys, ["apply", str(folder / "run"), str(folder / "y.npy"), "--out", str(out)])
    assert result["shape"] == [N]
    x, y, x_hat = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("x", "y", "x_hat"))
    net = load(folder / "run")
    problem = RFGeometry(str(folder / "array.toml"), str(folder / "pairs.npz"))
    from fanfold.observation import Observation

    with torch.no_grad():
        assert torch.equal(x_hat, net(Observation(y, problem.A)).x)
    assert nmse_db(x_hat, x) < nmse_db(back_projection(Observation(y, problem.A)).x, x)


def test_resume_and_report_know_the_array(calibrated, capsys):
    printed(capsys, ["resume", str(calibrated / "run")])
    page = printed(capsys, ["report", str(calibrated / "run"), "--out", str(calibrated / "r.html"), "--samples", "50"])
    assert "untrained OAMP" in Path(page["report"]).read_text()


@pytest.mark.filterwarnings("ignore:120 pairs have measured SNRs")  # of scenes without a point
def test_measured_pairs_are_sorted_by_their_snr_and_take_no_other_condition(calibrated, capsys):
    """Their SNR is read off the nominal array, whose errors of 10 degrees leave about 12 dB."""
    (row, *_) = printed(capsys, ["evaluate", str(calibrated / "run"), "--snr-db", "12"])["rows"]
    assert row["snr_db"] == 12
    assert abs(row["measured_snr_db"] - 12) < 5
    assert "no two of them are within 5 dB" in said(["evaluate", str(calibrated / "run"), "--snr-db", "60"], capsys)
    problem = RFGeometry(str(calibrated / "array.toml"), str(calibrated / "pairs.npz"))
    with pytest.raises(ValueError, match="sparsity is a setting of simulated scenes"):
        problem.shifted(sparsity=0.1)


def test_a_changed_geometry_is_refused(calibrated, capsys, tmp_path):
    for name in ("array.toml", "pairs.npz"):
        (tmp_path / name).write_bytes((calibrated / name).read_bytes())
    args = ["--geometry", str(tmp_path / "array.toml"), "--pairs", str(tmp_path / "pairs.npz")]
    assert cli.run(["train", "rf", "fista", *args, *SHORT, "--steps", "2", "--run-dir", str(tmp_path / "run")]) == 0
    written(tmp_path, (ANGLE + RANGE).replace("0.8", "0.7"))
    assert "garbage" in said(["resume", str(tmp_path / "run")], capsys)
    out = str(tmp_path / "x_hat.npy")
    assert cli.run(["apply", str(tmp_path / "run"), str(calibrated / "y.npy"), "--out", out]) == 0  # the run has its A


@pytest.mark.parametrize("algorithm", ["oamp", "fista", "ep"])
def test_simulated_scenes_of_a_near_field_array_train(tmp_path, capsys, algorithm):
    args = ["--geometry", str(written(tmp_path, NEAR)), *SHORT, "--steps", "4", "--validation-samples", "20"]
    printed(capsys, ["train", "rf", algorithm, *args, "--snr-db", "20", "--run-dir", str(tmp_path / "run")])
    rows = printed(capsys, ["evaluate", str(tmp_path / "run"), "--snr-db", "10", "20", "--samples", "20"])["rows"]
    assert {row["snr_db"] for row in rows} == {10.0, 20.0}


def test_algorithms_begin_from_the_prior_of_the_training_scenes(calibrated):
    from fanfold.cli.training import _suited

    problem = RFGeometry(str(calibrated / "array.toml"), str(calibrated / "pairs.npz"))
    x = torch.from_numpy(np.load(calibrated / "pairs.npz")["x"])[:480].to(torch.complex64)
    for algorithm in (OAMP(), EP()):
        prior = vars(_suited(algorithm, problem, prior_given=False))["prior"]
        assert isinstance(prior, BernoulliGaussian)
        assert prior.p == pytest.approx((x != 0).double().mean().item())
        assert prior.power == pytest.approx(power(x).double().mean().item(), rel=1e-5)
    asked = OAMP(BernoulliGaussian(0.07))
    assert _suited(asked, problem, prior_given=True) is asked


# The examples


def test_readme_commands_run_and_calibration_wins_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (EXAMPLES.parent.parent / "README.md").read_text()
    (commands,) = re.findall(r"```bash\n(python examples/rf.*?)```", readme, re.DOTALL)
    before, after = re.findall(r"eight layers of OAMP come from −([\d.]+) to −([\d.]+) dB", readme)[0]
    (tmp_path / "examples").symlink_to(EXAMPLES.parent)
    first, *others = commands.splitlines()
    assert first.startswith("python examples/rf/make_pairs.py ")
    subprocess.run([sys.executable, *first.split()[1:]], check=True)
    for line in others:
        line = line + " --threads 1" if " train " in line else line + " --out t.json" if "evaluate" in line else line
        program, *words = line.split()
        assert program == "fanfold"
        assert cli.run(words) == 0
    rows = {row["estimator"]: row for row in json.loads((tmp_path / "t.json").read_text())}
    for name, value in (("untrained OAMP", before), ("unfolded", after)):
        assert rows[name]["low_db"] < -float(value) < rows[name]["high_db"]


def test_the_example_makes_pairs_that_train(tmp_path):
    geometry, out = str(EXAMPLES / "array.toml"), str(tmp_path / "pairs.npz")
    subprocess.run([sys.executable, str(EXAMPLES / "make_pairs.py"), geometry, out], check=True)
    args = [
        "--geometry",
        geometry,
        "--pairs",
        out,
        "--steps",
        "2",
        "--threads",
        "1",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert cli.run(["train", "rf", "oamp", *args]) == 0
    assert cli.run(["apply", str(tmp_path / "run"), str(tmp_path / "y.npy"), "--out", str(tmp_path / "x_hat.npy")]) == 0


def test_in_the_near_field_sparse_methods_beat_back_projection_and_ep_comes_close_to_the_oracle():
    """No Kronecker product: paths from each transmitter by each voxel to each receiver."""
    p = RFGeometry(str(EXAMPLES / "near_field.toml"), sparsity=0.03, snr_db=30)
    assert isinstance(p.A, Born)
    x, obs = draw(p, 24, 0, Stream.TESTING, 0)
    prior = p.prior
    assert prior is not None
    image = power(back_projection(obs).x - x).sum(-1)
    methods = {"FISTA": (FISTA(0.01), 300), "OAMP": (OAMP(prior, damping=0.3), 30)}
    methods["EP"] = (EP(prior, improper="forget", damping=0.7), 12)
    errors = {name: power(iterate(a, count)(obs).x - x).sum(-1) for name, (a, count) in methods.items()}
    for error in errors.values():
        gain = image - error
        assert gain.mean() > 5 * gain.std() / len(x) ** 0.5  # five standard errors
    oracle = power(support_oracle(x, obs, prior.var) - x).sum(-1)
    # points that are lost in the noise have a thousandth of a voxel's power: less than what the oracle leaves
    assert (errors["EP"] / oracle).median() < 2
