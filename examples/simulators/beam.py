"""A stand-in for a solver of your own: the deflection of a cantilever under a load, at eight gauges.

    echo '{"x": [0.3, 0.7]}' | python examples/simulators/beam.py --seed 1

Reads the log of the bending stiffness EI and the place of the load as JSON and prints the deflections, as a solver
behind a command line does. Its clamp gives way by a random angle, so that no likelihood of the readings is to be had in
closed form; and as solvers do it fails now and then: one run in fifty crashes, and one in fifty prints NaN.
"""

import json
import math
import random
import sys

GAUGES = [(i + 1) / 8 for i in range(8)]  # along a beam of length 1


def deflection(z: float, stiffness: float, place: float, compliance: float) -> float:
    """At z under a unit load: bending (Euler and Bernoulli), and the turn of the clamp."""
    near, far = min(z, place), max(z, place)
    return near * near * (3 * far - near) / (6 * stiffness) + compliance * place * z


def main(seed: int) -> None:
    """Print one line of readings."""
    log_stiffness, place = json.load(sys.stdin)["x"]
    chance = random.Random(seed)
    luck = chance.random()
    if luck < 0.02:
        sys.exit("the solver did not converge")
    compliance = 0.1 * chance.expovariate(1.0)
    clean = [deflection(z, math.exp(log_stiffness), place, compliance) for z in GAUGES]
    print(*(math.nan if luck < 0.04 else w * (1 + 0.02 * chance.gauss(0, 1)) for w in clean))


if __name__ == "__main__":
    main(int(sys.argv[sys.argv.index("--seed") + 1]))
