"""Arrays in files of the user's: .npy, .npz, HDF5 and MATLAB's .mat.

What a file declares is held against what it has before memory is asked for, nothing in it is unpickled, and of a file
with several arrays only those are read that are asked for. HDF5 can name other files, as external storage, external
links and virtual datasets: these are refused.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fanfold.core import matlab_files
from fanfold.core.complex_parts import complex_parts
from fanfold.core.data_files import regular_file, understanding

SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".mat")
DENSEST = 1032  # bytes that one compressed byte can stand for at most, of deflate
NUMBERS = "biufc"  # kinds of data types
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
PAIRS = ({"real", "imag"}, {"r", "i"}, {"re", "im"})  # records that stand for complex numbers


class Held(NamedTuple):
    """What a file says of one of its arrays.

    Example:
        >>> from fanfold.core.array_files import Held
        >>> str(Held((5, 2), "float32"))
        'float32 (5, 2)'
    """

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def held_arrays(path: str | Path) -> dict[str, Held]:
    """The arrays of a file by name, without reading them; that of an .npy file has no name.

    Two arrays that are the real and the imaginary part of one, such as `H_re` and `H_im`, are listed as that one.

    Raises:
        ValueError: If there is no regular file, it cannot be read, or two such parts have different shapes.
        ImportError: If the format needs a package that is not installed.
    """
    path = regular_file(path)
    stored = _stored(path)
    arrays = dict(stored)
    for whole, (real, imaginary) in complex_parts(stored).items():
        parts = arrays.pop(real), arrays.pop(imaginary)
        if parts[0].shape != parts[1].shape:
            raise ValueError(f"{path}: {real} has shape {parts[0].shape} and {imaginary} {parts[1].shape}.")
        arrays[whole] = Held(parts[0].shape, "complex")
    return arrays


def array_of(path: str | Path, name: str = "") -> np.ndarray:
    """One array of numbers.

    Args:
        path: The file.
        name: The name of the array, as `held_arrays` has it; the only one if not given.

    Raises:
        ValueError: If there is no regular file or no array of that name, it is not of numbers, or the file declares
            more than it holds, or names other files.
        ImportError: If the format needs a package that is not installed.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from fanfold.core.array_files import array_of
        >>> file = pathlib.Path(tempfile.mkdtemp(), "a.npz")
        >>> np.savez(file, x=np.ones((5, 2)), y=np.ones(3))
        >>> array_of(file, "x").shape
        (5, 2)
    """
    path, arrays = regular_file(path), held_arrays(path)
    if not name and len(arrays) == 1:
        (name,) = arrays
    if name not in arrays:
        what = f"no array {name!r}" if name else f"{len(arrays)} arrays, not one"
        raise ValueError(f"{path} has {what}; it has {listed(arrays)}. Links to other files are not followed.")
    with understanding(path, _expected(path)):
        reader = READERS[_format(path)]
        real, *imaginary = complex_parts(reader.held(path)).get(name, (name,))
        value = numbers(reader.read(path, real))
        return value + 1j * numbers(reader.read(path, imaginary[0])) if imaginary else value


def texts_of(path: str | Path, name: str) -> tuple[str, ...]:
    """One array of texts, `(count,)`.

    Args:
        path: The file.
        name: The name of the array, as `held_arrays` has it.

    Raises:
        ValueError: If it cannot be read, or holds anything else than texts in a row.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from fanfold.core.array_files import texts_of
        >>> file = pathlib.Path(tempfile.mkdtemp(), "a.npz")
        >>> np.savez(file, names=["delay", "gain"])
        >>> texts_of(file, "names")
        ('delay', 'gain')
    """
    path = regular_file(path)
    with understanding(path, _expected(path), f"store {name} as a list of texts: numpy.savez(..., {name}=[...])."):
        array = READERS[_format(path)].read(path, name)
        if array.dtype.kind != "U" or array.ndim != 1:
            raise ValueError(f"{name} holds {array.dtype} {array.shape} and no texts in a row")
        return tuple(array.tolist())


def _stored(path: Path) -> dict[str, Held]:
    with understanding(path, _expected(path)):
        return READERS[_format(path)].held(path)


def listed(arrays: Mapping[str, Held]) -> str:
    """What a file holds, in words."""
    return ", ".join(f"{name} {held}".strip() for name, held in arrays.items()) or "none"


def numbers(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, records of two parts as complex numbers.

    Raises:
        ValueError: If it does not hold numbers.
    """
    names = array.dtype.names or ()
    if set(names) in PAIRS:
        real, imaginary = sorted(names, key=lambda name: name.startswith("i"))
        array = array[real] + 1j * array[imaginary]
    if array.dtype.kind not in NUMBERS:
        raise ValueError(f"it holds {array.dtype} and no numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _expected(path: Path) -> str:
    return path.suffix.lower() if path.suffix.lower() in SUFFIXES else "an array"


def _format(path: Path) -> str:
    """What kind of file it is, by its first bytes.

    Raises:
        ValueError: If it is none of those that are read.
    """
    with path.open("rb") as file:
        start = file.read(520)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"PK"):
        return "npz"
    if b"\x89HDF" in (start[:4], start[512:516]):  # MATLAB 7.3 puts a header of its own before it
        return "hdf5"
    if path.suffix.lower() == ".mat":
        return "mat"
    raise ValueError(f"it is none of {', '.join(SUFFIXES)}")


