"""The report of a comparison as one HTML file without scripts, fonts or pictures from elsewhere.

The same runs give the same bytes. What comes from files (names of jobs and policies) is escaped.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from headrace.cli.report_charts import COLOURS, text
from headrace.cli.report_style import STYLE
from simulator.report.drawing import bars, colours_of, distribution, timeline, utilisation
from simulator.report.recorded import RecordedRun, read_run
from simulator.results.summary import LONG_SECONDS

_OWN_STYLE = (
    "".join(f".m{n}{{fill:var(--l{n})}}.k{n}{{background:var(--l{n})}}" for n in range(COLOURS))
    + """
.held{opacity:.38}
.heldarea{fill:var(--l0);opacity:.35}.goodarea{fill:var(--l0)}
.area,.cdf{display:block}
.bars{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:8px 34px}
h3{font-size:14px;margin:18px 0 6px}
.wide{overflow-x:auto}
"""
)


def write_report(folder: Path, runs: Sequence[Path]) -> Path:
    """Writes ``report.html`` of the runs that lie in these folders; returns where.

    Raises:
        OSError: A run cannot be read, or the report not be written.
    """
    file = folder / "report.html"
    file.write_text(page([read_run(run) for run in runs]), encoding="utf-8")
    return file


def page(runs: Sequence[RecordedRun]) -> str:
    """The whole page. Of each policy the first run is drawn; the figures are means over all."""
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(run.policy, []).append(run)
    first = [group[0] for group in groups.values()]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>Headrace comparison</title><style>{STYLE}{_OWN_STYLE}</style></head><body>",
        _header(first, groups),
        "<main>",
        _figures(groups),
        _distribution(first),
        _uses(first),
        _timelines(first),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _header(first: Sequence[RecordedRun], groups: dict[str, list[RecordedRun]]) -> str:
    run = first[0]
    seeds = max(len(group) for group in groups.values())
    facts = [
        ("Policies", str(len(groups))),
        ("Seeds", str(seeds)),
        ("Jobs", str(len(run.jobs))),
        ("Nodes", str(len(run.nodes))),
        ("Accelerators", str(sum(run.nodes.values()))),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    told = dict.fromkeys(note for each in first for note in each.summary["notes"])
    notes = "".join(f"<li>{text(note)}</li>" for note in told)
    return (
        "<header><h1>Headrace comparison</h1>"
        f'<p class="when">Policies on one workload in virtual time</p><dl>{cells}</dl>'
        f'<ul class="note">{notes}</ul></header>'
    )


Figure = tuple[str, Callable[[RecordedRun], float | None], Callable[[float], str]]


def _field(name: str) -> Callable[[RecordedRun], float | None]:
    return lambda run: run.summary[name]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3f} h"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _late(run: RecordedRun) -> float | None:
    promises = run.summary["promises"]
    return float(promises["late"]) if promises["jobs"] else None


_FIGURES: Sequence[Figure] = (
    ("Average JCT", _field("jct_mean_seconds"), _hours),
    ("Median JCT", _field("jct_p50_seconds"), _hours),
    ("P99 JCT", _field("jct_p99_seconds"), _hours),
    ("Average JCT, long jobs", _field("jct_mean_long_seconds"), _hours),
    ("Makespan", _field("makespan_seconds"), _hours),
    ("Held", _field("utilisation"), _share),
    ("Of use", _field("goodput"), _share),
    ("Fairness", _field("fairness"), lambda value: f"{value:.3f}"),
    ("Changes", _field("reconfigurations"), lambda value: f"{value:.0f}"),
    ("Guaranteed jobs late", _late, lambda value: f"{value:.0f}"),
)


def _mean(group: Sequence[RecordedRun], figure: Figure) -> float | None:
    values = [value for run in group if (value := figure[1](run)) is not None]
    return fmean(values) if values else None


def _figures(groups: dict[str, list[RecordedRun]]) -> str:
    heads = "".join(f'<th class="n">{name}</th>' for name, _, _ in _FIGURES)
    rows = []
    for policy, group in groups.items():
        cells = "".join(
            f'<td class="n">{"-" if value is None else figure[2](value)}</td>'
            for figure in _FIGURES
            for value in [_mean(group, figure)]
        )
        rows.append(f"<tr><td>{text(policy)}</td>{cells}</tr>")
    drawn = "".join(
        f"<div><h3>{figure[0]}</h3>{_bars(groups, figure)}</div>"
        for figure in (_FIGURES[0], _FIGURES[2], _FIGURES[4], _FIGURES[6])
    )
    note = (
        "JCT is job completion time, from submission to finish. Long jobs run more than "
        f"{LONG_SECONDS / 60:g} minutes on what they ask for. Held and of use are shares of all "
        "accelerator time over the makespan; of use is training, less what failures took. "
        "Fairness is Jain's index of the jobs' speeds: of the time that each would take alone on "
        "its request, over its JCT. Changes are planned changes of number, place or plan. A "
        "guaranteed job is late if it took longer from its first start to its end than its "
        "request promises."
    )
    return (
        f'<section><h2>Figures</h2><div class="bars">{drawn}</div>'
        f'<div class="wide"><table><tr><th>Policy</th>{heads}</tr>{"".join(rows)}</table></div>'
        f'<p class="note">{text(note)}</p></section>'
    )


def _bars(groups: dict[str, list[RecordedRun]], figure: Figure) -> str:
    values = [
        (policy, value, figure[2](value))
        for policy, group in groups.items()
        if (value := _mean(group, figure)) is not None
    ]
    return bars(values, figure[0])


def _distribution(first: Sequence[RecordedRun]) -> str:
    legend = "".join(
        f'<li><i class="swatch k{number % COLOURS}"></i>{text(run.policy)}</li>'
        for number, run in enumerate(first)
    )
    return (
        "<section><h2>How long jobs took, from submission to finish</h2>"
        f'<ul class="legend">{legend}</ul>{distribution(first)}</section>'
    )


def _uses(first: Sequence[RecordedRun]) -> str:
    end = max(run.end for run in first)
    drawn = "".join(f"<h3>{text(run.policy)}</h3>{utilisation(run, end)}" for run in first)
    legend = (
        '<ul class="legend"><li><i class="swatch k0"></i>making progress</li>'
        '<li><i class="swatch k0 held"></i>held without progress</li></ul>'
    )
    return f"<section><h2>Use of accelerators over time</h2>{legend}{drawn}</section>"


def _timelines(first: Sequence[RecordedRun]) -> str:
    models = [job["model_type"] for run in first for job in run.jobs]
    colours = colours_of(models)
    legend = "".join(
        f'<li><i class="swatch k{colour}"></i>{text(model)}</li>'
        for model, colour in colours.items()
    )
    legend += '<li><i class="swatch k0 held"></i>pale: starts or changes</li>'
    end = max(run.end for run in first)
    drawn = "".join(
        f"<h3>{text(run.policy)}, seed {run.summary['seed']}</h3>{timeline(run, colours, end)}"
        for run in first
    )
    return (
        "<section><h2>Who held which accelerators</h2>"
        '<p class="note">A lane for each accelerator, node after node. The log tells how many of a '
        "node a job held; the picture gives it the lowest that were free.</p>"
        f'<ul class="legend">{legend}</ul>{drawn}</section>'
    )
