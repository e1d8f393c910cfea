"""Writes jinja.json beside it: what jinja2 renders, for tests/native/jinja.rs.

    pip install jinja2 && TZ=UTC python tests/golden/make_jinja.py

The environment is the one in which transformers renders chat templates. Every line of TABLE is a template of its own, rendered with
VARIABLES; TEMPLATES are whole templates, rendered with every conversation. A case that jinja2 refuses has `error` instead of `text`.
"""

import json
import pathlib
from datetime import datetime

import jinja2
from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent


class Generation(Extension):
    """`{% generation %}`, which prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = lambda format: datetime(2024, 7, 4).strftime(format)

VARIABLES = {
    "s": "Hello, World", "e": "", "u": "é東😀", "pad": "  a b  c \n", "n": 7, "z": 0, "neg": -7, "x": 1.5, "tiny": 1e-7, "big": 1e22, "t": True,
    "f": False, "nothing": None, "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "empty": [], "d": {"k": "v", "z": 1, "a": [1, {"q": None}]},
    "ed": {}, "mixed": [1, 2.0, "x", None, True, [1], {"a": 'it\'s "q"'}], "quotes": "it's \"q\" \\ \n\t\u0001\u200b\x7f",
    "people": [{"name": "Bo", "age": 30, "tags": ["x"]}, {"name": "al", "age": 25}, {"name": "Cy", "age": 30, "tags": []}],
    "html": "<a href=\"x\">&'</a>", "lines": "one\ntwo\n\nthree", "items": {"items": 5, "get": 6},
}

TABLE = r"""
{{ s }}|{{ e }}|{{ u }}|{{ n }}|{{ x }}|{{ tiny }}|{{ big }}|{{ t }}|{{ f }}|{{ nothing }}|{{ undefined_name }}|
{{ l }} {{ d }} {{ mixed }} {{ empty }} {{ ed }} {{ quotes }} {{ [quotes] }} {{ (1,) }} {{ (1, 2) }} {{ () }} {{ [undefined_name] }}
{{ 1.0 }} {{ 100.0 }} {{ 1e15 }} {{ 1e16 }} {{ 1e17 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.23e-10 }} {{ 123456789.123456789 }} {{ -0.0 }} {{ 3.14e2 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-3 }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1 + 2.0 }} {{ 3 * 1.5 }} {{ t + 1 }} {{ t * 3 }} {{ 1 - 2 - 3 }} {{ 2 * 3 + 4 }} {{ 2 + 3 * 4 }} {{ (2 + 3) * 4 }}
{{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [1, 2] * 2 }} {{ 'a' * 0 }} {{ 'a' * -1 }} {{ (1,) * 2 }} {{ [0] * t }}
{{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' ~ 1 ~ none ~ 1.5 ~ t ~ [1] ~ undefined_name }} {{ 1 ~ 2 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1.0 // 0 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ undefined_name + 'a' }}
{{ undefined_name.x }}
{{ undefined_name['x'] }}
{{ undefined_name() }}
{{ nothing.x }}|{{ nothing['x'] }}|{{ d.missing }}|{{ d['missing'] }}|{{ l[10] }}|{{ s.missing }}|{{ n.x }}
{{ d.missing.x }}
{{ nothing() }}
{{ s() }}
{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 < 2 == 2 }} {{ 1 == 1.0 }} {{ t == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ (1,) == [1] }} {{ none == none }} {{ undefined_name == undefined_other }} {{ undefined_name == none }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ d == {'k': 'v', 'z': 1, 'a': [1, {'q': none}]} }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ l == [3, 1, 2] }} {{ l != l }}
{{ 'k' in d }} {{ 'v' in d }} {{ 3 in l }} {{ 'ell' in s }} {{ '' in s }} {{ 'x' not in d }} {{ 1 in (1, 2) }} {{ none in mixed }} {{ 'a' in undefined_name }} {{ 2 in range(3) }}
{{ 1 in s }}
{{ 'a' in n }}
{{ 'a' in none }}
{{ not t }} {{ not e }} {{ not undefined_name }} {{ t and 'x' }} {{ e and 'x' }} {{ e or 'x' }} {{ 0 or none }} {{ t and f or 'z' }} {{ not t or t }} {{ not (t and f) }} {{ not 1 == 2 }}
{{ 'a' if t else 'b' }} {{ 'a' if f }}|{{ 'a' if f else 'b' if f else 'c' }} {{ ('a' if f) is defined }} {{ ('a' if f) ~ 'x' }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ l[::2] }} {{ l[-2:] }} {{ l[5:] }} {{ l[2:0:-1] }} {{ l[:] }} {{ l[None:2] }} {{ l[-100:100] }} {{ l[100:-100:-1] }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ u[1] }} {{ u[::-1] }} {{ u[1:] }} {{ s[7:] }} {{ s[:5] }} {{ (1, 2, 3)[1:] }} {{ range(10)[2:4] | list }} {{ s.0 }} {{ l.1 }}
{{ l[::0] }}
{{ l['a':] }}
{{ d['k'] }} {{ d.k }} {{ d.get('k') }} {{ d.get('q') }} {{ d.get('q', 3) }} {{ d.a[1].q }} {{ d['a'][0] }} {{ d.get('a')[1]['q'] }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | length }} {{ d | length }} {{ d | list }} {{ d | first }} {{ d | items | list }}
{{ items.items() | list }} {{ items['items'] }} {{ items.get('get') }} {{ items['get'] }}
{{ {'a': 1, 2: 'b', none: 3, t: 4, 1.5: 5, (1, 2): 6} }} {{ {1: 'a'}[1.0] }} {{ {1: 'a'}[t] }} {{ {'a': 1, 'a': 2} }}
{{ {[1]: 2} }}
{{ dict(a=1, b='x') }} {{ dict(d, k=2) }} {{ dict([('a', 1), ('b', 2)]) }} {{ dict() }}
{{ range(5) | list }} {{ range(2, 5) | list }} {{ range(5, 0, -2) | list }} {{ range(3) }} {{ range(0) | length }} {{ range(1, 10, 3) }} {{ range(4)[1] }} {{ range(4) | last }}
{{ range(100001) }}
{{ range(1, 2, 0) }}
{{ range('a') }}
{% set ns = namespace(a=1, b='x') %}{% set ns.a = ns.a + 1 %}{% set ns.c = [ns.a] %}{{ ns.a }} {{ ns.b }} {{ ns.c }} {{ ns }} {{ ns.missing }}|{{ ns.missing is defined }}
{% set ns = namespace() %}{% for i in l %}{% set ns.total = (ns.total | default(0)) + i %}{% endfor %}{{ ns.total }}
{% set ns.x = 1 %}
{% set d.x = 1 %}
{% set i = 0 %}{% for x in l %}{% set i = i + 1 %}{{ i }}{% endfor %}{{ i }}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set (c, d) = (3, 4) %}{{ c }}{{ d }} {% set q = 1, 2 %}{{ q }}
{% set a, b = [1] %}
{% set x %}a{{ n }}b{% endset %}{{ x }} {% set y | upper | trim %} a{{ n }}b {% endset %}{{ y }}|
{% if t %}a{% elif f %}b{% else %}c{% endif %}{% if f %}a{% elif t %}b{% endif %}{% if f %}a{% else %}c{% endif %}{% if undefined_name %}x{% endif %}{% if not undefined_name %}y{% endif %}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for i in l %}[{{ loop.previtem }},{{ i }},{{ loop.nextitem }},{{ loop.previtem is defined }},{{ loop.nextitem is defined }}]{% endfor %}
{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }} {% endfor %}
{% for i in empty %}x{% else %}none{% endfor %}{% for i in l if i > 5 %}x{% else %}none{% endfor %}{% for i in undefined_name %}x{% else %}u{% endfor %}
{% for i in l if i != 1 %}{{ i }}{{ loop.index }}{{ loop.last }}{% if not loop.last %},{% endif %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in s[:3] %}<{{ c }}>{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in l %}x{% endfor %}
{% for i in none %}x{% endfor %}
{% for i in n %}x{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }}{{ loop.index }} {% endfor %}{{ loop.index }}{% endfor %}
{% for p in [{'c': [{'c': []}, {'c': [{'c': []}]}]}] recursive %}<{{ loop.depth }}{{ loop(p.c) }}>{% endfor %}
{% for i in 1, 2, 3 %}{{ i }}{% endfor %} {% for i in [1, 2] + [3] %}{{ i }}{% endfor %} {% for i in l | sort %}{{ i }}{% endfor %} {% for i in (l if t else empty) %}{{ i }}{% endfor %}
{% macro m(a, b=2, c=a) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=0) }}{{ m() }}{{ m(a='x') }}{{ m | string | length > 0 }}
{% macro m(a) %}{% if a is defined %}d{% else %}u{% endif %}{{ a }}{{ undefined_name }}{% endmacro %}{{ m() }}{{ m(none) }}{{ m(undefined_name) }}
{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m(1) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro outer(n) %}{% if n > 0 %}{{ n }}{{ outer(n - 1) }}{% endif %}{% endmacro %}{{ outer(4) }}
{% set g = 1 %}{% macro m() %}{{ g }}{{ later }}{% endmacro %}{% set g = 2 %}{% set later = 3 %}{{ m() }}
{% macro m() %}{% set inner = 5 %}{{ inner }}{% endmacro %}{{ m() }}{{ inner }}|
{% macro m(x) %}<{{ caller() }}{{ x }}>{% endmacro %}{% call m(1) %}body{{ n }}{% endcall %}
{% macro m() %}{{ caller(1, 2) }}{{ caller('a', 'b') }}{% endmacro %}{% call(a, b) m() %}[{{ a }}{{ b }}]{% endcall %}
{% macro m() %}{{ caller is defined }}{% if caller %}y{% else %}n{% endif %}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}
{% filter upper %}abc{{ s }}{% endfilter %}{% filter trim | replace('a', 'b') %}  aaa {% endfilter %}
{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}|{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}|
{% block name %}in{{ n }}{% endblock %}{% block other %}x{% endblock other %}
{% raw %}{{ not }} {% if %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  |
a {# comment {{ x }} #} b{#- strip -#}  c
{% print n %}{{ n if n }}
{% generation %}abc{% set inside = 1 %}{% endgeneration %}{{ inside }}|
  {% if t %}  a  {% endif %}  b
{%- if t -%}  a  {%- endif -%}  b
 x  {%+ if t %} y {%+ endif %}
x {{- n -}} y {{ n -}}   z {{- ' ' }}{{ 'a' -}}   b
{{ "a" "b" 'c' }} {{ 'it\'s' }} {{ "\n\t\\ \x41 \u00e9 \U0001F600 \d \101" }} {{ 'a{{b}}c' }} {{ '{%' }} {{ {'a': {'b': 1}} }}
{{ s | upper }} {{ s | lower }} {{ 'hELLO wORLD-foo (bar) x.y' | title }} {{ 'hELLO' | capitalize }} {{ pad | trim }}| {{ 'xxaxx' | trim('x') }} {{ 1 | string }} {{ none | upper }} {{ undefined_name | trim }}|
{{ s | replace('l', 'L') }} {{ s | replace('l', 'L', 1) }} {{ s | replace('', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 123 | replace(2, 'x') }}
{{ s | length }} {{ u | length }} {{ l | length }} {{ d | count }} {{ undefined_name | length }} {{ '' | length }}
{{ none | length }}
{{ 1 | length }}
{{ l | map('string') | length }}
{{ l | first }} {{ l | last }} {{ s | first }} {{ s | last }} {{ empty | first }}|{{ d | last }} {{ l | map('string') | first }} {{ range(5) | first }} {{ empty | first is defined }}
{{ l | map('string') | last }}
{{ l | join }} {{ l | join(', ') }} {{ people | join(', ', attribute='name') }} {{ 'abc' | join('-') }} {{ mixed | join('|') }} {{ undefined_name | join(',') }}| {{ d | join(',') }}
{{ l | sort }} {{ l | sort(reverse=true) }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ people | sort(attribute='age,name') | map(attribute='name') | join }} {{ people | sort(reverse=true, attribute='age') | map(attribute='name') | join }}
{{ mixed | sort }}
{{ u | sort(attribute='age') }} {{ empty | truncate(5) }} {{ n | string | truncate(3, leeway=9) }}
{{ n | string | truncate(1, leeway=9) }}
{{ n | truncate(5) }}
{{ n | indent(2) }}
{{ n[1:] }}
{{ nothing[:2] }}
{{ words | unique | list }} {{ [1, 1.0, t, 2] | unique | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }} {{ words | unique(case_sensitive=true) | list }}
{{ l | min }} {{ l | max }} {{ words | min }} {{ people | max(attribute='age') }} {{ empty | min }}| {{ l | sum }} {{ people | sum(attribute='age') }} {{ l | sum(start=10) }} {{ [1.5, 2] | sum }}
{{ l | reverse | list }} {{ s | reverse }} {{ (1, 2) | reverse | list }} {{ d | reverse | list }}
{{ l | list }} {{ 'abc' | list }} {{ d | list }} {{ undefined_name | list }}
{{ none | list }}
{{ none | map('upper') | list }} {{ none | selectattr('x') | list }} {{ 0 | select | list }}
{{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ l | select('gt', 1) | list }} {{ mixed | select('string') | list }} {{ mixed | select | list }} {{ l | select('in', [1, 3]) | list }}
{{ people | selectattr('tags') | map(attribute='name') | list }} {{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | list }} {{ people | rejectattr('age', 'eq', 30) | map(attribute='name') | list }} {{ people | selectattr('tags', 'defined') | list | length }} {{ people | rejectattr('tags', 'undefined') | list | length }} {{ people | selectattr('name', 'in', ['Bo', 'Cy']) | list | length }}
{{ people | selectattr('age', 'gt', 26) | first }} {{ (people | selectattr('age', 'gt', 99) | list) | length }} {% if people | selectattr('age', 'gt', 99) %}generator is true{% endif %}
{{ people | map(attribute='tags', default='-') | list }} {{ people | map(attribute='tags.0', default='none') | list }} {{ l | map('string') | map('upper') | list }}
{{ words | map('upper') | join(',') }} {{ words | map('replace', 'a', 'z') | list }} {{ [[1, 2], [3]] | map('length') | list }} {{ [[1, 2], [3]] | map('first') | list }} {{ people | map(attribute='name') | map('lower') | join(' ') }} {{ [1.26, 2.5] | map('round', 1) | list }}
{% for age, group in people | groupby('age') %}{{ age }}:{{ group | map(attribute='name') | join(',') }};{% endfor %}{% for g in people | groupby('age') %}{{ g.grouper }}{{ g.list | length }}{{ g[0] }}{% endfor %}
{{ range(5) | batch(2) | list }} {{ range(5) | batch(2, 'x') | list }} {{ range(5) | slice(2) | list }} {{ range(5) | slice(3, 'x') | list }}
{{ d | dictsort }} {{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'A': 2} | dictsort(by='value') }} {{ {'b': 1, 'A': 2} | dictsort(reverse=true) }}
{{ undefined_name | default('x') }} {{ none | default('x') }} {{ none | default('x', true) }} {{ '' | default('x', boolean=true) }} {{ undefined_name | d }}| {{ d.q | default('y') }} {{ 0 | default(5) }} {{ undefined_name | default }}|
{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '4.7' | int }} {{ 4.7 | int }} {{ -4.7 | int }} {{ none | int }} {{ t | int }} {{ ' 7 ' | int }} {{ '0x1f' | int(0, 16) }} {{ 'ff' | int(base=16) }} {{ '1_000' | int }} {{ [] | int(3) }} {{ '' | int }} {{ '-12' | int }} {{ '1e3' | int }}
{{ '4.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ 3 | float }} {{ none | float }} {{ '1e-5' | float }} {{ ' 2 ' | float }} {{ 'inf' | float }} {{ 'nan' | float }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }} {{ 42 | round }} {{ 2.675 | round(2) }} {{ 1234.5 | round(-2) }} {{ 2.5 | round | int }} {{ 0.5 | round }} {{ -2.55 | round(1) }}
{{ -3 | abs }} {{ (-3) | abs }} {{ (-1.5) | abs }} {{ n | abs }} {{ -n | abs }} {{ -neg }} {{ +n }} {{ - -n }}
{{ html | e }} {{ html | escape }} {{ html | safe }} {{ html | striptags }} {{ 1 | e }}
{{ lines | indent }} {{ lines | indent(2) }} {{ lines | indent(2, true) }} {{ lines | indent(2, blank=true) }} {{ lines | indent('> ', true) }} {{ '' | indent(2, true) }}| {{ 'a\n' | indent }}|
{{ s | truncate(5) }} {{ s | truncate(8, true) }} {{ 'a b c d e f g h' | truncate(9, leeway=0) }} {{ s | truncate(9, false, '!', 0) }} {{ 'foo bar baz' | wordcount }} {{ 'a b/c?d=é&' | urlencode }} {{ 'ab' | center(6) }}|
{{ '%s is %d and %.2f, %5s|%-5s|%05d %x %%' | format('a', 3, 1.5, 'r', 'l', 42, 255) }} {{ '%(a)s-%(b)d' | format(a='x', b=2) }}
{{ '%s' % 'a' }} {{ '%s %s' % ('a', 1) }} {{ '%d' % 3.9 }} {{ '%.3f' % 1 }} {{ '%r' % 'a' }} {{ '%s' % [1] }} {{ '%s' % none }} {{ '%(k)s' % d }} {{ '%5.1f|%-8s|%+d|% d|%e|%g|%G' % (3.14159, 'ab', 3, 3, 12345.678, 0.00001234, 1e20) }} {{ '%c%c' % ('a', 98) }} {{ '%i%%' % 50 }} {{ '%#x %X %o' % (255, 255, 8) }} {{ '%*d' % (5, 42) }} {{ '%g %g %g' % (100000.0, 1000000.0, 0.5) }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'a' }}
{{ '%q' % 'a' }}
{{ '{} {} {}'.format(1, 'a', none) }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x}'.format(x=3) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format(1, 'a', 'b', 'c') }} {{ '{:05d} {:.2f} {:,} {:x} {:b} {:e} {:%} {:+d}'.format(42, 3.14159, 1234567, 255, 5, 1234.5, 0.25, 3) }} {{ '{{}} {!r}'.format('a') }} {{ '{0[k]} {0[a][0]}'.format(d) }}
{{ '{} {}'.format(1) }}
{{ 'a' | tojson }} {{ quotes | tojson }} {{ u | tojson }} {{ u | tojson(ensure_ascii=true) }} {{ mixed | tojson }} {{ d | tojson }} {{ html | tojson }} {{ none | tojson }} {{ t | tojson }} {{ 1.0 | tojson }} {{ tiny | tojson }} {{ big | tojson }} {{ 1e-5 | tojson }} {{ 0.1 | tojson }} {{ 123456789012 | tojson }} {{ 1e16 | tojson }} {{ 'nan' | float | tojson }} {{ 'inf' | float | tojson }} {{ quotes | tojson(true) }}
{{ d | tojson(indent=2) }} {{ d | tojson(indent=0) }} {{ empty | tojson(indent=4) }} {{ ed | tojson(indent=4) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(indent=2, separators=(', ', ' : ')) }} {{ d | tojson(sort_keys=true) }} {{ d | tojson(indent='--') }} {{ {1: 2, none: 3, t: 4, 1.5: 5} | tojson }} {{ (1, 2) | tojson }} {{ d | tojson(ensure_ascii=False, indent=none) }} {{ d | tojson(indent=4, sort_keys=true) }} {{ [[], [[]], {}] | tojson(indent=1) }}
{{ undefined_name | tojson }}
{{ {'a': undefined_name} | tojson }}
{{ d.a | tojson }}{{ d.items() | list | tojson }}
{{ namespace() | tojson }}
{{ l | map('string') | tojson }}
{{ s.upper() }} {{ s.lower() }} {{ 'ab cd'.title() }} {{ "they're x-ray".title() }} {{ 'aB'.swapcase() }} {{ 'ABC def'.capitalize() }} {{ 'ß'.upper() }} {{ 'ß'.casefold() }}
{{ pad.strip() }}|{{ pad.lstrip() }}|{{ pad.rstrip() }}|{{ 'xyaxy'.strip('xy') }}|{{ 'xxa'.lstrip('x') }}|{{ 'axx'.rstrip('x') }}|{{ '\u00a0a\u3000'.strip() }}|{{ pad.strip(none) }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.split(none, 1) }} {{ ' a b  c '.rsplit(maxsplit=1) }} {{ 'abc'.split('x') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a,b,c'.split(',', maxsplit=1) }} {{ 'a<sep>b'.split('<sep>')[-1] }} {{ 'a b c'.split(' ', 0) }} {{ 'a b'.split(none, 0) }}
{{ 'a'.split('') }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }}
{{ 'foobar'.removeprefix('foo') }} {{ 'foobar'.removesuffix('bar') }} {{ 'foobar'.removeprefix('x') }} {{ 'foobar'.removesuffix('') }}
{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith(('x', 'y')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.startswith('') }} {{ 'abc'.endswith('b', 0, 2) }}
{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('x') }} {{ 'abcabc'.find('c', 3) }} {{ 'abc'.index('b') }} {{ 'abcabc'.count('a') }} {{ 'a'.count('') }} {{ 'aaa'.count('aa') }} {{ u.find('😀') }} {{ 'abcabc'.count('a', 1) }} {{ 'abc'.find('') }} {{ 'abc'.rfind('a', -2) }}
{{ 'abc'.index('x') }}
{{ 'abc'.replace('b', 'X') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ 'abc'.replace('', '-', 2) }} {{ ''.replace('', 'x') }}
{{ ', '.join(['a', 'b']) }} {{ ''.join('abc') }} {{ '-'.join(d) }} {{ ', '.join(l | map('string')) }}
{{ ', '.join([1]) }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ 'a\nb'.splitlines(true) }} {{ ''.splitlines() }}
{{ 'a'.center(5) }}|{{ 'a'.center(4) }}|{{ 'ab'.center(5, '*') }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '0') }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'a\tb'.expandtabs(4) }}
{{ '12'.isdigit() }} {{ '1a'.isdigit() }} {{ ''.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ 'A1'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ '1.5'.isnumeric() }} {{ 'é'.isascii() }} {{ '12'.isdecimal() }} {{ 'a\n'.isprintable() }}
{{ l.index(1) }} {{ l.count(3) }} {{ (1, 2).index(2) }} {{ d.copy() }} {{ x.is_integer() }} {{ n.bit_length() }}
{{ l.append(1) }}
{{ d.update({'a': 1}) }}
{{ l.pop() }}
{{ l.sort() }}
{{ undefined_name | int }}
{{ undefined_name | float }}
{{ n is number }}{{ x is number }}{{ t is number }}{{ s is number }}{{ n is integer }}{{ t is integer }}{{ x is integer }}{{ x is float }}{{ n is float }}{{ t is boolean }}{{ n is boolean }}{{ t is true }}{{ f is false }}{{ 1 is true }}
{{ s is string }}{{ n is string }}{{ l is string }}{{ l is sequence }}{{ s is sequence }}{{ d is sequence }}{{ n is sequence }}{{ d is mapping }}{{ l is mapping }}{{ l is iterable }}{{ s is iterable }}{{ n is iterable }}{{ d is iterable }}{{ none is iterable }}{{ undefined_name is iterable }}{{ (1, 2) is sequence }}{{ l | map('string') is iterable }}{{ range(3) is sequence }}
{{ none is none }}{{ undefined_name is none }}{{ 0 is none }}{{ s is defined }}{{ undefined_name is defined }}{{ undefined_name is undefined }}{{ d.k is defined }}{{ d.q is defined }}{{ d.q is not defined }}{{ none is defined }}{{ l[9] is defined }}{{ d.a[1].q is none }}{{ nothing.q is defined }}
{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is eq 1 }}{{ 1 is ne 2 }}{{ 1 is lt(2) }}{{ 1 is ge 1 }}{{ 'a' is in ['a'] }}{{ 'a' is equalto 'a' }}{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ none is sameas none }}{{ 1 is sameas true }}{{ raise_exception is callable }}{{ s is callable }}
{{ 1 is divisibleby(0) }}
{{ x is defined and x is string }} {{ x is not none and x }} {{ not x is string }} {{ x is string or n is number }} {{ 'yes' if x is defined else 'no' }} {{ 1 if n is odd and n > 3 else 2 }} {{ n is odd == true }}
{{ 1 is nosuchtest }}
{{ 1 | nosuchfilter }}
{{ s | upper | lower | title }} {{ (s | length) + 1 }} {{ s | length + 1 }} {{ -1 | abs }} {{ 'a' ~ 'b' | upper }} {{ ('a' ~ 'b') | upper }} {{ l | join(',') | length }} {{ (l | map('string') | list)[0] }} {{ s.split(',')[0].lower() | upper }} {{ l | length == 3 }} {{ 'A' | lower == 'a' }}
{{ cycler('a', 'b').next() }}{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ raise_exception('no ' ~ n) }}
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%B %d, %Y') }} {{ strftime_now is defined }}
{{ m(*[1, 2]) if m is defined else 'no' }}{% macro q(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ q(*l[:2]) }}{{ q(**{'a': 1, 'b': 2}) }}{{ q(1, **{'b': 3}) }}
{{ 'a' if }}
{{ 1 +
{% if t %}
{% endif %}
{% for %}{% endfor %}
{% nosuchtag %}
{{ (1 }}
{{ [1, 2 }}
{{ 'abc }}
{# open
{% raw %}abc
{{ 1 is is 2 }}
{{ a b }}
{{ 1 2 }}
{% set true = 1 %}
{% set x = 5 if t else 6 %}{{ x }}{% set y = t, f %}{{ y }}{% set z = 'a' 'b' %}{{ z }}
{{ {'a': 1,} }} {{ [1, 2,] }} {{ (1, 2,) }} {{ dict(a=1,) }} {{ 1, }} {{ 1, 2 }}
{{ l[0] if l else none }} {{ d['k'] | upper ~ '!' }} {{ people[0]['name'] }} {{ people[-1].name }} {{ people[1:] | map(attribute='name') | list }} {{ (people | first).name }} {{ people | map(attribute='age') | list | max }}
{{ none.foo.bar }}
{{ l.foo.bar }}
{{ -s }}
{{ ''.join(['a']) ~ none }}
{{ d.a.0 }} {{ d.a[0] }} {{ d['a'].1.q }} {{ s[n] }} {{ l[z] }} {{ l[t] }}
{{ l | attr('x') }}| {{ 'abc' | attr('upper') is callable }} {{ d | attr('k') }}|
{{ 1 if undefined_name is not defined else undefined_name.x }} {{ undefined_name or 'fallback' }} {{ undefined_name and undefined_name.x }}|
{%- set ns = namespace(found=false) -%}{%- for p in people -%}{%- if p.age == 25 -%}{%- set ns.found = true -%}{%- endif -%}{%- endfor -%}{{ ns.found }}
{% if 'tags' in people[0] and people[0].tags %}y{% endif %}{% if people[1].tags is not defined or not people[1].tags %}z{% endif %}{% if people[0]['tags'] is iterable and people[0]['tags'] is not string %}w{% endif %}
{{ ('%02d' % 5) ~ ('%s' | format(1)) }} {{ '%s=%s' % ('a', {'b': 1}) }}
{{ 9007199254740993 }} {{ 2 ** 62 }} {{ 10 ** 18 }} {{ 1e300 * 10 }} {{ 12345678901234567890 }}
{{ (n, s) | tojson }} {{ [n, s] | string }} {{ {'a': (1,)} | string }} {{ none | string }} {{ [none, t, 1.0] | join(' ') }}
{% set ns = namespace(a=1, k='v') %}{{ ns['a'] }}{{ ns['k'] }}{{ ns['q'] }}|{{ ns['q'] is defined }}{{ ns | attr('a') }}{{ [ns] | map(attribute='a') | list }}{% set ns.b = 2 %}{{ ns['b'] }}
{% for i in l %}{{ loop['index'] }}{{ loop['last'] }}{% endfor %}{% for g in people | groupby('age') %}{{ g['grouper'] }}{{ g['list'] | length }}{% endfor %}{{ s['upper']() }}{{ l['count'](1) }}
{% set c = cycler('a', 'b') %}{{ c.current }}{{ c.next() }}{{ c.current }}{{ c['current'] }}{{ c.reset() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.current }}
{{ cycler() }}
{{ 0 | filesizeformat }}|{{ 1 | filesizeformat }}|{{ 999 | filesizeformat }}|{{ 1000 | filesizeformat }}|{{ 1023.9 | filesizeformat(true) }}|{{ 1024 | filesizeformat(binary=true) }}|{{ 1234567 | filesizeformat }}|{{ 1500000000 | filesizeformat }}|{{ (10 ** 27) | filesizeformat }}|{{ (2 ** 90) | filesizeformat(true) }}|{{ 1e30 | filesizeformat(true) }}|{{ '2048' | filesizeformat }}|{{ -5.5 | filesizeformat }}|{{ t | filesizeformat }}|{{ 999950 | filesizeformat }}
{{ 'x' | filesizeformat }}
{{ undefined_name | filesizeformat }}
{{ none | filesizeformat }}
{{ {'a': 'b', 'c': none, 'd': undefined_name, 'e': 1, 'f': '<"&>'} | xmlattr }}|{{ {'a': 'b'} | xmlattr(false) }}|{{ {} | xmlattr }}|{{ {'a': none} | xmlattr }}|{{ {'a': 1, 'b': 2} | xmlattr(autospace=false) }}|{{ {'é': [2], '<': 't'} | xmlattr }}
{{ {'a b': 1} | xmlattr }}
{{ {1: 2} | xmlattr }}
{{ {'a=': 1} | xmlattr }}
{{ {'a/': none} | xmlattr }}
{{ l | xmlattr }}
{{ 'a b/é?' | urlencode }} {{ {'a': 1, 'b c': 'x y/z', 'd': none} | urlencode }} {{ [('k', 'v'), ('é', '&=')] | urlencode }} {{ d.items() | urlencode }} {{ 5 | urlencode }} {{ none | urlencode }} {{ ed | urlencode }} {{ ['ab'] | urlencode }} {{ undefined_name | urlencode }}|
{{ [1] | urlencode }}
{{ ['abc'] | urlencode }}
{{ 'upper' is filter }}{{ 'no' is filter }}{{ 'random' is filter }}{{ 'odd' is test }}{{ 'no' is test }}{{ '==' is test }}{{ 'filter' is test }}{{ 'test' is filter }}{{ 1 is filter }}{{ none is test }}{{ 'urlize' is filter }}{{ 'tojson' is filter }}{{ 'items' is filter }}{{ '' is filter }}
{{ l is filter }}
{{ undefined_name is test }}
{{ 'aaa bbb ccc ddd' | wordwrap(7) }}|{{ 'aaaaaaaaaa bb' | wordwrap(4) }}|{{ 'aaaaaaaaaa bb' | wordwrap(4, false) }}|{{ 'a b c' | wordwrap(1, wrapstring='<br>') }}|{{ lines | wordwrap(3) }}|{{ 'well-known self-made e-mail x-y' | wordwrap(6) }}|{{ 'well-known self-made' | wordwrap(6, break_on_hyphens=false) }}|{{ e | wordwrap }}|{{ s | wordwrap }}
{{ 'one--two three -- four (five) --six a-b-c-d 12-34 ab-12' | wordwrap(5) }}|{{ 'a    b     c' | wordwrap(3) }}|{{ '   lead and trail   ' | wordwrap(8) }}|{{ ('x' * 30) | wordwrap(7) }}|{{ ('ab-' * 12) | wordwrap(7) }}|{{ '-----' | wordwrap(2) }}|{{ u | wordwrap(1) }}|{{ 'tab\tand  space\u00a0none' | wordwrap(6) }}|{{ 'a\n\n b' | wordwrap(5) }}|{{ 'foo-bar-baz--qux!' | wordwrap(4) }}|{{ 'aa ' | wordwrap(2) }}|{{ ' ' | wordwrap(2) }}|
{{ 'a' | wordwrap(0) }}
{{ n | wordwrap }}
{{ 'x' | pprint }} {{ d | pprint }} {{ {'b': 1, 'a': {'d': 1, 'c': 2}} | pprint }} {{ [{'b': 1, 'a': 2}] | pprint }} {{ n | pprint }} {{ none | pprint }} {{ (1,) | pprint }} {{ mixed | pprint }} {{ {3: 1, 1: 2} | pprint }} {{ e | pprint }}
{{ people | pprint }}
{{ {'long': ['a' * 30, 'b' * 30, 'c' * 30], 'also': {'k' * 20: 'v' * 40, 'm' * 20: ('t' * 50, 'u' * 40), 'z': ['y' * 79]}} | pprint }}
{{ ('word ' * 40) | pprint }}
{{ ('a' * 100) | pprint }}
{{ ['one\ntwo\n' + 'three ' * 20, ('x' * 90,)] | pprint }}
{{ {'key': 'some words that are many enough to be broken into lines by the pretty printer\nand more', 'other': 1} | pprint }}
{{ 'see http://a.com/x?y=1#z, (https://b.org) and <www.c.net/p_(q)>. d.com e.xyz foo@bar.com mailto:a@b.co @x@y.z http://127.0.0.1:80/ http://[::1]/ http://localhost https://x.y.z:99999/ a.b.c.gov:8 x@y ftp://q.com' | urlize }}
{{ 'http://a.com/a/long/path' | urlize(10) }} {{ 'http://a.com' | urlize(nofollow=true) }} {{ 'http://a.com' | urlize(none, false, '_blank', 'me') }} {{ 'irc://x git+ssh:y tel:1 tel:' | urlize(extra_schemes=['irc://', 'tel:']) }} {{ html | urlize }} {{ 5 | urlize }} {{ 'HTTP://A.COM Www.x.de  a.info/é http://xn--p1ai. http://-.com' | urlize }} {{ pad | urlize }}|
{{ 'x' | urlize(extra_schemes=['a']) }}
{{ strftime_now('%G-%V %g %s %k %l %P %r %-V|%u') }}
{{ l is eq [3, 1, 2] }} {{ l | length is eq 3 }} {{ (l | length) is odd }} {{ [] is sequence }} {{ '' is defined }} {{ [1, 2] | length > 1 and t }}
""".strip("\n").split("\n")
# Cases of several lines.
TABLE = [*TABLE, *(text.strip("\n") + "\n" for text in [
    """
{% for m in people %}
    {% if m.age > 26 %}
- {{ m.name }}
    {% endif %}
{% endfor %}
end
""",
    """
  {%- for m in people -%}
    {{ m.name }}
  {%- endfor %}

tail  {# c #}
  {# c #}
x
""",
    """
{% set text %}
line {{ n }}
  {% if t %}
  inner
  {% endif %}
{% endset %}
[{{ text }}]
""",
    """
{% macro render(value, depth=0) %}
{% if value is mapping %}
{%- for k, v in value.items() %}
{{ '  ' * depth }}{{ k }}:{{ render(v, depth + 1) }}
{%- endfor %}
{% elif value is iterable and value is not string %}
{%- for v in value %}
{{ '  ' * depth }}-{{ render(v, depth + 1) }}
{%- endfor %}
{% else %} {{ value }}{% endif %}
{% endmacro %}
{{ render(d) }}
""",
    "a\r\nb{% if t %}\r\nc\r\n{% endif %}\r\nd\re\n\n",
    "{% if t %}\n\n  x\n{% endif %}\n\n",
    "x\n   {#- c -#}\n  y\n  {#+ c +#}\n z",
    "{{ n }}\n{{ n }}\n  {{ n }}  \n{%- if t +%}\n q {% endif +%}\n r",
    "{% raw %}\n {{ a }}\n{% endraw %}\nx\n  {% raw %}y{% endraw %}\n",
])]

CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
LISTED = """{% for m in messages %}
{% if m.content is string %}{% set parts = [{'type': 'text', 'text': m.content}] %}{% else %}{% set parts = m.content or [] %}{% endif %}
<|{{ m['role'] }}|>{% for part in parts %}{% if part.type == 'text' %}{{ part['text'] | trim }}{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}{{ eos_token if m.role == 'assistant' }}

{% if not loop.last and loop.nextitem.role == m.role %}[same]{% endif %}
{% endfor %}
{{ '<|assistant|>' if add_generation_prompt and messages[-1].role != 'assistant' }}"""
TEMPLATES = {"chatml": CHATML, "listed": LISTED}

USER = {"role": "user", "content": " What is \"2 + 2\"? \n"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <two> numbers & \"more\"", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer", "description": " first "}, "b": {"type": ["number", "null"]},
                                     "o": {"type": "object", "additionalProperties": {"type": "string"}}}, "required": ["a"]}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 0.00001, "é": None}}}]}
CONVERSATIONS = [
    {"messages": [USER]},
    {"messages": [USER, {"role": "assistant", "content": "4\n"}]},
    {"messages": [{"role": "system", "content": "Be brief. "}, USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}, USER]},
    {"messages": [USER, {"role": "assistant", "content": "4", "reasoning_content": "easy"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}]}]},
    {"messages": [USER, CALL, {"role": "tool", "content": "4.0", "tool_call_id": "abcdefghi"}, {"role": "assistant", "content": "It is 4."}], "tools": TOOLS},
    {"messages": [{"role": "system", "content": "S"}, USER, USER], "tools": TOOLS},
    {"messages": [USER, {"role": "assistant", "content": None}], "tools": None},
]


def case(name, template, variables):
    try:
        return {"name": name, "template": template, "variables": variables, "text": ENV.from_string(template).render(**variables)}
    except Exception as e:
        return {"name": name, "template": template, "variables": variables, "error": f"{type(e).__name__}: {e}"}


table = [{k: v for k, v in case("", line, VARIABLES).items() if k in ("template", "text", "error")} for line in TABLE]
chats = []
for name, template in TEMPLATES.items():
    for i, conversation in enumerate(CONVERSATIONS):
        variables = {"documents": None, "tools": None, **conversation, "add_generation_prompt": i % 2 == 0, "bos_token": "<s>", "eos_token": "</s>"}
        made = case(name, template, variables)
        chats.append({"template": name, "conversation": i, **{k: v for k, v in made.items() if k in ("text", "error")}})
golden = {"variables": VARIABLES, "table": table, "templates": TEMPLATES, "conversations": CONVERSATIONS, "chats": chats}
if __name__ == "__main__":
    (HERE / "jinja.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0).replace("\u200b", "\\u200b") + "\n")
