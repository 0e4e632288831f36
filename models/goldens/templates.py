"""Makes `templates.json`: chat templates of our own with what transformers renders from them.

    .deps/python/bin/python models/goldens/templates.py

Each case is {name, template, messages, context, expected | expected_error}. `context` holds the template's other
variables; one that is absent is undefined, except `tools`, `documents` (none) and `add_generation_prompt` (false),
which transformers always defines. `expected_error` is the text given to `raise_exception`. `strftime_now` gives the
time at the file's `now`, which has no zone.
"""

import json
import platform
from datetime import datetime
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
COMMAND = ".deps/python/bin/python models/goldens/templates.py"
NOW = datetime(2025, 3, 4, 5, 6, 7)

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello!"}
HI = {"role": "assistant", "content": "Hi, how can I help?"}
SUM = {"role": "user", "content": "  What is 2 + 3?\n"}
CHAT = [SYSTEM, HELLO, HI, SUM]

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'Says how warm it is in "<city>" & around, e.g. Köln or 東京.',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}

CASES: list[dict] = []


def case(name: str, template: str, messages: list[dict] | None = None, **context) -> None:
    if messages is None:
        messages = CHAT
    CASES.append({"name": name, "template": template, "messages": messages, "context": context})


# --- Turns, special tokens, the generation prompt ---------------------------------------------------------------------

