"""Sparse RF scenes through a Kronecker product of steering vectors: OAMP fails, and a few learned numbers repair it.

python examples/gallery/rf_scene.py
"""

import fanfold as ff

problem = ff.problems.RFImaging(sensing="steering", scene=(12, 12), elements=(10, 10), sparsity=0.05, snr_db=30)
oamp = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.2), noise="estimated", adapt=True)
net = ff.unfold(oamp, problem, layers=8, learn={"prior": "per-layer", "damping": "per-layer"})
ff.fit(net, problem, steps=60, batch=32, lr=1e-2)

methods = {
    "OAMP": ff.iterate(oamp, 8),
    "unfolded OAMP": net,
    "FISTA, 100 iterations": ff.iterate(ff.algorithms.FISTA(lam=0.02), 100),
    "EP": ff.iterate(ff.algorithms.EP(problem.prior), 12),
}
table = ff.evaluate(methods, problem, samples=100, layers=False)
print(table)

nmse_db = {row["estimator"]: row["nmse_db"] for row in table}
assert nmse_db["OAMP"] > -20  # dB
assert nmse_db["unfolded OAMP"] < -39
assert nmse_db["unfolded OAMP"] < min(nmse_db["EP"], nmse_db["FISTA, 100 iterations"]) - 5
