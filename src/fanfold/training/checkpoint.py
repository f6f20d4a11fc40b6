"""The checkpoint of a training as it is read: tensors by what they belong to, and numbers that are checked."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fanfold.core.data_files import understanding
from fanfold.runs.folders import checked
from fanfold.runs.weights import check_operator, read_tensors

FILE = "checkpoint.safetensors"  # in a run directory
REMEDY = "bring it back, or train anew."
COUNTS = ("step", "skipped", "skips_in_a_row", "stale", "best_step")


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        facts: How far the training was, and the best error there was.
        model: The weights.
        best: The best weights.
        optimiser: The state of the optimiser, by parameter and name.
        lessons: The state of a course of lessons.
        mean: The running mean of the weights.
        scores: The best scores of the members of a cross-validated estimator.

    Example:
        >>> from fanfold.training.checkpoint import Checkpoint
        >>> Checkpoint({"step": 3}, {}, {}, {}, {}, {}, {}).facts["step"]
        3
    """

    facts: dict[str, Any]
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    lessons: dict[str, Tensor]
    mean: dict[str, Tensor]
    scores: dict[str, Tensor]


def read_checkpoint(file: Path, operator: str | None) -> Checkpoint:
    """The checkpoint in a file.

    Args:
        file: The file.
        operator: The hash of the operator of the network that goes on.

    Raises:
        ValueError: If it is missing, damaged or of a network with another operator.
    """
    tensors, facts = read_tensors(file, REMEDY.capitalize())
    check_operator(facts, operator, file.parent)
    facts = checked(file, facts, dict.fromkeys(COUNTS, int) | {"best_score": float})
    checkpoint = Checkpoint(facts, {}, {}, {}, {}, {}, {})
    with understanding(file, "a checkpoint", REMEDY):
        facts["best_nmse_db"] = float(facts["best_nmse_db"])  # NaN where a loss chooses the best
        for name, t in tensors.items():
            part, _, rest = name.partition("/")
            match part:
                case "model":
                    checkpoint.model[rest] = t
                case "best":
                    checkpoint.best[rest] = t
                case "lessons":
                    checkpoint.lessons[rest] = t
                case "mean":
                    checkpoint.mean[rest] = t
                case "scores":
                    checkpoint.scores[rest] = t
                case "optimiser":
                    index, key = rest.split("/")
                    checkpoint.optimiser.setdefault(int(index), {})[key] = t
                case _:
                    raise ValueError(f"it has a part {part}")
    return checkpoint
