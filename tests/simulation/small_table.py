"""Measured step times of two invented models, small enough to follow by hand."""

from headrace.api.plan import ExecutionPlan
from simulator.measured_table import MeasuredRow, MeasuredTable

SMALL_TABLE = MeasuredTable(
    [
        MeasuredRow(model, ExecutionPlan.parse(plan), shares, seconds)
        for model, plan, shares, seconds in (
            ("bert", "dp1", (1,), 1.0),
            ("bert", "dp1-gc", (1,), 1.3),
            ("bert", "dp2", (2,), 0.6),
            ("bert", "dp4", (4,), 0.35),
            ("bert", "dp4-z2", (4,), 0.33),
            ("bert", "dp8", (8,), 0.2),
            ("bert", "dp8", (4, 4), 0.25),
            ("gpt2", "dp2-z2", (2,), 2.0),
            ("gpt2", "dp4-z2", (4,), 1.1),
            ("gpt2", "dp16-z2", (8, 8), 0.5),
        )
    ]
)
