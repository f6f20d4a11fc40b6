"""One word, one meaning: the tables of CONTRIBUTING.md hold the names of the package."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/fanfold"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def table(first_column: str) -> list[list[str]]:
    """Rows of the table whose first column has this title, as cells."""
    (body,) = re.findall(rf"^\| {first_column} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body.splitlines()]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def within(module: str, homes: list[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def parts_of(name: str) -> set[str]:
    """`OwnArray`, `own_array` and `OWN_ARRAY` -> own, array."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module by its name within the package; a package has the name of its folder."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def names_in(body: list[ast.stmt]) -> Iterator[str]:
    """Classes, functions, constants, methods and fields."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from names_in(node.body)
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name))


WORDS = {word: meaning for word, meaning, _ in table("word")}
PATTERNS = [(quoted(names)[0], quoted(names)[1:]) for _, _, names in table("word") if names]
RETIRED = {quoted(word)[0] for word, _ in table("not")}
SHARED = {quoted(name)[0]: quoted(homes) for name, homes, _ in table("name")}
MODULES = dict(modules())
CLASSES: dict[str, list[str]] = defaultdict(list)  # public ones, by name: the modules that define them
for _module, _tree in MODULES.items():
    for _node in _tree.body:
        if isinstance(_node, ast.ClassDef) and not _node.name.startswith("_"):
            CLASSES[_node.name].append(_module)


def strays(pattern: str, homes: list[str], classes: dict[str, list[str]]) -> list[str]:
    """Classes that bear a word elsewhere than it means what the table says."""
    return [
        f"{module}.{name}"
        for name, places in classes.items()
        for module in places
        if fnmatchcase(name, pattern) and not within(module, homes)
    ]


def unexplained(classes: dict[str, list[str]]) -> list[str]:
    """Names of several classes that the table does not list, or not in these modules."""
    return [
        f"{name} in {', '.join(places)}"
        for name, places in classes.items()
        if len(places) > 1 and not all(within(module, SHARED.get(name, [])) for module in places)
    ]


def test_every_word_has_one_row_and_a_meaning():
    assert len(WORDS) == len(table("word")) >= 25
    assert all(WORDS.values())
    assert len(CLASSES) > 200


@pytest.mark.parametrize(("pattern", "homes"), PATTERNS, ids=[pattern for pattern, _ in PATTERNS])
def test_a_word_in_a_class_name_means_what_the_table_says(pattern, homes):
    assert any(fnmatchcase(name, pattern) for name in CLASSES), f"no class is called {pattern}: drop its row"
    assert strays(pattern, homes, CLASSES) == []


def test_retired_words_name_nothing():
    bad = [f"module {module}" for module in MODULES if parts_of(module) & RETIRED]
    for module, tree in MODULES.items():
        bad += [f"{module}: {name}" for name in names_in(tree.body) if name[0] != "_" and parts_of(name) & RETIRED]
    assert bad == []


def test_no_estimator_s_field_is_called_as_the_constructor_for_a_problem():
    fields = [
        f"{module}.{node.name}"
        for module, tree in MODULES.items()
        if within(module, ["estimators"])
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id == "of"
    ]
    assert fields == []


def test_no_two_classes_have_one_name_unless_the_table_says_why():
    assert unexplained(CLASSES) == []


def test_the_table_lists_no_name_that_one_class_has():
    assert [name for name in SHARED if len(CLASSES[name]) < 2] == []


def test_a_name_that_breaks_a_rule_is_seen():
    homes = dict(PATTERNS)
    assert strays("*Channel*", homes["*Channel*"], {"ScalarChannel": ["problems.gaussian.scalar"]})
    assert strays("Stored*", homes["Stored*"], {"Stored": ["problems.pairs"]})
    assert not strays("*Channel*", homes["*Channel*"], {"OFDMChannel": ["problems.radio.ofdm_channel"]})
    assert unexplained({"Kronecker": ["linops.kronecker", "propagation.models", "priors.kronecker"]})
    assert unexplained({"Filtered": ["estimators.arrays.locator", "estimators.ofdm.filter_bank"]})
    assert parts_of("ToldOAMP") & RETIRED
    assert parts_of("own_array") & RETIRED
    assert not parts_of("KnownPrior") & RETIRED
