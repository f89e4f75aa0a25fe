"""What the record says of an arm."""

from __future__ import annotations

import numpy as np
import pytest
from openinfer.tuner.assemble import _arm, _sandbox, drifts
from openinfer.tuner.finalists import NO_SANDBOX, Finalists
from openinfer.tuner.race import Lap

from openinfer.config import Config


@pytest.mark.parametrize(("answers", "p99", "p999"), [(99, False, False), (100, True, False), (1000, True, True)])
def test_a_percentile_needs_answers_above_it(answers: int, p99: bool, p999: bool) -> None:
    samples = np.arange(1, answers + 1)
    facts = {"peak_bytes": 1, "startup_s": 0.1}
    laps = [Lap([0], [float(answers)], samples, samples, 0.0, np.zeros(2, np.int64), facts, []) for _ in range(3)]
    arm = _arm("default", laps, {})
    assert arm.p50_ns.estimate == pytest.approx(np.median(samples))
    assert (arm.p99_ns is not None, arm.p999_ns is not None) == (p99, p999)


def test_a_machine_that_changes_is_told_from_a_process_that_does() -> None:
    steady = [[1.0, 1.5, 1.0], [1.01, 1.53, 1.0], [1.0, 1.5, 0.99]]
    machine, process = drifts(steady)
    assert machine == pytest.approx(0.5) and process == pytest.approx(0.02, abs=1e-6)
    machine, process = drifts([*steady[:2], [1.0, 1.5, 0.5]])
    assert machine == pytest.approx(0.5) and process == pytest.approx(1.0)


def test_the_sandbox_costs_what_its_arm_takes_beside_the_same_without() -> None:
    def laps(times: float) -> list[Lap]:
        samples = np.full(20, int(1000 * times))
        facts = {"peak_bytes": 1, "startup_s": 0.1}
        return [Lap([0], [2000.0 * times], samples, samples, 0.0, np.zeros(2, np.int64), facts, []) for _ in range(4)]

    base = Config.parse({"sandbox": {"mode": "process"}})
    arms = Finalists({"sandbox.spin_us": 1000}, None).arms(base)
    raced = {"default": laps(9), "winner": laps(3), NO_SANDBOX: laps(2)}
    price = _sandbox(raced, base, arms)
    assert price is not None and (price.mode, price.arm, price.without.name) == ("process", "winner", NO_SANDBOX)
    assert price.objective.estimate == pytest.approx(1.5) and price.p50.estimate == pytest.approx(1.5)
    assert _sandbox({"default": laps(1)}, base, arms) is None  # the arm without a sandbox had failed
    unraced = Finalists({}, None).arms(base)
    found = _sandbox({"default": laps(9), NO_SANDBOX: laps(3)}, base, unraced)
    assert found is not None and found.arm == "default" and found.objective.estimate == pytest.approx(3)
