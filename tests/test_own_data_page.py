"""The page on a user's own data: its examples run, one after the other."""

import re
from pathlib import Path

import torch

from fanfold.problems.protocols import unknowns_of

PAGE = (Path(__file__).parent.parent / "docs/own-data.md").read_text()


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code.replace("steps=100", "steps=10").replace("steps=60", "steps=10"), names)
    assert names["x_hat"].shape == (5, 40)
    assert abs(names["fourier"].norm() - 1) < 1e-5
    assert torch.equal(names["difference"].matrix(), torch.from_numpy(names["second"].toarray()))
    held = names["intervals"](names["readings"])
    assert (held.low >= 0).all()
    assert (held.high[:, 1] <= 1).all()
    assert unknowns_of(names["named"]).titles == ("rate [1/s]", "share")
    (row,) = names["table"]
    assert row["ser_low"] < row["ser"] < row["ser_high"] < 0.3
