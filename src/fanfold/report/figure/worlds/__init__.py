"""Other worlds of the figure: a photograph, an RF scene, a radio channel, each with exported estimators of its own."""

from fanfold.report.figure.worlds.kept import PICTURED, WorldParts, kept_world

__all__ = ["PICTURED", "WorldParts", "kept_world"]
