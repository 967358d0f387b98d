r"""What it is worth to measure a way to run: the time that choosing saves with what is learnt.

Logarithms of step times are believed to be normal: of ways :math:`i` with medians
:math:`e^{\mu_i}` and covariance :math:`K = J \Sigma J^T` (:math:`J` by the performance model's
parameters, :math:`\Sigma` what is not known of these). A step of way :math:`c`, measured with noise
:math:`\sigma`, moves all of them together, by one standard normal :math:`Z`:

.. math::

    \mu_i(Z) = \mu_i + b_i Z, \qquad b_i = K_{ic} / \sqrt{K_{cc} + \sigma^2}

A step on :math:`a_i` accelerators keeps others from :math:`h_i = 1 + n a_i / A` times its length
(``worth``), so that job is served best by the way of least :math:`h_i e^{\mu_i}`, before and after.
With expected times :math:`m_i = e^{\mu_i + K_{ii} / 2}`, which become
:math:`m_i(Z) = m_i e^{b_i Z - b_i^2 / 2}`, measuring saves of every step

.. math:: g_c = h_{i^*} m_{i^*} - E_Z\,[\,h_{i^*(Z)}\, m_{i^*(Z)}(Z)\,],
    \qquad i^*(Z) = \arg\min_i h_i e^{\mu_i(Z)}

This is the knowledge gradient for correlated beliefs (Frazier, Powell and Dayanik, INFORMS Journal
on Computing 2009). What is not certain of all ways alike, as the speed of the hardware, is worth
nothing, because it changes no choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.domain.step_times import Shares, Way
from controlplane.rubick.configurations import Configurations, Numbers
from controlplane.rubick.step_time import StepTimeModel, log_seconds_with_jacobian
from headrace.api.plan import ExecutionPlan

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
"""Of a standard normal, by Gauss's quadrature."""

PLANS_OF_A_PLACE = 3
"""So many plans of each place are looked at, those that may be the fastest."""


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """What is believed of the steps of one type of model on one type of accelerators.

    Attributes:
        ways: The ways (N).
        logs: Logarithms of their medians (N).
        spreads: Of these, by independent standard normals (N, K): as far as the parameters are not
            known.
        noise: Standard deviation of the logarithm of a measured time.
        rows: Measurements that this rests on; 0 for a prior.
        accelerators: Of each way (N).
    """

    ways: tuple[Way, ...]
    logs: Numbers
    spreads: Numbers
    noise: float
    rows: int
    accelerators: Numbers

    @classmethod
    def of(
        cls,
        model: StepTimeModel,
        pairs: Sequence[tuple[ExecutionPlan, Shares]],
        held: tuple[ExecutionPlan, Shares],
        samples: int,
        cpu_threads: float,
    ) -> "Beliefs":
        """What a model says of the plans that may be the fastest in each place.

        Args:
            model: A prior, or a fit.
            pairs: Plans on accelerators that lie so.
            held: That which a job has, which is among the ways whatever it is.
            samples: Global batch.
            cpu_threads: Of a rank.
        """
        every = list(dict.fromkeys([held, *pairs]))
        configurations = Configurations.of(
            [plan for plan, _ in every],
            [shares for _, shares in every],
            samples,
            cpu_threads=cpu_threads,
        )
        logs, jacobian = log_seconds_with_jacobian(
            model.log_parameters, model.sizes, configurations
        )
        reach = model.interval_factor * model.deviations(jacobian)
        kept = _likely(every, logs - reach)
        upper = np.exp(logs + reach)
        ways = tuple(
            Way(*every[place], float(np.exp(logs[place])), float(upper[place])) for place in kept
        )
        root = np.linalg.cholesky(model.covariance)
        return cls(
            ways,
            logs[kept],
            jacobian[kept] @ root,
            float(model.noise),
            model.rows,
            configurations.accelerators[kept],
        )

    @property
    def expected_seconds(self) -> Numbers:
        """Means of the times (N)."""
        found: Numbers = np.exp(self.logs + (self.spreads**2).sum(axis=1) / 2)
        return found

    def saved_by_knowing(self, candidate: int, competition: float) -> float:
        """Seconds of all jobs' completion times that are saved in every step of the type, once this
        way was measured.

        Args:
            candidate: Place of the way among the ways.
            competition: Jobs that wait or are expected, for each accelerator.
        """
        harm = 1.0 + competition * self.accelerators
        own = self.spreads[candidate]
        moved = self.spreads @ own / np.sqrt(own @ own + self.noise**2)
        expected = harm * self.expected_seconds
        before = expected[int(np.argmin(self.logs + np.log(harm)))]
        # Of each outcome (Q, N).
        shifts = np.outer(_NODES, moved)
        chosen = np.argmin(self.logs + np.log(harm) + shifts, axis=1)
        each = np.arange(len(_NODES))
        after = expected[chosen] * np.exp(shifts[each, chosen] - moved[chosen] ** 2 / 2)
        return max(0.0, float(before - _WEIGHTS @ after))


def _likely(every: Sequence[tuple[ExecutionPlan, Shares]], lower: Numbers) -> list[int]:
    """Places of those whose times may be the shortest where they are; the first is kept always."""
    found: dict[Shares, list[int]] = {}
    for place in np.argsort(lower, kind="stable").tolist():
        mine = found.setdefault(every[place][1], [])
        if len(mine) < PLANS_OF_A_PLACE and place:
            mine.append(place)
    return [0, *sorted(place for mine in found.values() for place in mine)]
