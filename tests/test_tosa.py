"""Arm's reference model of TOSA, built and run by code that others wrote, gives the bits of integer programs.

It is skipped where `tosa-tools` is not installed: `pip install 'fanfold[tosa]'`, in an environment of its own, as that
asks for numpy < 2.2; `.ci/run` makes one.
"""

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.deploy.integer import Draft, IntegerProgram, play, to_integers
from integer_programs import everything, random_inputs
from tosa_form import TosaGraph

PROBLEM = ff.problems.CompressedSensing(n=60, m=30, snr_db=30.0)


def check_bits(program: IntegerProgram, inputs: dict[str, np.ndarray], least: int = 20) -> None:
    pytest.importorskip("tosa_reference_model", reason="TOSA needs tosa-tools: pip install 'fanfold[tosa]'")
    wanted = play(program, inputs)
    batch = len(next(iter(inputs.values())))
    said = TosaGraph(program, batch).run(inputs)
    assert {name: (said[name] != values).sum() for name, values in wanted.items()} == dict.fromkeys(wanted, 0)
    assert all(np.unique(values).size > least for values in wanted.values())


LEARN = {
    "lista-cp": (ff.algorithms.LISTACP(0.3), {"W": "per-layer", "threshold": "per-layer vector"}),
    "alista": (ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}),  # with sums of 48 bits
    "alista-at": (ff.algorithms.ALISTAAT(), {"alpha": "per-layer", "ridge": "per-layer"}),  # with tables
}


@pytest.mark.parametrize("widths", ["w8a8", "w8a12"])
@pytest.mark.parametrize("name", LEARN)
def test_a_network_is_the_same_in_the_reference_model(name, widths):
    algorithm, learn = LEARN[name]
    net = ff.unfold(algorithm, PROBLEM, 4, learn)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.01 * torch.randn(p.shape, generator=generator_of(3))
    program = to_integers(net, PROBLEM.sample(200, generator_of(1))[1], widths)
    y = program.inputs[0].integers(PROBLEM.sample(300, generator_of(2))[1].y.double().numpy())
    check_bits(program, {"y": np.concatenate([y, random_inputs(program, 40, 0)["y"]])})


def test_every_operation_is_the_same_in_the_reference_model():
    check_bits(everything(), random_inputs(everything(), 20, 0), least=1)


def test_ties_go_up_in_the_reference_model_too():
    """Shifts of either sign, one for each entry, of numbers that lie halfway as often as not; products; the ends."""
    draft, n = Draft("halves"), 12
    y = draft.input("y", (n,), "int8")
    squared = draft.mul(y, draft.const(np.arange(n) - 6))
    scaled = draft.rescale(squared, np.arange(n) - 5)
    kept = draft.clamp(scaled, -3000 - np.arange(n), 2000 + np.arange(n))
    draft.output(draft.add(draft.sub(kept, y), draft.const(7), name="x_hat"), (n,))
    values = np.arange(-128, 128, dtype=np.int8)
    check_bits(draft.finish(), {"y": np.repeat(values[:, None], n, axis=1)})
