"""A network in a world that it was not trained for, alone and with a guard that goes over to FISTA.

python examples/gallery/wrong_world.py
"""

import fanfold as ff

problem = ff.problems.CompressedSensing(n=100, m=60, sparsity=0.1, snr_db=30)
oamp = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3), noise="estimated")
net = ff.unfold(oamp, problem, layers=8, learn={"prior": "per-layer", "noise_scale": "per-layer"})
net = ff.fit(net, problem, steps=100, batch=64)
safe = ff.iterate(ff.algorithms.FISTA(lam=0.02), 100)
guard = ff.guard.guarded(net, safe, problem)

methods = {"network": net, "FISTA": safe, "guarded": guard}
home = ff.evaluate(methods, problem, samples=500, layers=False)
away = ff.evaluate(methods, ff.guard.HeavyTailed(problem), samples=500, layers=False)
print(home)
print(away)

(at_home, _, guarded_at_home), (alone, fista, guarded) = ([row["nmse_db"] for row in table] for table in (home, away))
assert at_home < -35  # dB
assert guarded_at_home < -35
assert alone > -3
assert guarded < fista + 0.2
