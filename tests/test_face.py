"""The face of the package: `dir` shows what a user may call and nothing else, and all of it is documented."""

import inspect
from types import ModuleType
from typing import get_origin

import pytest

import fanfold as ff

PACKAGES = [name for name in ff.__all__ if isinstance(getattr(ff, name), ModuleType)]
WITHIN = {"estimators.ofdm": ff.estimators.ofdm}  # packages in packages
EACH = {name: getattr(ff, name) for name in PACKAGES} | WITHIN
each_package = pytest.mark.parametrize("package", EACH.values(), ids=EACH)


def shown(package: ModuleType) -> dict[str, object]:
    return {name: getattr(package, name) for name in dir(package)}


def is_code(value: object) -> bool:
    """A class or a function, not data, nor an alias of a type."""
    return callable(value) and get_origin(value) is None


def classes_of(package: ModuleType) -> dict[str, type]:
    return {name: value for name, value in shown(package).items() if inspect.isclass(value)}


def test_the_face_lists_its_packages_with_a_line_each():
    assert dir(ff) == sorted([*ff.__all__, "__version__"])
    assert ff.__doc__ is not None
    described = {line.split()[0] for line in ff.__doc__.splitlines() if line.startswith("    ")}
    assert described == set(PACKAGES)


@each_package
def test_dir_is_what_is_public(package):
    assert dir(package) == sorted(package.__all__)
    assert [name for name in dir(package) if name.startswith("_")] == []


@each_package
def test_dir_holds_no_module_and_nothing_from_elsewhere(package):
    assert [name for name, value in shown(package).items() if isinstance(value, ModuleType)] == []
    homes = {name: inspect.getmodule(value) for name, value in shown(package).items() if is_code(value)}
    assert {name: home for name, home in homes.items() if not (home and home.__name__.startswith("fanfold."))} == {}


@each_package
def test_every_name_is_documented(package):
    assert package.__doc__
    for name, value in ((name, getattr(package, name)) for name in package.__all__):
        if inspect.isclass(value):
            assert vars(value).get("__doc__"), f"{name} has no docstring"
            assert not value.__doc__.startswith(f"{name}("), f"{name} has no docstring but what dataclasses write"
        elif is_code(value):
            assert value.__doc__, f"{name} has no docstring"
        else:
            assert name in package.__doc__, f"{package.__name__} does not say what {name} is"


@each_package
def test_every_class_has_an_example(package):
    assert [name for name, kind in classes_of(package).items() if ">>> " not in (kind.__doc__ or "")] == []
