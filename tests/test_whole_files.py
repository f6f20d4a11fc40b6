"""Writers leave a whole file or the older one, whatever the disk does, and replace nothing by mistake."""

import ast
import os
import resource
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold
import fanfold as ff
from fanfold.cli import main as cli
from fanfold.cli.channels import png
from fanfold.cli.outputs import check_file, check_folder
from fanfold.core.csv_files import read_csv, write_csv
from fanfold.core.files import whole, write_whole
from fanfold.core.table import Table
from fanfold.estimators.ofdm.mixture import Mixture
from fanfold.report.page import write_page
from fanfold.runs.weights import write_tensors

OLD = b"what was there"


@contextmanager
def files_up_to(size: int):
    """A block in which no file grows beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mixture() -> Mixture:
    space, modes, basis = (torch.eye(3, dtype=torch.complex128) for _ in range(3))
    return Mixture(torch.ones(1, dtype=torch.float64), space[None], modes[None], basis, 1)


TABLE = Table([{"name": f"row {i}", "value": 1.0 / (i + 1)} for i in range(50)])
WRITERS = {
    "csv": TABLE.to_csv,
    "json": TABLE.to_json,
    "page": lambda path: write_page(path, "title", "verdict", [], {}),
    "mixture": lambda path: mixture().save(path),
    "tensors": lambda path: write_tensors(path, {"x": torch.ones(100)}, {}),
    "picture": lambda path: write_whole(path, png(torch.randn(16, 16, dtype=torch.complex64))),
}


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    """A trained run, and a command that applies it to measurements."""
    folder = tmp_path_factory.mktemp("applied")
    short = ["--steps", "1", "--batch", "4", "--validation-samples", "10", "--threads", "1"]
    train = ["train", "compressed-sensing", "ista", "--n", "40", "--m", "20", "--layers", "2", *short]
    assert cli.run([*train, "--run-dir", str(folder / "run")]) == 0
    y = torch.randn(5, 20, generator=torch.Generator().manual_seed(0)).numpy()
    np.save(folder / "y.npy", y)
    return folder, ["apply", str(folder / "run")], y


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path, writer):
    path = tmp_path / "out"
    path.write_bytes(OLD)
    with files_up_to(64), pytest.raises(OSError, match="what was there is unharmed"):
        WRITERS[writer](path)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_apply_on_a_full_disk_leaves_all_older_files(applied, tmp_path, capsys, ending):
    folder, words, _ = applied
    out = tmp_path / f"x{ending}"
    out.write_bytes(OLD)
    with files_up_to(64):
        assert cli.run([*words, str(folder / "y.npy"), "--out", str(out), "--overwrite"]) == 1
    assert "what was there is unharmed" in capsys.readouterr().err
    assert out.read_bytes() == OLD
    assert os.listdir(tmp_path) == [out.name]


def test_where_several_are_written_none_is_replaced_unless_all_could_be(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(OLD)
    with files_up_to(64), pytest.raises(OSError, match="unharmed"), ExitStack() as stack:  # noqa: PT012
        for path, size in ((first, 3), (second, 9000)):
            stack.enter_context(whole(path)).write(b"n" * size)
    assert first.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["a"]


def test_links_stay_links_and_pipes_are_written_to(tmp_path):
    (tmp_path / "target").write_bytes(OLD)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
    write_whole(Path(os.devnull), b"new")
    assert not Path(os.devnull).is_file()
    done = subprocess.run(
        [sys.executable, "-c", "from fanfold.core.table import Table; Table([{'a': 1}]).to_csv('/dev/stdout')"],
        capture_output=True,
    )
    assert (done.stdout, done.stderr) == (b"a\n1\n", b"")


@pytest.mark.parametrize("name", ["a b", "[red]", "a\nb", "-x", "x" * 255, "ü", os.fsdecode(b"\xff")])
def test_any_name_that_the_system_allows_can_be_written(tmp_path, name):
    write_whole(tmp_path / name, b"new")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "is a folder"),
        ("no/x.csv", "there is no folder"),
        ("file/x.csv", "there is no folder"),
        ("there.csv", "--overwrite"),
        ("x.txt", "ends in .txt"),
        ("x" * 260 + ".csv", "too long a name"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    for file in ("file", "there.csv"):
        (tmp_path / file).write_bytes(OLD)
    suffixes = () if name == "folder" else (".csv",)
    with pytest.raises(ValueError, match=said):
        check_file(tmp_path / name, overwrite=False, suffixes=suffixes)


@pytest.mark.parametrize("name", ["file", "file/sub/sub"])
def test_a_folder_for_results_that_is_none_is_refused_before_the_work(tmp_path, name):
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(ValueError, match="file is a file"):
        check_folder(tmp_path / name)
    check_folder(tmp_path / "new/sub")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    """Also for who may write everywhere, as on a file system that is mounted read-only."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for check in (lambda: check_folder(tmp_path), lambda: check_file(tmp_path / "x", overwrite=True)):
        with pytest.raises(ValueError, match="cannot be written to"):
            check()


