"""What a page of a topic embeds: its programs, its arrays, and the words around them."""

from fanfold.report.figure.manifest import Blocks, Packed, packed
from fanfold.report.figure.topics.kept import kept_topic

SHOWN = (
    "controls",
    "series",
    "titles",
    "listed",
    "below",
    "note",
)  # what the element reads, and not the topic's module


def pack_topic(name: str) -> Packed:
    """The manifest and the payload of a page of a topic.

    Args:
        name: The topic, of `topics.TOPICS`.

    Raises:
        ValueError: If there is no such topic.

    Example:
        >>> from fanfold.report.figure.topics.manifest import pack_topic
        >>> [control["name"] for control in pack_topic("posterior").manifest["controls"]]
        ['y', 'count']
    """
    facts, programs, arrays, _ = kept_topic(name)
    blocks = Blocks()
    own = {key: fact for key, fact in facts.items() if key not in ("title", "lead", *SHOWN)}
    preset = own | {
        "key": name,
        "series": facts["series"],
        "arrays": {key: blocks.numbers(t) for key, t in arrays.items()},
        "programs": blocks.programs(programs),
    }
    manifest = {key: facts[key] for key in SHOWN} | {"layers": 0, "presets": [preset]}
    return packed(manifest, blocks)._replace(path=f"paths/{name}.js", world=f"topics/{name}.js")
