"""Which configurations to measure first: those from which most is learnt about all the others."""

import numpy as np

from controlplane.rubick.configurations import Configurations
from controlplane.rubick.step_time import StepTimeModel, log_seconds_with_jacobian


def most_informative(
    model: StepTimeModel, candidates: Configurations, count: int
) -> tuple[int, ...]:
    """Places of so many candidates, the most informative first.

    One by one, that which lessens most the mean error that is to be expected of all candidates: the
    mean standard deviation of the logarithms of their times, scatter included (an I-optimal design,
    greedily, for absolute errors in place of squares). The choice follows from the model's
    uncertainty alone: no measured time enters it, but those that the model was fitted to.

    Args:
        model: A prior, or a fit that more rows shall improve.
        candidates: What could be measured, and what shall be predicted.
        count: How many to choose; all if there are fewer.
    """
    _, jacobian = log_seconds_with_jacobian(model.log_parameters, model.sizes, candidates)
    known = jacobian @ model.covariance @ jacobian.T
    noise = model.noise**2
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        variances = np.diag(known)
        # Row by column: the variance of one after the other was measured.
        after = variances - known**2 / (variances + noise)[:, None]
        left = np.sqrt(np.maximum(after, 0.0) + noise).mean(axis=1)
        left[chosen] = np.inf
        best = int(np.argmin(left))
        known = known - np.outer(known[best], known[best]) / (variances[best] + noise)
        chosen.append(best)
    return tuple(chosen)
