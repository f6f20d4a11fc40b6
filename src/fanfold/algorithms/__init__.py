"""Iterative algorithms, one paper a file. A new one is a file here and a row in the REGISTRY.

`FREE`, `POSITIVE` and `UNIT` are the domains in which quantities live.
"""

from fanfold.algorithms.admm import ADMM
from fanfold.algorithms.alista import ALISTA
from fanfold.algorithms.alista_at import ALISTAAT
from fanfold.algorithms.amp import AMP
from fanfold.algorithms.base import FREE, POSITIVE, UNIT, Algorithm, Domain, Nominal
from fanfold.algorithms.douglas_rachford import DouglasRachford
from fanfold.algorithms.ep import EP
from fanfold.algorithms.fista import FISTA
from fanfold.algorithms.gamp import GAMP
from fanfold.algorithms.hyperlista import HyperLISTA
from fanfold.algorithms.ista import ISTA
from fanfold.algorithms.lamp import LAMP
from fanfold.algorithms.lista import LISTA
from fanfold.algorithms.lista_cp import LISTACP
from fanfold.algorithms.lista_cpss import LISTACPSS
from fanfold.algorithms.lvamp import LVAMP
from fanfold.algorithms.oamp import OAMP
from fanfold.algorithms.oamp_net2 import OAMPNet2
from fanfold.algorithms.primal_dual import PrimalDual
from fanfold.algorithms.proximal_gradient import ProximalGradient
from fanfold.algorithms.tista import TISTA

REGISTRY: dict[str, type[Algorithm]] = {
    "admm": ADMM,
    "alista": ALISTA,
    "alista-at": ALISTAAT,
    "amp": AMP,
    "douglas-rachford": DouglasRachford,
    "ep": EP,
    "fista": FISTA,
    "gamp": GAMP,
    "hyperlista": HyperLISTA,
    "ista": ISTA,
    "lamp": LAMP,
    "lista": LISTA,
    "lista-cp": LISTACP,
    "lista-cpss": LISTACPSS,
    "lvamp": LVAMP,
    "oamp": OAMP,
    "oamp-net2": OAMPNet2,
    "primal-dual": PrimalDual,
    "proximal-gradient": ProximalGradient,
    "tista": TISTA,
}

__all__ = [
    "ADMM",
    "ALISTA",
    "ALISTAAT",
    "AMP",
    "EP",
    "FISTA",
    "FREE",
    "GAMP",
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
    "DouglasRachford",
    "HyperLISTA",
    "Nominal",
    "OAMPNet2",
    "PrimalDual",
    "ProximalGradient",
]


def __dir__() -> list[str]:
    return __all__
