"""The style of the page: light, dark and printed."""

# By their names in the style; the pictures are drawn in the light ones.
LIGHT = {
    'paper': '#ffffff',
    'ink': '#1b1f24',
    'faint': '#57606a',
    'rule': '#d5dae0',
    'panel': '#f4f6f8',
    'cell': '37, 99, 171',
    'good': '#1a7f37',
    'part': '#8a6100',
    'bad': '#b3261e',
    'series-0': '#2563ab',
    'series-1': '#c2500a',
    'series-2': '#2a7f3f',
    'series-3': '#8e4ec6',
    'series-4': '#c02a5e',
    'series-5': '#0e7c86',
    'series-6': '#8a6101',
    'series-7': '#5f6b7a',
}
DARK = {
    'paper': '#14171b',
    'ink': '#e6e9ed',
    'faint': '#a3adb8',
    'rule': '#363d46',
    'panel': '#1e2329',
    'cell': '88, 156, 236',
    'good': '#57c272',
    'part': '#e0b34a',
    'bad': '#ff8a80',
    'series-0': '#6cb0f5',
    'series-1': '#f59e5b',
    'series-2': '#66c982',
    'series-3': '#c9a0f5',
    'series-4': '#f58ab0',
    'series-5': '#4fd0d9',
    'series-6': '#dcb84a',
    'series-7': '#a9b4c2',
}
SERIES = 8  # colours for curves


def format_style():
    """Return the style sheet."""
    light, dark = (
        ' '.join(f'--{name}: {value};' for name, value in colors.items())
        for colors in (LIGHT, DARK)
    )
    return (
        f':root {{ color-scheme: light dark; {light} }}\n'
        f'@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{STYLE}'
    )


STYLE = """\
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 72rem; margin: 0 auto; padding: 1rem 1.25rem 3rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; margin: .5rem 0 1rem; }
h2 { font-size: 1.375rem; border-top: 1px solid var(--rule); margin-top: 2.5rem;
     padding-top: 1rem; }
h3 { font-size: 1.0625rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
small, .note { color: var(--faint); font-size: .875rem; }
.verdict { border-left: .3rem solid var(--part); background: var(--panel); padding: .6rem 1rem;
           margin: .75rem 0; max-width: 50rem; }
.verdict b:first-child { color: var(--part); }
.verdict.good { border-color: var(--good); } .verdict.good b:first-child { color: var(--good); }
.verdict.bad { border-color: var(--bad); } .verdict.bad b:first-child { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr);
     gap: .2rem 1.25rem; margin: 1rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.flag { white-space: nowrap; }
code, pre { font: .875em/1.5 ui-monospace, monospace; }
pre { background: var(--panel); padding: .75rem 1rem; white-space: pre-wrap;
      overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--rule); }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
                                 background: var(--paper); padding-left: 0; max-width: 20rem;
                                 white-space: normal; overflow-wrap: anywhere; }
thead th, thead th:first-child { color: var(--faint); white-space: normal;
                                overflow-wrap: normal; }
tr.first > * { border-top: 2px solid var(--faint); }
tr.best > * { font-weight: 600; }
table.matrix td { text-align: center; min-width: 4.5rem;
                  background: rgba(var(--cell), calc(.55 * var(--share))); }
table.matrix thead th { text-align: center; overflow-wrap: anywhere; min-width: 4.5rem; }
table.matrix thead th:first-child { text-align: left; }
table.matrix td:first-child { background: none; }
table.matrix th { vertical-align: middle; }
table.matrix td small { display: block; color: inherit; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0;
          margin: 1rem 0 0; font-size: .875rem; }
.legend svg { width: 1.75rem; height: .75rem; vertical-align: middle; margin-right: .4rem; }
.pictures { display: grid; gap: 1rem 2rem; margin: .75rem 0 1.5rem;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.pictures svg { width: 100%; height: auto; max-width: 34rem; display: block; }
.pictures svg * { stroke-linejoin: round; stroke-linecap: butt; }
.pictures .hidden use { opacity: 0; } .pictures .hidden use:hover { opacity: 1; }
.pictures use:hover { stroke: var(--ink); stroke-width: 3; fill-opacity: 1; stroke-opacity: 1; }
ol.rows { padding-left: 2rem; max-width: 50rem; }
ol.rows li { margin-bottom: .8rem; }
ol.rows p { margin: .1rem 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding: .75rem 1rem 2rem; }
  h1 { font-size: 1.4rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  th, td { padding: .3rem .5rem; }
  th:first-child, td:first-child { max-width: 9rem; }
  td:first-child { min-width: 5.5rem; }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; }
  .wide { overflow: visible; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .verdict, .pictures svg, tr, li { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .verdict, table.matrix td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
