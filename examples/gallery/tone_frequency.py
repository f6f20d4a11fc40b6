"""The frequency of a tone: one network for all SNRs, beside maximum likelihood and the Cramér–Rao bound.

python examples/gallery/tone_frequency.py
"""

import fanfold as ff

problem = ff.problems.Tone(density="raised-cosine", snr_db=(-10.0, 20.0))
net = ff.estimators.Locator.of(problem)
ff.fit(net, problem, steps=150, batch=128)

methods = {"network": net, "maximum likelihood": ff.estimators.MaximumLikelihood.of(problem.shifted(snr_db=0.0))}
table = ff.evaluate(methods, problem, samples=400, snr_db=[-8.0, 10.0], layers=False)
print(table)

nmse_db = {(row["estimator"], row["snr_db"]): row["nmse_db"] for row in table}
limit_db = {row["snr_db"]: row["limit_db"] for row in table}
assert nmse_db["network", -8.0] < nmse_db["maximum likelihood", -8.0] - 2  # dB
assert nmse_db["network", 10.0] < limit_db[10.0] + 1.5
