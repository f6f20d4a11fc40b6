"""Limits to hold an estimator against."""

from fanfold.bounds.convergence import Certificate, certify, has_evolution
from fanfold.bounds.cramer_rao import biased_cramer_rao, cramer_rao
from fanfold.bounds.error_decomposition import ErrorDecomposition, error_decomposition
from fanfold.bounds.exact_mmse import ExactMMSE, exact_mmse
from fanfold.bounds.fisher import gaussian_fisher, model_fisher, score_fisher
from fanfold.bounds.learned_bound import LearnedBound, LearnedBoundWarning, learned_bound
from fanfold.bounds.limit import bayes_limit, bayes_limit_of
from fanfold.bounds.oracle import support_oracle, support_oracle_error
from fanfold.bounds.state_evolution import mmse
from fanfold.bounds.van_trees import VanTrees, van_trees
from fanfold.bounds.ziv_zakai import ZivZakai, ziv_zakai

__all__ = [
    "Certificate",
    "ErrorDecomposition",
    "ExactMMSE",
    "LearnedBound",
    "LearnedBoundWarning",
    "VanTrees",
    "ZivZakai",
    "bayes_limit",
    "bayes_limit_of",
    "biased_cramer_rao",
    "certify",
    "cramer_rao",
    "error_decomposition",
    "exact_mmse",
    "gaussian_fisher",
    "has_evolution",
    "learned_bound",
    "mmse",
    "model_fisher",
    "score_fisher",
    "support_oracle",
    "support_oracle_error",
    "van_trees",
    "ziv_zakai",
]


def __dir__() -> list[str]:
    return __all__