def _bounded(held: Held, itemsize: int, available: int) -> None:
    """Refuse an array that is declared larger than the file can hold."""
    size = math.prod(held.shape) * itemsize
    if min(held.shape, default=0) < 0 or size > available:
        raise ValueError(f"it declares {held}, {size} bytes, and holds at most {available}")


def _header(stream: IO[bytes], size: int) -> Held:
    """The header of an .npy stream, which is left at the data.

    Raises:
        ValueError: If the data would need pickle, or are declared larger than what follows.
    """
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"its format {version} has named records; store plain numbers")
    shape, _, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which would have to be unpickled; store numbers")
    held = Held(shape, str(dtype))
    _bounded(held, dtype.itemsize, size - stream.tell())
    return held


def _held_by_npy(path: Path) -> dict[str, Held]:
    with path.open("rb") as stream:
        return {"": _header(stream, path.stat().st_size)}


def _of_npy(path: Path, name: str) -> np.ndarray:
    with path.open("rb") as stream:
        return _whole(stream, path.stat().st_size)


def _whole(stream: IO[bytes], size: int) -> np.ndarray:
    _header(stream, size)
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _held_by_npz(path: Path) -> dict[str, Held]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {name: _member(archive, name)[0] for name in names}


def _of_npz(path: Path, name: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        size = _member(archive, name)[1]
        with archive.open(f"{name}.npy") as stream:
            return _whole(stream, size)


def _member(archive: zipfile.ZipFile, name: str) -> tuple[Held, int]:
    """The header of an array of an archive, and how many bytes it has.

    Raises:
        ValueError: If the archive says that it is larger than it can be.
    """
    facts = archive.getinfo(f"{name}.npy")
    if facts.file_size > DENSEST * facts.compress_size + DENSEST:
        raise ValueError(f"{name} is said to have {facts.file_size} bytes in {facts.compress_size} compressed ones")
    with archive.open(facts) as stream:
        return _header(stream, facts.file_size), facts.file_size


def _held_by_matlab(path: Path) -> dict[str, Held]:
    return {m.name: Held(m.shape, str(np.dtype(m.dtype))) for m in matlab_files.matrices(path, heads=True)}


def _hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} is HDF5, which h5py reads: pip install 'fanfold[channels]'") from error
    return h5py.File(path, "r")


def _held_by_hdf5(path: Path) -> dict[str, Held]:
    arrays: dict[str, Held] = {}

    def note(name: str, item: Any) -> None:  # links to elsewhere are not visited
        if isinstance(item, Dataset) and item.ndim:
            shape = item.shape[::-1] if path.suffix.lower() == ".mat" else item.shape
            arrays[name] = Held(shape, "complex" if set(item.dtype.names or ()) in PAIRS else str(item.dtype))

    with _hdf5(path) as file:
        from h5py import Dataset

        file.visititems(note)
    return arrays


def _of_hdf5(path: Path, name: str) -> np.ndarray:
    with _hdf5(path) as file:
        data = file[name]
        if data.external or data.is_virtual:
            raise ValueError(f"the numbers of {name} lie in other files, which are not followed: copy them into this")
        filters = data.id.get_create_plist().get_nfilters()
        available = data.id.get_storage_size() * (DENSEST if filters else 1)
        _bounded(Held(data.shape, str(data.dtype)), data.dtype.itemsize, available)
        value = data[()]
    return value.T if path.suffix.lower() == ".mat" else value  # MATLAB stores the first axis fastest


class Reader(NamedTuple):
    """How one kind of file says what it has, and reads one array of it.

    Example:
        >>> from fanfold.core.array_files import READERS
        >>> list(READERS)
        ['npy', 'npz', 'hdf5', 'mat']
    """

    held: Callable[[Path], dict[str, Held]]
    read: Callable[[Path, str], np.ndarray]


READERS = {
    "npy": Reader(_held_by_npy, _of_npy),
    "npz": Reader(_held_by_npz, _of_npz),
    "hdf5": Reader(_held_by_hdf5, _of_hdf5),
    "mat": Reader(_held_by_matlab, matlab_files.array_in),
}
