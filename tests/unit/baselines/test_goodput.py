"""The goodput model against numbers that the released code gave."""

import pytest

from controlplane.baselines.goodput import GradientNoise, SpeedModel, best_goodput, goodput
from controlplane.baselines.sia_program import gains

SPEED = SpeedModel(
    alpha_compute=0.05,
    beta_compute=0.002,
    alpha_nodes=0.10,
    beta_nodes=0.005,
    alpha_replicas=0.02,
    beta_replicas=0.002,
    gamma=1.5,
)
NOISE = GradientNoise(initial_batch=128, squared_norm=0.01, variance=4.0)


@pytest.mark.parametrize(
    ("how", "throughput", "efficiency", "good"),
    [
        ((1, 1, 128, 0), 418.3007, 1.0, 418.3007),
        ((1, 4, 32, 0), 1055.8624, 1.0, 1055.8624),
        ((1, 8, 64, 0), 2738.9327, 0.9926, 2718.5941),
        ((2, 16, 64, 0), 3706.8642, 0.9828, 3643.2660),
    ],
)
def test_throughput_and_efficiency_are_those_of_the_released_code(
    how: tuple[int, int, int, int], throughput: float, efficiency: float, good: float
) -> None:
    _, replicas, micro_batch, accumulation = how
    batch = replicas * micro_batch * (accumulation + 1)
    assert SPEED.throughput(*how) == pytest.approx(throughput, abs=5e-5)
    assert NOISE.efficiency(batch) == pytest.approx(efficiency, abs=5e-5)
    assert goodput(SPEED, NOISE, *how) == pytest.approx(good, abs=5e-5)


@pytest.mark.parametrize(
    ("nodes", "replicas", "best"),
    [
        (1, 1, 418.3007),
        (1, 2, 821.2496),
        (1, 4, 1626.6022),
        (1, 8, 3203.6709),
        (2, 16, 5498.1979),
    ],
)
def test_the_best_batch_is_found(nodes: int, replicas: int, best: float) -> None:
    found = best_goodput(SPEED, NOISE, nodes, replicas, micro_batches=(16, 128), batch_max=4096)
    assert found == pytest.approx(best, abs=5e-5)


def test_more_replicas_than_the_largest_batch_feeds_give_nothing() -> None:
    assert best_goodput(SPEED, NOISE, 2, 16, micro_batches=(16, 128), batch_max=255) == 0


def test_under_a_fixed_batch_goodputs_compare_as_throughputs() -> None:
    ways = [(1, 1, 128), (1, 2, 64), (1, 4, 32), (1, 8, 16), (2, 16, 8)]
    throughputs = [SPEED.throughput(*way, 1) for way in ways]
    goodputs = [goodput(SPEED, NOISE, *way, 1) for way in ways]
    assert goodputs[0] < throughputs[0]
    assert gains(goodputs) == pytest.approx(gains(throughputs))
