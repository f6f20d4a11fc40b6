"""Iterative algorithms, one paper a file. A new one is a file here and a row in the registry."""

from fanfold.algorithms.alista import ALISTA
from fanfold.algorithms.alista_at import ALISTAAT
from fanfold.algorithms.amp import AMP
from fanfold.algorithms.base import FREE, POSITIVE, UNIT, Algorithm, Domain, Nominal
from fanfold.algorithms.fista import FISTA
from fanfold.algorithms.hyperlista import HyperLISTA
from fanfold.algorithms.ista import ISTA
from fanfold.algorithms.lamp import LAMP
from fanfold.algorithms.lista import LISTA
from fanfold.algorithms.lista_cp import LISTACP
from fanfold.algorithms.lista_cpss import LISTACPSS
from fanfold.algorithms.lvamp import LVAMP
from fanfold.algorithms.oamp import OAMP
from fanfold.algorithms.tista import TISTA

REGISTRY: dict[str, type[Algorithm]] = {
    "alista": ALISTA,
    "alista-at": ALISTAAT,
    "amp": AMP,
    "fista": FISTA,
    "hyperlista": HyperLISTA,
    "ista": ISTA,
    "lamp": LAMP,
    "lista": LISTA,
    "lista-cp": LISTACP,
    "lista-cpss": LISTACPSS,
    "lvamp": LVAMP,
    "oamp": OAMP,
    "tista": TISTA,
}

__all__ = [
    "ALISTA",
    "ALISTAAT",
    "AMP",
    "FISTA",
    "FREE",
    "ISTA",
    "LAMP",
    "LISTA",
    "LISTACP",
    "LISTACPSS",
    "LVAMP",
    "OAMP",
    "POSITIVE",
    "REGISTRY",
    "TISTA",
    "UNIT",
    "Algorithm",
    "Domain",
    "HyperLISTA",
    "Nominal",
]