def test_apply_replaces_nothing_by_mistake(applied, tmp_path, capsys):
    folder, words, y = applied
    source = folder / "y.npy"
    out, var = tmp_path / "x.npy", tmp_path / "x_low.npy"
    assert cli.run([*words, str(source), "--out", str(source), "--overwrite"]) == 2
    assert "y.npy is the file that is read" in capsys.readouterr().err
    assert np.array_equal(np.load(source), y)
    var.write_bytes(OLD)
    assert cli.run([*words, str(source), "--out", str(out), "--coverage", "0.9"]) == 2
    assert "x_low.npy exists" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["x_low.npy"]
    assert cli.run([*words, str(source), "--out", str(out)]) == 0
    assert cli.run([*words, str(source), "--out", str(out)]) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert cli.run([*words, str(source), "--out", str(out), "--overwrite"]) == 0


def text_of(rows: np.ndarray, delimiter: str, header: str, imaginary: str, point: str) -> str:
    lines = [delimiter.join(str(v).strip("()").replace("j", imaginary).replace(".", point) for v in r) for r in rows]
    names = delimiter.join(f"y{i}" for i in range(rows.shape[1])) + "\n"
    counted = delimiter.join(str(i) for i in range(rows.shape[1])) + "\n"
    return {"named": names, "counted": counted, "": "", "mark": "\ufeff" + names}[header] + "\n".join(lines) + "\n\n"


@pytest.mark.parametrize("header", ["", "named", "counted", "mark"])
@pytest.mark.parametrize(("delimiter", "point"), [(",", "."), ("\t", "."), (";", "."), (";", ",")])
@pytest.mark.parametrize("imaginary", ["j", "i"])
@pytest.mark.parametrize("is_complex", [False, True])
def test_tables_are_read_bit_for_bit(tmp_path, header, delimiter, point, imaginary, is_complex):
    rows = np.random.default_rng(0).standard_normal((4, 3)) * 1e-6
    rows = rows + 1j * rows[::-1] if is_complex else rows
    path = tmp_path / "y.csv"
    path.write_text(text_of(rows, delimiter, header, imaginary, point))
    assert np.array_equal(read_csv(path).values, rows)
    with whole(path) as file:
        write_csv(file, rows)
    assert np.array_equal(read_csv(path).values, rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no numbers"),
        ("a,b\n", "holds no numbers"),
        ("1,2\n3\n", "row 2 has 1 columns and the first 2"),
        ("1,2\n3,x\n", "row 2, column 2 holds 'x', which is no number"),
        ("1,2\n3,\n", "row 2, column 2 holds '', which is no number"),
        ("1,two\n3,4\n", "row 1, column 2 holds 'two'"),
        (",a,b\n0,1,2\n", "the first column has no name"),
        (b"\x93NUMPY", "is no text"),
        (b"1,2\r3", "row 2 has 1 columns"),
        (b"1\x00,2\n", "holds"),
    ],
)
def test_tables_that_are_none_are_refused_by_row_and_column(tmp_path, text, said):
    path = tmp_path / "y.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said):
        read_csv(path)


