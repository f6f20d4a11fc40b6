"""What a described problem needs from outside its settings, known before anything is built, opened or started."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fanfold import problems
from fanfold.core.abilities import offers
from fanfold.core.settings import check_names
from fanfold.problems.protocols import ReadsFiles, StartsPrograms
from fanfold.runs.recipe import GIVEN


class Needs(NamedTuple):
    """What a problem needs beyond its settings.

    Attributes:
        files: Files and folders that it reads.
        commands: Commands that it starts.
        given: Classes and functions of the user's own.

    Example:
        >>> from fanfold.runs.needs import needs_of
        >>> needs_of({"name": "pairs", "path": "pairs.npz"}).files
        ('pairs.npz',)
    """

    files: tuple[str, ...]
    commands: tuple[str, ...]
    given: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the settings are all that it takes to draw."""
        return not (self.files or self.commands or self.given)


def needs_of(described: Mapping[str, Any]) -> Needs:
    """What a described problem needs, with the problems and functions within its settings.

    Raises:
        ValueError: If a setting that names a file or a command holds something else.
    """
    files, commands, given = [], [], []
    for part in _tables(described):
        if GIVEN in part:
            given.append(str(part[GIVEN]))
        kind = problems.REGISTRY.get(str(part.get("name")))
        if kind is not None:  # one that lacks a setting is named before it is looked at
            check_names(kind, {name: value for name, value in part.items() if name != "name"}, str(part["name"]))
        try:
            files += kind.files_of(part) if offers(kind, ReadsFiles) else []
            commands += kind.commands_of(part) if offers(kind, StartsPrograms) else []
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the settings of {part.get('name')} are damaged: {error!r}.") from error
    return Needs(tuple(files), tuple(commands), tuple(given))


def refuse_missing(described: Mapping[str, Any], handed_in: Mapping[str, Any]) -> None:
    """Name all that a description takes from the user, where several things are missing.

    Raises:
        ValueError: Says what to hand in.
    """
    missing: dict[str, str] = {}
    for table in _tables(described):
        within = {name: value for name, value in table.items() if isinstance(value, Mapping) and GIVEN in value}
        missing |= {name: str(value[GIVEN]) for name, value in within.items() if name not in handed_in}
    if len(missing) > 1:
        things, arguments = ", ".join(missing.values()), ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"the run was made with {things} of the user's own: hand them in, ff.load(path, {arguments}).")


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every table in a description, with those within."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _tables(inner)
