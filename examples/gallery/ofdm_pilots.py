"""OFDM channels from every fourth subcarrier: least squares against LMMSE with a learned covariance, on UMi channels.

python examples/gallery/ofdm_pilots.py
"""

import fanfold as ff
from fanfold.estimators.ofdm import ChannelCovariance, Interpolation, Wiener

problem = ff.problems.OFDMChannel(source="umi", pilots="comb-4", snr_db=10)
methods = {
    "least squares": Interpolation.of(problem),
    "LMMSE": Wiener.of(problem, ChannelCovariance.of(problem, 1000)),
}
table = ff.evaluate(methods, problem, samples=100)
print(table)

nmse_db = {row["estimator"]: row["nmse_db"] for row in table}
assert -12 < nmse_db["least squares"] < -10  # dB
assert nmse_db["LMMSE"] < -15
