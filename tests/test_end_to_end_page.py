"""The page on end-to-end estimators: its blocks run, and what they claim is so."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/end-to-end.md").read_text()


def test_the_blocks_run_and_the_limits_are_in_order(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    verdict, *lines = capsys.readouterr().out.strip().splitlines()
    said, *table, last = lines[-7:]
    # the least that is weighed in the block is the weighed one, and the networks gain on the linear estimator
    linear, *_, together = map(float, re.findall(r"\d\.\d+", verdict))
    assert together < 0.95 * linear
    assert "near(measured).x" in PAGE
    assert f"print(local.sentence)  # {said}" in PAGE
    assert [line.split()[0] for line in table] == ["simulations", "100", "200", "400", "800"]
    assert last == "torch.Size([5, 1])"
    assert (names["again"].p_values > 0.01).all()
    problem, rows = names["problem"], {row["estimator"]: row for row in names["table"]}
    mse = (
        10 ** (rows["maximum likelihood"]["nmse_db"] / 10)
        * problem.sample(1000, names["torch"].Generator())[0].square().mean().item()
    )
    # at 10 dB maximum likelihood is efficient but for a rare outlier, and both bounds are those of an unknown phase
    assert names["anyone"].item() <= 1.001 * names["unbiased"].item()
    assert mse > 0.8 * names["anyone"].item()
    assert rows["network"]["nmse_db"] < -3
    names["net"].strength = 0.0
    linear = names["ff"].evaluate({"linear": names["net"]}, problem).rows[0]["nmse_db"]
    assert rows["network"]["nmse_db"] < linear
