"""Findings as one HTML page: no scripts, no files beside it."""

from __future__ import annotations

from tollkeeper.audit.evidence.findings import Findings
from tollkeeper.audit.report.content import document
from tollkeeper.audit.report.figure import draw
from tollkeeper.errors import ConfigurationError

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ page.title }}</title><style>
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --line: #d9dee6; --page: #fff;
  --suspect: #b42318; --control: #175cd3; --reference: #667085; --floor: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf3; --dim: #98a2b3; --line: #344054;
  --page: #12161f; --suspect: #ff8a7a; --control: #84b6ff; --reference: #98a2b3;
  --floor: #e0b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 56rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: .5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.conclusion { font-size: 1.1rem; padding: .75rem 1rem; border-left: 4px solid var(--dim); }
p.derived { border-color: var(--suspect); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--dim); }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: left; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .2rem 1rem; }
dt { color: var(--dim); } dd { margin: 0; }
pre { overflow-x: auto; background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .75rem; }
figure { margin: 1rem 0; } figcaption { color: var(--dim); }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font-size: 11px; }
svg line { stroke: var(--line); } svg .floor { stroke: var(--floor); stroke-dasharray: 5 4; }
svg .suspect { stroke: var(--suspect); fill: var(--suspect); }
svg .control { stroke: var(--control); fill: var(--control); }
svg .reference { stroke: var(--reference); fill: var(--reference); }
</style></head><body>
<h1>{{ page.title }}</h1>
<p class="conclusion {{ page.verdict }}"><strong>{{ page.conclusion }}</strong></p>
{%- for section in page.sections %}
<h2>{{ section.title }}</h2>
{%- for text in section.text %}
<p>{{ text }}</p>
{%- endfor %}
{%- if section.points %}
<ul>{% for point in section.points %}<li>{{ point }}</li>{% endfor %}</ul>
{%- endif %}
{%- if section.facts %}
<dl>{% for name, value in section.facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{%- endif %}
{%- for table in section.tables %}
<div class="wide"><table><caption>{{ table.title }}</caption>
<thead><tr>{% for head in table.heads %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endfor %}
{%- if section.figure %}
<figure><svg viewBox="0 0 {{ figure.width }} {{ figure.height }}" role="img"
 aria-label="{{ caption }}">
<line x1="{{ figure.zero }}" x2="{{ figure.zero }}" y1="0" y2="{{ figure.bottom }}"/>
<line class="floor" x1="{{ figure.floor }}" x2="{{ figure.floor }}" y1="0" y2="{{ figure.bottom }}"/>
{% for mark in figure.marks %}<text x="4" y="{{ mark.y + 4 }}">{{ mark.label }}</text>
<line class="{{ mark.role }}" x1="{{ mark.low }}" x2="{{ mark.high }}" y1="{{ mark.y }}" y2="{{ mark.y }}"/>
<circle class="{{ mark.role }}" cx="{{ mark.at }}" cy="{{ mark.y }}" r="3.5"/>
{% endfor %}
{% for x, text in figure.ticks %}<text x="{{ x }}" y="{{ figure.height - 6 }}" text-anchor="middle">{{ text }}</text>
{% endfor %}</svg><figcaption>{{ caption }}</figcaption></figure>
{%- endif %}
{%- for line in section.commands %}
<pre><code>{{ line }}</code></pre>
{%- endfor %}
{%- endfor %}
</body></html>
"""


def page(found: Findings, *, seal: str) -> str:
    """Return the report as HTML.

    Args:
        found: what was found.
        seal: the hash that stands for the whole bundle.

    Raises:
        ConfigurationError: the audit extra is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "a report needs an extra: pip install 'tollkeeper[audit]'"
        ) from error
    # Names come from the suspect and the owner; whatever they hold is text and no markup.
    made = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    figure = draw(found)
    return made.render(page=document(found, seal=seal), figure=figure, caption=figure.caption)