TURNS = """\
{{ bos_token }}
{%- for message in messages %}
    {{- '[' + message['role'] + ']' + message['content'] + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[assistant]' }}
{%- endif %}
"""
case("turns", TURNS, bos_token="<s>", eos_token="</s>")
case("turns with a generation prompt", TURNS, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
case("turns of an empty chat", TURNS, messages=[], bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
case(
    "content that looks like a template is not one",
    TURNS,
    messages=[{"role": "user", "content": "{{ 1 + 1 }} {% if %} {# # }"}],
    bos_token="<s>",
    eos_token="</s>",
)
case(
    "content beyond ascii and html are not escaped",
    TURNS,
    messages=[{"role": "user", "content": "a < b && \"c\" > 'd' é 東京 🦊\u2028"}],
    bos_token="",
    eos_token="",
)
case("an undefined variable prints as nothing", "[{{ bos_token }}][{{ messages[0].name }}]")
case("an undefined variable is false", "{{ 'yes' if enable_thinking else 'no' }}")
case(
    "is defined",
    "{% if enable_thinking is defined and enable_thinking is false %}off{% else %}on{% endif %}",
    enable_thinking=False,
)
case(
    "is not defined",
    "{{ 'unset' if enable_thinking is not defined else 'set' }} {{ tools is none }} {{ add_generation_prompt }}",
)
case("the default filter", "{{ name | default('nobody') }} {{ '' | default('empty', true) }}")

# --- Errors -----------------------------------------------------------------------------------------------------------

ALTERNATE = """\
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('turns must alternate, starting with the user') }}
    {%- endif %}
    {{- message['role'][0] ~ loop.index ~ ' ' }}
{%- endfor %}
"""
case("raise_exception is not reached", ALTERNATE, messages=[HELLO, HI, SUM])
case("raise_exception", ALTERNATE, messages=[HELLO, SUM])
case(
    "raise_exception with a built message",
    "{% for m in messages %}{% if m.role not in ['user'] %}"
    "{{ raise_exception('no role ' + m.role + ' here') }}"
    "{% endif %}{% endfor %}",
)

# --- Whitespace -------------------------------------------------------------------------------------------------------

case(
    "trim_blocks and lstrip_blocks",
    """\
begin
    {% if add_generation_prompt %}
  kept
    {% endif %}
    {# a comment #}
  {{ 'expression lines keep their spaces' }}
{% for message in messages %}
    {% set role = message.role %}
  - {{ role }}
{% endfor %}

end
""",
    add_generation_prompt=True,
)
case(
    "minus and plus signs",
    "a \n {%- if true -%} \n b \n {%- endif %} \n c\n  {%+ if true +%}\n d{% endif %}\n\n\n e \n",
)
case("a final newline is dropped once", "x\n\n")

# --- Control flow -----------------------------------------------------------------------------------------------------

case(
    "continue and break",
    """\
{%- for message in messages -%}
    {%- if message.role == 'system' %}{% continue %}{% endif -%}
    {%- if loop.index > 3 %}{% break %}{% endif -%}
    {{ loop.index }}:{{ message.content }};
{%- endfor -%}
""",
)
case(
    "loop variables",
    "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} {{ loop.revindex }} "
    "{{ loop.previtem.role if not loop.first }}>{{ loop.nextitem.role if not loop.last }}\n{% endfor %}",
)
case(
    "loop with a filter and an else",
    "{% for m in messages if m.role == 'tool' %}{{ m.content }}{% else %}no tool{% endfor %}",
)
case(
    "namespace survives a loop and set does not",
    """\
{%- set ns = namespace(n_users=0, last='') -%}
{%- set plain = 0 -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {%- set ns.n_users = ns.n_users + 1 -%}
        {%- set ns.last = message.content | trim -%}
        {%- set plain = plain + 1 -%}
    {%- endif -%}
{%- endfor -%}
{{ ns.n_users }} {{ ns.last }} {{ plain }}""",
)
case(
    "macro with defaults and set blocks",
    """\
{%- macro turn(role, content, end='\\n') -%}
<{{ role }}>{{ content | trim }}</{{ role }}>{{ end }}
{%- endmacro -%}
{%- set head -%}
    [{{ messages | length }} messages]
{%- endset -%}
{{ head }}{{ turn('user', messages[1].content) }}{{ turn(role='assistant', content=messages[2].content, end='.') }}""",
)
case(
    "generation blocks",
    """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
<a>{% generation %}{{ message.content }}</a>{% endgeneration %}
    {%- else %}
<u>{{ message.content }}</u>
    {%- endif %}
{%- endfor %}
""",
)
case(
    "ranges",
    "{% for i in range(3) %}{{ i }}{% endfor %} "
    "{% for i in range(messages | length - 1, -1, -1) %}{{ messages[i].role[0] }}{% endfor %}",
)

# --- Strings and lists ------------------------------------------------------------------------------------------------

case(
    "string methods",
    """\
{%- set text = '  <think>why</think>  Because it is so.  ' -%}
[{{ text.strip() }}] [{{ text.lstrip() }}] [{{ text.rstrip() }}] [{{ text.split('</think>')[-1].strip() }}]
{{- ' ' ~ text.strip().startswith('<think>') ~ ' ' ~ text.endswith('so.') }} [{{ '--a-b--'.strip('-') }}]
{{- ' ' ~ 'a,b,,c'.split(',') | join('|') }} {{ 'one  two three'.split() | length }} {{ 'a-b-c'.split('-', 1)[1] }}
{{- ' ' ~ 'Abc'.upper() ~ 'Abc'.lower() ~ 'ab cd'.title() ~ 'abc'.capitalize() }} {{ 'aXbX'.replace('X', '\\n') }}
{{- ' ' ~ 'abcabc'.find('ca') ~ ' ' ~ 'abc'.count('b') }} {{ '\\n\\nx\\n'.strip('\\n') }}
{{- ' ' ~ ('x'.rstrip() in 'xyz') }}""",
)
case(
    "slices and indices",
    "{% for m in messages[1:] %}{{ m.role[0] }}{% endfor %} {{ messages[-1]['role'] }} {{ messages[:-1] | length }} "
    "{{ messages[::-1][0].role }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::-1] }}",
)
case(
    "a system message is split off",
    """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set system, rest = messages[0]['content'], messages[1:] -%}
{%- else -%}
    {%- set system, rest = 'Default.', messages -%}
{%- endif -%}
<<{{ system }}>>
{%- for message in rest -%}
    {{ '\\n' + message['content'] | trim }}
{%- endfor -%}""",
)
case(
    "filters",
    "{{ messages | map(attribute='role') | join(',') }} "
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list | first }} "
    "{{ [3, 1, 2] | sort | join }} {{ (messages | last).role | upper }} {{ ['a', 'b', 'a'] | unique | join }} "
    "{{ 'abc' | length }} {{ '7' | int + 1 }}",
)
case(
    "tests of types",
    "{% for x in ['s', 1, 1.5, true, none, [1], {'k': 1}] %}{{ x is string }},{{ x is iterable }},{{ x is mapping }},"
    "{{ x is sequence }},{{ x is number }},{{ x is boolean }},{{ x is none }};{% endfor %}",
)
case(
    "how values print",
    "{{ true }} {{ none }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ [1, 'a', none, true] }} {{ {'k': 'v'} }}",
)
case("concatenation", "{{ 'a' ~ 1 ~ true }} {{ 'a' + 'b' * 3 }} {{ '%s-%d' % ('x', 3) }} {{ [1] + [2] }}")
case(
    "items of a mapping",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}"
    "{{ d.get('zz', 'none') }} {{ d | items | list | length }} {{ 'b' in d }}",
    d={"b": 1, "a": 2},
)
case("dictsort", "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}", d={"b": 1, "a": 2, "C": 3})

