"""What went wrong, as one sentence and an exit code: errors of the work, and what tyro says of a command line.

Exit codes: 0 done; 1 the work failed; 2 the command or its input is wrong; 130 interrupted by Ctrl-C; 141 nobody reads
what is printed any more.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fanfold.core.commands import printable
from fanfold.core.suggest import did_you_mean

DONE, FAILED, WRONG, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
ALWAYS = ("--help", "--json", "--debug")
LISTED = 12  # flags that fit into a sentence
BORDER = "│ "  # with and without UTF-8
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TYRO_SAYS = re.compile(r"input length|Could not|no type matching|.*does not match choices")
TOO_LARGE = ("allocate", "out of memory", "Storage size calculation overflowed", "represented as a SymInt")  # torch's
OPTION = re.compile(r"^[│| ]*(?:-\w, )?(--[a-z][\w.-]*)(?:, (--[\w.-]+))?(?= |$)", re.MULTILINE)


class Refusal(NamedTuple):
    """An exit code, and the sentence that says why; none where nobody would read it."""

    code: int
    sentence: str


def refusal_of(error: BaseException, command: str) -> Refusal:
    """What an error means to who typed a command.

    Args:
        error: What was raised.
        command: The command, as it can be typed again.
    """
    match error:
        case KeyboardInterrupt():
            kept = str(error) or "begin anew with:"
            return Refusal(INTERRUPTED, f"interrupted; {kept}" + (f" {command}" if kept.endswith(":") else ""))
        case BrokenPipeError():
            return Refusal(UNREAD, "")
        case UnicodeError():
            return Refusal(WRONG, "a name or a text is no UTF-8: rename the file, or write the text as UTF-8.")
        case ValueError() | ImportError():
            return Refusal(WRONG, str(error))
        case FileNotFoundError() | FileExistsError() | NotADirectoryError() | IsADirectoryError() | PermissionError():
            return Refusal(WRONG, _of_system(error))
        case OSError():
            return Refusal(FAILED, _of_system(error))
        case ArithmeticError():
            return Refusal(WRONG, f"a number that was given is too large or too small to compute with ({error}).")
        case MemoryError():
            return Refusal(FAILED, _memory(str(error)))
        case RuntimeError() if any(words in str(error) for words in TOO_LARGE):
            return Refusal(FAILED, _memory(str(error)))
    cause = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    return Refusal(FAILED, f"this is a fault of fanfold ({cause}); --debug shows where. Please report it.")


def _of_system(error: OSError) -> str:
    if error.strerror is None or error.filename is None:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}."


def _memory(said: str) -> str:
    size = re.search(r"allocate (\d+) bytes", said)
    asked = f" for {int(size[1]) / 2**30:.1f} GiB at once" if size else ""
    return f"there is not enough memory{asked}; make the problem, the batch or the number of draws smaller."


def one_line(sentence: str) -> str:
    """A sentence on one line, in which nothing that a terminal would obey is left."""
    return printable(" ".join(sentence.split()))


class PrintedRefusal:
    """What tyro prints where it refuses a command line: a title, and blocks of rows.

    Args:
        printed: The text, printed wide enough that no row is broken.
    """

    def __init__(self, printed: str):
        title, *lines = COLOUR.sub("", printed).splitlines() or [""]
        self.title = title.strip("╭╮─+- ")
        self.blocks: list[list[str]] = [[]]
        for line in lines:
            row = line[1:-1].rstrip() if line[:1] in BORDER else ""
            if row and set(row) <= set("─- "):
                self.blocks.append([])
            elif row.strip():
                self.blocks[-1].append(row[1:])
        self.blocks = [rows for rows in self.blocks if rows] or [[]]

    @property
    def text(self) -> str:
        """The first block as one line."""
        return " ".join(row.strip() for row in self.blocks[0])

    def after(self, words: str) -> str:
        """What follows these words in any block; empty where they are not there."""
        return next((t.partition(words)[2] for rows in self.blocks if words in (t := "\n".join(rows))), "")

    def owners_of(self, flag: str) -> list[str]:
        """The subcommands that have a flag, where the one that was chosen has it not."""
        owners, listed = set[str](), False
        for row in (row.strip() for rows in self.blocks[1:] for row in rows):
            if row.startswith("--"):  # each kind of value of a flag has rows of its own
                listed = row.split(" ")[0] == flag
            elif listed and (place := re.fullmatch(r"in fanfold \S+ (\S+) --help", row)):
                owners.add(place[1])
            elif listed and row == "[...]":
                owners.add("others")
        return sorted(owners, key=lambda owner: (owner == "others", owner))


def sentence_of(printed: str, args: Sequence[str], flags_of: Callable[[], str]) -> str:
    """One sentence for what tyro refused.

    Args:
        printed: What it printed.
        args: The words of the command.
        flags_of: Prints the help of what was chosen with these words.
    """
    box = PrintedRefusal(printed)
    for words in ("Unrecognized options:", "Unrecognized or misplaced options:"):
        if unknown := _first_of(args, box.after(words)):
            return _unknown(unknown, box, flags_of)
    if box.title == "Required options":
        return _missing(box)
    if choices := re.match(r"Expected one of \{(.*)\}", box.text):
        return f"the command ends too soon; next comes one of {choices[1]}."
    if lacking := re.match(r"Missing value for argument '(.*?)'", box.text):
        flags = [] if lacking[1].startswith("-") else [word for word in args if word.startswith("--")]
        if strange := next((flag for flag in flags if flag.partition("=")[0] not in options_in(flags_of())), ""):
            return _unknown(strange, box, flags_of)
        return f"{lacking[1]} needs a value."
    if wrong := re.match(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)", box.text):
        names = [name.strip("' ") for name in wrong[3].split(",")]
        known = sorted(name for name in names if name != "None")
        hint = did_you_mean(wrong[1].strip("'"), known)
        return f"{wrong[2]} takes {', '.join(known)}, not {wrong[1]}.{hint}"
    if wrong := re.match(r"Error parsing (\S+?): ", box.text):
        return _wrong_value(wrong[1], box)
    return box.text or "the command cannot be read."


def _first_of(args: Sequence[str], listed: str) -> str:
    """The first of the words that were not understood, of which a list is given with commas or line by line."""
    listed = " ".join(listed.split())
    words = [part for word in args for part in (word, word.partition("=")[2]) if part]
    return max((word for word in words if listed.startswith(" ".join(word.split()))), key=len, default="")


def _unknown(word: str, box: PrintedRefusal, flags_of: Callable[[], str]) -> str:
    if word.startswith("-"):
        flag = word.partition("=")[0]
        if flag in ALWAYS:
            return f"{flag} takes no value."
        if owners := box.owners_of(flag):
            return f"no flag {flag} here; it belongs to {', '.join(owners)}."
        known = [*options_in(flags_of()), *ALWAYS]
        listed = f"; there are {', '.join(known)}" if len(known) <= LISTED else "; --help lists them"
        return f"no flag {flag} here{listed}.{did_you_mean(flag, known)}"
    known = [w for w in box.after("Available subcommands: ").split("\n", 1)[0].split(", ") if w]
    if known:
        return f"no {word!r} here; there are {', '.join(known)}.{did_you_mean(word, known)}"
    return f"{word!r} is one word too many; a flag's value stands behind its flag."


def options_in(text: str) -> list[str]:
    """The flags that a help text lists."""
    flags = dict.fromkeys(flag for match in OPTION.finditer(COLOUR.sub("", text)) for flag in match.groups() if flag)
    return [flag for flag in flags if not flag.startswith(("--help", "--tyro-"))]


def _missing(box: PrintedRefusal) -> str:
    """Which required words are missing, each with what it means."""
    command, meanings = "", dict[str, list[str]]()
    for row in box.blocks[0]:
        depth, text = len(row) - len(row.lstrip()), row.strip().removesuffix("(required)").strip()
        if depth == 0:
            command = command or text.removeprefix("Missing from fanfold ").removesuffix(":")
        elif depth < 8:
            meanings[text] = []
        else:
            meanings[[*meanings][-1]].append(text)
    parts = [name + _in_brackets(" ".join(texts).rstrip(". ")) for name, texts in meanings.items()]
    return f"{command} needs {' and '.join(parts)}."


def _in_brackets(meaning: str) -> str:
    return f" ({meaning[:1].lower()}{meaning[1:]})" if meaning else ""


def _wrong_value(name: str, box: PrintedRefusal) -> str:
    """Why a flag's value, or a whole problem or network, was refused."""
    reasons = [row.partition("- ")[2].partition(": ")[2] for row in box.blocks[0] if row.startswith("- ")]
    reasons = reasons or [box.text.partition(": ")[2]]
    reason = next((text for text in reversed(reasons) if not TYRO_SAYS.match(text)), "")
    if not name.startswith("-") and name.upper() != name:
        return reason or box.text  # a problem or a network says itself what is wrong
    usage = box.blocks[1][1].strip().removeprefix(name).strip() if len(box.blocks) > 1 else ""
    tried = re.search(r"(?:from|arguments:) \[(.*?)\]", box.text)
    reason = reason or f"not {tried[1] if tried else 'this'}"
    reason += "" if reason.endswith((".", "?")) else "."
    return f"{name} takes {usage.removeprefix('{None}|')}; {reason}" if usage else f"{name}: {reason}"
