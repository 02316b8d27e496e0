"""The style of the report's page, light and dark, from a phone's width on.

Pure. Nothing is loaded: fonts are those of the reader's machine.
"""

from __future__ import annotations

from typing import Final

from plantao.report.chart import heat_map, style, volume

# What the codes of the pictures become in the dark; in the light they stay.
DARK: Final = {
    style.INK: "#e8ecf1", style.MUTED: "#a3adba", style.GRID: "#323b47", style.PAPER: "#151a21",
    style.BLUE: "#4aa8e0", style.PURPLE: "#d58fd0", style.GREY: "#76808d", style.BAND: "#1f3a50",
    style.ALERT: "#4a2c17", style.VERMILION: "#f08a4b", style.ORANGE: "#f0b429", volume.SCORED: "#3f7fa8",
    heat_map.UNJUDGED: "#67717e",
    **dict(zip((colour for _, _, colour in heat_map.STEPS),
               ("#1d242d", "#2c3744", "#7a4b1c", "#b95c22", "#ef7a45", "#ffc3a8"), strict=True)),
}  # fmt: skip


def _swapped() -> str:
    lines = []
    for light, dark in DARK.items():
        lines += [f'svg [fill="{light}"]{{fill:{dark}}}', f'svg [stroke="{light}"]{{stroke:{dark}}}']
    return "".join(lines)


CSS: Final = f"""
:root{{color-scheme:light dark;--ink:{style.INK};--muted:{style.MUTED};--paper:{style.PAPER};--ground:#f4f6f8;
--line:{style.GRID};--fine:#00634a;--fineb:#dff3ec;--watch:#7a5200;--watchb:#fdf0d0;--bad:#a33c00;--badb:#fbe3d3;
--none:#444c57;--noneb:#e5e7eb}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Liberation Sans",Arial,sans-serif;overflow-wrap:break-word}}
main{{max-width:1180px;margin:0 auto;padding:20px 16px 40px}}
header p{{margin:0;color:var(--muted)}}
h1{{font-size:24px;line-height:1.25;margin:0 0 4px}} h2{{font-size:18px;margin:0 0 8px}}
h3{{font-size:15px;margin:12px 0 4px}}
section{{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin-top:16px}}
section>p.note{{color:var(--muted);font-size:13px;margin:0 0 10px;max-width:115ch}}
.state{{border-left:8px solid var(--none)}} .state h2{{font-size:22px;margin:0 0 4px}}
.state p{{margin:0;max-width:115ch}}
.state.fine{{border-color:#009e73}} .state.watch{{border-color:{style.ORANGE}}}
.state.degraded,.state.broken{{border-color:{style.VERMILION}}}
section.picture{{padding:8px 8px 6px}} figure{{margin:0}} figure svg{{display:block;height:auto;max-width:100%}}
.narrow{{display:none}} .narrow svg{{width:100%;max-width:460px}}
.grid{{display:grid;grid-template-columns:1fr 1fr;gap:16px;margin-top:16px}} .grid section{{margin:0;min-width:0}}
table{{border-collapse:collapse;width:100%;font-size:14px}}
th,td{{text-align:right;padding:6px 8px;border-bottom:1px solid var(--line);vertical-align:top;
font-variant-numeric:tabular-nums}}
thead th{{color:var(--muted);font-weight:600;font-size:12.5px;vertical-align:bottom}}
th:first-child{{text-align:left}} tbody th{{font-weight:600}} tbody tr:last-child>*{{border-bottom:0}}
td{{white-space:nowrap}} td small{{display:block;white-space:normal;color:var(--muted);font-size:12px}}
.beyond{{color:var(--bad)}}
.badge{{display:inline-block;border-radius:999px;padding:0 9px;font-size:12.5px;font-weight:600;color:var(--none);
background:var(--noneb);white-space:nowrap}}
.badge.ok,.badge.improved,.badge.fine{{color:var(--fine);background:var(--fineb)}}
.badge.watch,.badge.drifting,.badge.provisional{{color:var(--watch);background:var(--watchb)}}
.badge.degraded,.badge.broken,.badge.failed{{color:var(--bad);background:var(--badb)}}
ul.incidents{{list-style:none;margin:0;padding:0}} ul.incidents li{{padding:8px 0;border-bottom:1px solid var(--line)}}
ul.incidents li:last-child{{border-bottom:0}} ul.incidents p{{margin:2px 0 0}} li small{{color:var(--muted)}}
footer{{color:var(--muted);font-size:13px;margin-top:20px}} footer ul{{padding-left:18px;margin:6px 0}}
footer h2{{font-size:15px;color:var(--ink)}}
@media(max-width:760px){{
.wide{{display:none}} .narrow{{display:block}} .grid{{grid-template-columns:1fr}}
main{{padding:14px 10px 30px}} section{{padding:12px 12px}} section.picture{{padding:6px 2px}} h1{{font-size:21px}}
thead{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
table,tbody,tr,td,tbody th{{display:block;width:100%}}
tr{{border-bottom:1px solid var(--line);padding:6px 0}} tbody tr:last-child{{border-bottom:0}}
tbody th,td{{border:0;padding:1px 0;
white-space:normal;line-height:1.4}}
td.nothing{{display:none}}
td:not(.nothing){{display:flex;justify-content:space-between;gap:14px;text-align:right}}
td::before{{content:attr(data-label);color:var(--muted);text-align:left;flex:0 0 auto;max-width:55%}}
}}
@media(prefers-color-scheme:dark){{
:root{{--ink:#e8ecf1;--muted:#a3adba;--paper:#151a21;--ground:#0d1116;--line:#323b47;--fine:#6fdcb8;--fineb:#0e3a2d;
--watch:#f5cd74;--watchb:#42330c;--bad:#ffab7d;--badb:#4a2410;--none:#c3cad3;--noneb:#323b47}}
{_swapped()}
}}
@media print{{body{{background:#fff}} section{{break-inside:avoid}}}}
"""
