"""Data files are regular files: they lead to no other file, start nothing, and take no memory that they do not fill."""

import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

import fanfold as ff
from fanfold.core.array_files import array_of, held_arrays
from fanfold.core.data_files import beside, json_object, regular_file, toml_table
from fanfold.problems import Pairs, Photographs
from fanfold.problems.rf.geometry_file import read_geometry
from fanfold.propagation import Dataset, source_of
from sent_files import FAR, dataset, pairs, refused_or_read


@pytest.mark.parametrize("name", ["voxels", "elements"])
def test_a_geometry_takes_no_more_memory_than_a_machine_has(tmp_path, name):
    (tmp_path / "array.toml").write_text(FAR.replace(f"{name} = ", f"{name} = 10000000", 1))
    assert peak(lambda: read_geometry(tmp_path / "array.toml")) < 2**24


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.npy", "link.npy"])
def test_a_geometry_names_files_beside_it_alone(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(tmp_path / "outside.npy", np.eye(2, 3))
    (folder / "link.npy").symlink_to(tmp_path / "outside.npy")
    (folder / "array.toml").write_text(f'axis = [{{kind = "matrix", file = "{name}"}}]')
    with pytest.raises(ValueError, match="leads out of"):
        read_geometry(folder / "array.toml")


@pytest.mark.parametrize("name", ["/etc/passwd", "../00000.npy", "nowhere.npy", ".", ""])
def test_a_dataset_names_shards_in_its_folder_alone(tmp_path, name):
    np.save(tmp_path / "00000.npy", np.ones((6, 2, 1, 3, 2), np.float16))
    with pytest.raises(ValueError, match=r"leads out of|is missing|is a folder"):
        Dataset(str(dataset(tmp_path / "set", shards=[name])))


def peak(read: Callable[[], Any]) -> int:
    """How many bytes were held at once before a file was refused."""
    tracemalloc.start()
    try:
        assert refused_or_read(read) is not None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def npy_declaring(shape: str, dtype: str = "<f8") -> bytes:
    """An .npy file that declares a shape, and has 80 bytes of data."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(80)


HUGE = "(10000000, 1000, 1000)"  # 73 TiB


def huge_npy(folder: Path) -> Path:
    (folder / "a.npy").write_bytes(npy_declaring(HUGE))
    return folder / "a.npy"


def huge_npz(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("H.npy", npy_declaring(HUGE))
    return folder / "a.npz"


def lying_npz(folder: Path) -> Path:
    """An archive whose directory says that a small member has 2 GB."""
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("H.npy", npy_declaring("(200000000, 1, 1)"))
    content = bytearray((folder / "a.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2_000_000_000)
    (folder / "a.npz").write_bytes(content)
    return folder / "a.npz"


def huge_h5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("H", shape=(10_000_000, 1000, 1000), dtype="f8", chunks=(1, 10, 10))
    return folder / "a.h5"


def objects(folder: Path) -> Path:
    np.savez(folder / "a.npz", H=np.array([[[{"run": "me"}]]], dtype=object))
    return folder / "a.npz"


@pytest.mark.parametrize("make", [huge_npy, huge_npz, lying_npz, huge_h5, objects])
def test_memory_is_asked_for_as_far_as_a_file_has_numbers(tmp_path, make):
    file = make(tmp_path)
    assert peak(lambda: source_of(str(file))) < 2**23


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(8 * 24))
    file.create_dataset("H", shape=(2, 3, 4), dtype="f8", external=[(str(folder / "secret"), 0, 8 * 24)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["H"] = np.ones((2, 3, 4))
    layout = h5py.VirtualLayout((2, 3, 4), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "H", (2, 3, 4))
    file.create_virtual_dataset("H", layout)


def linked(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["H"] = np.ones((2, 3, 4))
    file["H"] = h5py.ExternalLink(str(folder / "other.h5"), "/H")


def softly_linked(file: h5py.File, folder: Path) -> None:
    linked(file, folder)
    file["G"] = h5py.SoftLink("/H")


@pytest.mark.parametrize("make", [external, virtual, linked, softly_linked])
def test_hdf5_leads_to_no_other_file(tmp_path, make):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path)
    for name in ("H", "G"):
        with pytest.raises(ValueError, match=r"lie in other files|Links to other files are not followed"):
            array_of(tmp_path / "a.h5", name)


@pytest.mark.parametrize("suffix", ["h5", "npz", "mat"])
def test_only_the_named_array_is_read(tmp_path, suffix):
    small, large, file = np.ones((2, 3, 4)), np.zeros(2**22), tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(file, H=small, large=large)
    elif suffix == "mat":
        scipy.io.savemat(file, {"H": small, "large": large})
    else:
        with h5py.File(file, "w") as out:
            out["H"], out["large"] = small, large
    assert held_arrays(file)["large"].shape[-1] == 2**22
    tracemalloc.start()
    assert np.array_equal(array_of(file, "H"), small)
    assert tracemalloc.get_traced_memory()[1] < large.nbytes / 8
    tracemalloc.stop()


READERS = {
    "pairs": lambda path: Pairs(str(path)),
    "channels": lambda path: source_of(str(path)),
    "geometry": read_geometry,
    "array": array_of,
    "toml": toml_table,
    "json": json_object,
    "pilots": lambda path: ff.propagation.pilot_mask(str(path), 1, 24),
    "picture": lambda path: Photographs(pictures=(str(path),)),
}


@pytest.mark.parametrize("reader", READERS)
def test_pipes_devices_and_folders_are_refused(tmp_path, reader):
    suffix = {"pairs": "npz", "channels": "npz", "geometry": "toml", "picture": "png"}.get(reader, "npy")
    pipe, device, folder = (tmp_path / f"{name}.{suffix}" for name in ("pipe", "device", "folder"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    for path in (pipe, device, folder):
        with pytest.raises(ValueError, match=r"is a (pipe|device|folder): data are|no dataset|has no x and no y"):
            READERS[reader](path)


def test_a_file_named_in_a_file_lies_beside_it(tmp_path):
    assert beside(tmp_path, "sub/a.npy") == tmp_path / "sub/a.npy"
    for name in ("/etc/passwd", "../a.npy", "sub/../../a.npy", 3, "a\0b"):
        with pytest.raises(ValueError, match=r"leads out of|is no name"):
            beside(tmp_path, name)
    with pytest.raises(ValueError, match="there is no file"):
        regular_file(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        regular_file(tmp_path / ("a" * 5000))


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a" + ".a" * 3000 + " = 1", "a = 1" + "0" * 5000, "a = \x00"])
def test_deep_or_endless_tables_are_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match="cannot be read as TOML"):
        toml_table(tmp_path / "a.toml")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        json_object(tmp_path / "a.json")


def test_a_picture_beyond_the_limit_is_refused_by_its_size(tmp_path):
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, format="PNG")
    (tmp_path / "large.png").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"large\.png .*9000 x 9000 pixels.*50 million"):
        Photographs(pictures=(str(tmp_path / "large.png"),))
    header = bytearray(file.getvalue())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    (tmp_path / "bomb.png").write_bytes(header)
    with pytest.raises(ValueError, match=r"bomb\.png"):
        Photographs(pictures=(str(tmp_path / "bomb.png"),))


def test_a_picture_that_a_program_would_draw_is_none(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "a.eps").write_text(
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n({marker}) (w) file\n"
    )
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        Photographs(pictures=(str(tmp_path / "a.eps"),))
    assert not marker.exists()


def test_an_operator_that_has_nothing_to_do_with_the_pairs_is_noticed(tmp_path):
    other = np.random.default_rng(1).standard_normal((4, 6))
    with pytest.warns(UserWarning, match=r"‖y - Ax‖² is \d+ % of ‖y‖².*is this the right A"):
        Pairs(pairs(tmp_path, A=other)).A  # noqa: B018
    noise = np.random.default_rng(2).standard_normal((50, 4))
    (tmp_path / "noisy").mkdir()
    (tmp_path / "good").mkdir()
    good = np.load(pairs(tmp_path / "good"))
    Pairs(pairs(tmp_path / "noisy", y=good["y"] + 20 * noise)).A  # noqa: B018 - buried in noise, and rightly no warning


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    rng, kinds = np.random.default_rng(0), ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c8", "c16")
    arrays = {f"of_{kind}": np.abs(100 * rng.standard_normal((3, 4, 2))).astype(kind) for kind in kinds}
    others = {"text": "text", "struct": {"a": 1}, "a_rather_long_name_of_a_variable": np.eye(3)}
    scipy.io.savemat(tmp_path / "a.mat", arrays | others, do_compression=compressed)
    assert set(held_arrays(tmp_path / "a.mat")) == {*arrays, "a_rather_long_name_of_a_variable"}
    for name, values in scipy.io.loadmat(tmp_path / "a.mat").items():
        if name in arrays or name in held_arrays(tmp_path / "a.mat"):
            read = array_of(tmp_path / "a.mat", name)
            assert read.dtype == values.dtype
            assert np.array_equal(read, values)


def test_numbers_of_another_machine_are_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6.0).astype(">f8"))
    assert torch.equal(torch.as_tensor(array_of(tmp_path / "a.npy")), torch.arange(6.0).double())
