"""Limits to hold an estimator against."""

from fanfold.bounds.cramer_rao import biased_cramer_rao, cramer_rao
from fanfold.bounds.error_decomposition import ErrorDecomposition, error_decomposition
from fanfold.bounds.exact_mmse import ExactMMSE, exact_mmse
from fanfold.bounds.fisher import gaussian_fisher, score_fisher
from fanfold.bounds.learned_bound import LearnedBound, LearnedBoundWarning, learned_bound
from fanfold.bounds.limit import bayes_limit
from fanfold.bounds.oracle import support_oracle
from fanfold.bounds.state_evolution import mmse
from fanfold.bounds.van_trees import VanTrees, van_trees
from fanfold.bounds.ziv_zakai import ZivZakai, ziv_zakai

__all__ = [
    "ErrorDecomposition",
    "ExactMMSE",
    "LearnedBound",
    "LearnedBoundWarning",
    "VanTrees",
    "ZivZakai",
    "bayes_limit",
    "biased_cramer_rao",
    "cramer_rao",
    "error_decomposition",
    "exact_mmse",
    "gaussian_fisher",
    "learned_bound",
    "mmse",
    "score_fisher",
    "support_oracle",
    "van_trees",
    "ziv_zakai",
]
