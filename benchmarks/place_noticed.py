"""How many slots it takes to notice that channels are those of another place: CDL-C at home, UMi met.

Run `python benchmarks/place_noticed.py`; it draws channels with Sionna (extra `channels`), two minutes of a core. A
Wiener filter of CDL-C is monitored at a rate of false alarms of 1 %, slot by slot. One thread.
"""

import torch

import fanfold as ff
from fanfold.core.units import nmse_db

HOME = "tr38901:model=cdl-c,array=2x4x4,subcarriers=24"
AWAY = "umi"  # shipped, of the same layout
SNR_DB, STREAMS, SLOTS, DRAWS, SAMPLES = 10.0, 100, 20, 1800, 2000


def at(source: str) -> ff.problems.OFDMChannel:
    """Channels of a source behind a pilot on every fourth subcarrier."""
    return ff.problems.OFDMChannel(source, "comb-4", snr_db=SNR_DB)


@torch.no_grad()
def main() -> None:
    """Print errors and delays."""
    torch.set_num_threads(1)
    home, away = at(HOME), at(AWAY)
    covariance = ff.estimators.ofdm.ChannelCovariance.of(home, SAMPLES)
    net, linear = ff.estimators.ofdm.Wiener.of(home, covariance), ff.estimators.ofdm.Interpolation.of(home)
    watching = ff.guard.monitor(net, home, alarm=0.01, draws=DRAWS)
    for name, problem in (("home", home), ("UMi", away)):
        x, obs = problem.sample(STREAMS * SLOTS, torch.Generator().manual_seed(1))
        state, p = watching.watch(streams=(STREAMS,)), watching.p_values(obs).reshape(STREAMS, SLOTS)
        first = torch.full((STREAMS,), SLOTS + 1)
        for slot in range(SLOTS):
            state = state.update(p[:, slot])
            first = torch.where(state.alarmed & (first > SLOTS), slot + 1, first)
        errors = ", ".join(f"{who} {nmse_db(e(obs).x, x):.1f} dB" for who, e in (("filter", net), ("linear", linear)))
        caught = (first <= 5).double().mean().item()
        print(f"{name}: {errors}; alarmed within 5 slots {100 * caught:.0f} %, median slot {first.median().item()}")


if __name__ == "__main__":
    main()