# --- JSON, dates, tools, parts ----------------------------------------------------------------------------------------

MIXED = {"z": 1, "a": [1.0, 0.1, -2, 1e20, True, None, "é<&>'\"\\\n\u007f🦊"], "empty": {}, "none": []}
case("tojson", "{{ value | tojson }}", value=MIXED)
case("tojson with an indent", "{{ value | tojson(indent=4) }}\n{{ value | tojson(indent=2) }}", value=MIXED)
case("tojson with sorted keys and ascii only", "{{ value | tojson(sort_keys=true, ensure_ascii=true) }}", value=MIXED)
case("tojson with separators", "{{ value | tojson(separators=(',', ':')) }}", value=MIXED)
case("tojson of a string and in a string", "{{ 'say \"hi\"' | tojson }} {{ '[' ~ [1, 2] | tojson ~ ']' }}")
case(
    "strftime_now",
    "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%A, %B %d') }}",
)
case(
    "strftime_now with a fallback",
    "{% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}{% else %}unknown{% endif %}",
)

TOOLS = """\
{%- if tools %}
    {{- 'You may call:\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + '\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- for tool_call in message.tool_calls %}
            {%- set call = tool_call.function if tool_call.function is defined else tool_call %}
            {%- set arguments = call.arguments if call.arguments is string else call.arguments | tojson %}
            {{- '<call>' ~ call.name ~ ' ' ~ arguments ~ '</call>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {{- '<result>' ~ message.content ~ '</result>' }}
    {%- else %}
        {{- '<' ~ message.role ~ '>' ~ message.content }}
    {%- endif %}
{%- endfor %}"""
CALLS = [
    {"role": "user", "content": "How warm is Köln?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}},
            {"type": "function", "function": {"name": "weather", "arguments": '{"city": "東京"}'}},
        ],
    },
    {"role": "tool", "name": "weather", "content": "21 °C"},
]
case("tools and tool calls", TOOLS, messages=CALLS, tools=[WEATHER_TOOL])
case("no tools", TOOLS, messages=[HELLO])

case(
    "multimodal parts",
    """\
{%- for message in messages %}
    {{- message.role ~ ': ' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- elif message.content is iterable and message.content is not mapping %}
        {%- for part in message.content %}
            {%- if part.type == 'text' %}
                {{- part.text }}
            {%- elif part.type == 'image' or 'image_url' in part %}
                {{- '<image>' }}
            {%- else %}
                {{- raise_exception('unknown part ' ~ part.type) }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}""",
    messages=[
        {"role": "system", "content": "Look closely."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Compare "},
                {"type": "image"},
                {"type": "text", "text": " with "},
                {"type": "image_url", "image_url": {"url": "data:,"}},
            ],
        },
    ],
)
case(
    "nested conditions",
    "{{ 'a' if x == 1 else 'b' if x == 2 else 'c' }}{{ not x and 'z' or 'y' }}",
    x=2,
)

# --- Rendering --------------------------------------------------------------------------------------------------------


class FixedClock:
    @staticmethod
    def now() -> datetime:
        return NOW


def render(template: str, messages: list[dict], context: dict) -> dict[str, str]:
    try:
        rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, **context)
    except jinja2.TemplateError as error:
        if type(error) is not jinja2.TemplateError:
            raise  # a mistake in the template, not its own raise_exception
        return {"expected_error": error.message}
    return {"expected": rendered[0]}


def main() -> None:
    chat_template_utils.datetime = FixedClock
    golden = {
        "command": COMMAND,
        "seed": None,
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "python": platform.python_version(),
        "now": NOW.isoformat(),
        "cases": [{**case, **render(case["template"], case["messages"], case["context"])} for case in CASES],
    }
    (HERE / "templates.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(CASES)} cases")


if __name__ == "__main__":
    main()
