"""The channel networks in whole numbers: mismatches between the forms of their programs, losses in dB, time in C.

Run `python benchmarks/integer_channels.py mixer RUN/weights.pt SOURCE` with the weights of a trained network of the
default size, `grid-cnn` likewise; SOURCE is that of its channels. One thread.
"""

import sys

import onnxruntime
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db
from fanfold.deploy import Timing
from fanfold.deploy.cost import timed_us
from fanfold.deploy.integer import CompiledProgram, TorchProgram, drafted, golden_vectors, play
from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.deploy.latency import one_core
from fanfold.estimators import quantised
from fanfold.estimators.ofdm import CNNSettings, MixerSettings

SETTINGS = {"mixer": MixerSettings(), "grid-cnn": CNNSettings()}
OUTPUTS, SAMPLES, CALLS = 1_000_000, 400, 300
WIDTHS = ("w8a8", "w8a12", "w16a16")


def mismatches(program) -> dict[str, int]:
    """How many of a million outputs differ from the player's, on drawn inputs of any size."""
    count = -(-OUTPUTS // program.outputs[0].size)
    inputs = dict(golden_vectors(program, count=count).inputs)
    wanted = play(program, inputs)["x_hat"]
    session = onnxruntime.InferenceSession(onnx_model(program).SerializeToString(), providers=["CPUExecutionProvider"])
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    forms = {
        "torch": TorchProgram(program)(tensors)["x_hat"].numpy(),
        "onnxruntime": session.run(["x_hat"], inputs)[0],
        "c": CompiledProgram(program)(program, inputs)["x_hat"],
    }
    return {"outputs": wanted.size} | {name: int((value != wanted).sum()) for name, value in forms.items()}


def times_in_c(program) -> Timing:
    """The times of a call of the C for one sample, on one core."""
    inputs = {name: value[-1:] for name, value in golden_vectors(program).inputs.items()}
    with one_core():
        return Timing.of(timed_us(CompiledProgram(program).prepared(inputs), CALLS))


@torch.no_grad()
def main(kind: str, weights: str, source: str) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    problem = ff.problems.OFDMChannel(source, "comb-4", snr_db=(0.0, 20.0))
    net = SETTINGS[kind].build(problem)
    net.load_state_dict(torch.load(weights, weights_only=True))
    _, obs = problem.sample(500, generator_of(0))
    for widths in WIDTHS:
        whole = quantised(net, widths, obs)
        losses = {}
        for snr_db in (0, 10, 20):
            x, seen = problem.held_out().shifted(snr_db=float(snr_db)).sample(SAMPLES, generator_of(1))
            losses[snr_db] = round(float(nmse_db(whole(seen).x, x) - nmse_db(net(seen).x, x)), 3)
        program = drafted(whole, kind.replace("-", "_"))
        taken = times_in_c(program)
        print(
            f"{kind} {widths}: loss in dB {losses}, mismatches {mismatches(program)}, C {taken.median:.0f} µs, "
            f"p99 {taken.p99:.0f} µs"
        )


if __name__ == "__main__":
    main(*sys.argv[1:4])