def test_apply_reads_and_writes_tables(applied, tmp_path):
    folder, words, y = applied
    (tmp_path / "y.CSV").write_text(text_of(y.astype(float), ";", "named", "j", ","))
    assert cli.run([*words, str(folder / "y.npy"), "--out", str(tmp_path / "a.npy")]) == 0
    assert cli.run([*words, str(tmp_path / "y.CSV"), "--out", str(tmp_path / "b.csv")]) == 0
    assert np.array_equal(read_csv(tmp_path / "b.csv").values.astype(np.float32), np.load(tmp_path / "a.npy"))


@pytest.mark.parametrize("is_complex", [False, True])
def test_pairs_come_from_tables(tmp_path, is_complex):
    generator = np.random.default_rng(0)
    x, A = generator.standard_normal((10, 3)), generator.standard_normal((2, 3))
    x, A = (x + 1j * x[::-1], A + 1j * A[::-1]) if is_complex else (x, A)
    y = x @ A.T
    np.savez(tmp_path / "pairs.npz", x=x, y=y, A=A)
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, rows in {"x": x, "y": y, "A": A}.items():
        with whole(folder / f"{name}.csv") as file:
            write_csv(file, rows)
    from_arrays, from_folder = (ff.problems.Pairs(str(path)) for path in (tmp_path / "pairs.npz", folder))
    assert from_folder.A.fingerprint() == from_arrays.A.fingerprint()
    for a, b in zip(from_arrays.every(), from_folder.every(), strict=True):
        assert torch.equal(getattr(a, "y", a), getattr(b, "y", b))
    names = ",".join([*(f"x{i}" for i in range(3)), *(f"y{i}" for i in range(2))]).encode() + b"\n"
    with whole(tmp_path / "pairs.csv") as file:
        file.write(names)
        write_csv(file, np.hstack([x, y]))
    from_one = ff.problems.Pairs(str(tmp_path / "pairs.csv"))
    assert torch.equal(from_one.every()[0], from_arrays.every()[0])
    assert torch.equal(from_one.every()[1].y, from_arrays.every()[1].y)
    with whole(folder / "x.csv") as file:
        write_csv(file, 2 * x)
    assert torch.equal(ff.problems.Pairs(str(folder)).every()[0], 2 * from_arrays.every()[0])


@pytest.mark.parametrize(
    ("text", "said"), [(None, "has no x and no y"), ("1,2\n3,4\n", "has no x"), ("", "no numbers")]
)
def test_tables_that_hold_no_pairs_are_refused(tmp_path, text, said):
    path = tmp_path / "pairs.csv"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(ValueError, match=said):
        ff.problems.Pairs(str(path))


WRITE_CALLS = {"write_text", "write_bytes", "savez", "savez_compressed", "save_file", "tofile", "savetxt"}
ALLOWED = {  # files that write otherwise, and why
    "core/files.py",  # what writes whole files
    "runs/log.py",  # appends lines of metrics; a last one that was cut is left out when they are read
    "problems/simulators/store.py",  # appends records with checksums
    "problems/simulators/supervised.py",  # the lock of a temporary folder
    "problems/simulators/supervisor.py",  # inputs in a temporary folder
    "lab/uploads.py",  # blocks as they come, into a draft that is renamed once all are there
    "lab/process.py",  # standard output and error, which are no files of their own
}


def writes(tree: ast.AST):
    """The calls that write to a path by themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if name in WRITE_CALLS or (name == "open" and any(mode[:1] in "wax" for mode in modes[-1:] if mode)):
                yield node.lineno


def test_every_writer_of_the_package_goes_through_one_place():
    root = Path(fanfold.__file__).parent
    strays = {
        f"{file.relative_to(root)}:{line}"
        for file in root.rglob("*.py")
        if str(file.relative_to(root)) not in ALLOWED
        for line in writes(ast.parse(file.read_text()))
    }
    assert not strays
