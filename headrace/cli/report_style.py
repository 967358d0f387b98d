"""The report's style sheet: light and dark by the reader's setting, light on paper."""

# Fills carry white text (contrast at least 4.5); lines are what stands out on the background.
_FILLS = ("#2b66ad", "#b4530a", "#2c7a4b", "#7a46ad", "#0f6f74", "#b32f63", "#6a6415", "#52617a")
_LINES_LIGHT = _FILLS
_LINES_DARK = (
    "#7db4f5",
    "#f2a05a",
    "#6fcf97",
    "#c39af0",
    "#5fc9cf",
    "#f286ad",
    "#cfc65a",
    "#a9b6cc",
)

_LIGHT = (
    "--page:#fff;--ink:#1c2430;--soft:#5a6575;--rule:#dfe3ea;--lane:#f1f3f7;--grid:#e3e7ee;"
    "--bad:#c3252b;--mark:#3f4a5a;--stripe:rgba(255,255,255,.2);"
    + "".join(f"--l{number}:{colour};" for number, colour in enumerate(_LINES_LIGHT))
)
_DARK = (
    "--page:#12161d;--ink:#e6eaf0;--soft:#9aa6b6;--rule:#2c3542;--lane:#1b212b;--grid:#27303d;"
    "--bad:#ff7b72;--mark:#b9c4d3;--stripe:rgba(255,255,255,.17);"
    + "".join(f"--l{number}:{colour};" for number, colour in enumerate(_LINES_DARK))
)
_JOBS = "".join(
    f".j{number}>rect:first-of-type{{fill:{fill}}}.c{number}{{background:{fill}}}"
    f".l{number}{{stroke:var(--l{number})}}"
    for number, fill in enumerate(_FILLS)
)

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:24px 20px 60px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:36px 0 10px;padding-bottom:5px;border-bottom:1px solid var(--rule)}
.when{margin:0 0 14px;color:var(--soft)}
.note{color:var(--soft);font-size:13px;margin:6px 0}
dl{display:flex;flex-wrap:wrap;gap:10px 28px;margin:0}
dt{color:var(--soft);font-size:12.5px}
dd{margin:0;font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:0 0 10px;padding:0;
font-size:13px}
.legend li{display:flex;align-items:center;overflow-wrap:anywhere}
.swatch{display:inline-block;flex:none;width:11px;height:11px;border-radius:3px;margin-right:7px;
vertical-align:-1px}
.swatch.starting{background:repeating-linear-gradient(135deg,#7c8797 0 2px,#bcc4cf 2px 4px)}
.swatch.stopping{background:#39424f;border:1px solid var(--soft)}
.swatch.broken{background:var(--bad)}
.swatch.lost{background:#8d97a5}.swatch.drained{background:#b7a46a}
.swatch.unhealthy{background:#c98a8a}
.rule{display:inline-block;width:16px;border-top:2px solid var(--mark);margin-right:7px}
.rule.retry{border-top:2px dashed var(--bad)}
.chart{display:flex}
.chart>.scroll{flex:1;min-width:0}
.scroll{overflow-x:auto}
.names,.axis{flex:none;display:block}
.names{margin-right:6px}.axis{margin-right:4px}
.lanes{display:block;min-width:620px}
.losses{display:block;min-width:420px;overflow:visible}
svg text{font:11.5px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}
svg .node{font-weight:600;font-size:12.5px}
svg .slot,svg .tick{fill:var(--soft)}
.lane{fill:var(--lane)}
.grid{stroke:var(--grid);stroke-width:1}
.stripe{fill:var(--stripe)}
.b text{fill:#fff;font-weight:500}
.b .starting{fill:url(#hatch)}
.b .stopping{fill:rgba(0,0,0,.42)}
.b .broken{fill:#ff4b42}
.many>rect{fill:#7c8797}
.band.lost{fill:#8d97a5;opacity:.75}.band.drained{fill:#b7a46a;opacity:.6}
.band.unhealthy{fill:#c98a8a;opacity:.7}
polyline{fill:none;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.raw{stroke-width:1;opacity:.5}.mean{stroke-width:2.2}
.raw:last-of-type{opacity:1;stroke-width:1.6}
.again{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
line.mark{stroke:var(--mark);stroke-width:1.4}
line.mark.retry{stroke:var(--bad);stroke-dasharray:5 4}
text.mark{fill:var(--mark);font-weight:600}
text.mark.retry{fill:var(--bad)}
details{margin:0 0 14px}
summary{cursor:pointer;font-weight:600;margin-bottom:2px;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:600;font-size:12.5px}
td{overflow-wrap:break-word;min-width:64px}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.story td:first-child{color:var(--soft);width:60px}
.story td:nth-child(2){width:42%}
.why{color:var(--soft);font-size:12.5px;max-width:260px;overflow-wrap:anywhere}
.costs{list-style:none;margin:0;padding:0;color:var(--soft);font-size:12.5px}
@media (max-width:600px){body{padding:14px 12px 40px}h1{font-size:22px}
.story td:nth-child(2){min-width:170px}.story td:nth-child(3){min-width:190px}}
@media print{body{max-width:none;padding:0;font-size:11pt;print-color-adjust:exact;
-webkit-print-color-adjust:exact}.scroll{overflow:visible}.lanes,.losses{min-width:0}
details,tr,.chart{break-inside:avoid}h2{break-after:avoid}}
"""
    + _JOBS
)
