"""Sparse signals from half as many measurements: sixteen layers that start as ISTA, beside OAMP and the limit.

python examples/gallery/sparse_signals.py
"""

import fanfold as ff

problem = ff.problems.CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=20, seed=0)
ista = ff.algorithms.ISTA(lam=0.05)
net = ff.unfold(ista, problem, layers=16, learn={"step": "per-layer", "threshold": "per-layer"})
ff.fit(net, problem, steps=400, lr=4e-3)

methods = {"ISTA": ff.iterate(ista, 16), "unfolded": net, "OAMP": ff.iterate(ff.algorithms.OAMP(problem.prior), 16)}
table = ff.evaluate(methods, problem, layers=False, samples=500)
print(table)

nmse_db = {row["estimator"]: row["nmse_db"] for row in table}
assert nmse_db["unfolded"] < -16  # dB
assert nmse_db["ISTA"] > -5
assert nmse_db["OAMP"] < -22.5
