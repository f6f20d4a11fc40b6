"""Iterative algorithms, one paper a file. A new one is a file here and a row in the registry."""

from fanfold.algorithms.amp import AMP
from fanfold.algorithms.base import FREE, POSITIVE, UNIT, Algorithm, Domain, Nominal
from fanfold.algorithms.fista import FISTA
from fanfold.algorithms.ista import ISTA
from fanfold.algorithms.lista import LISTA
from fanfold.algorithms.lista_cp import LISTACP
from fanfold.algorithms.oamp import OAMP

REGISTRY: dict[str, type[Algorithm]] = {
    "amp": AMP,
    "fista": FISTA,
    "ista": ISTA,
    "lista": LISTA,
    "lista-cp": LISTACP,
    "oamp": OAMP,
}

__all__ = [
    "AMP",
    "FISTA",
    "FREE",
    "ISTA",
    "LISTA",
    "LISTACP",
    "OAMP",
    "POSITIVE",
    "REGISTRY",
    "UNIT",
    "Algorithm",
    "Domain",
    "Nominal",
]
