//! Chat templates against jinja2 (`tests/golden/make_jinja.py`), and templates that would hang, kill or exhaust the process.

use serde_json::{Value, json};
use weblora::Result;
use weblora::text::jinja::{Output, Template};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/jinja.json")).expect("golden file")
}

fn render(template: &str, variables: &Value) -> Result<Output> {
    let mut template = Template::new(template)?;
    template.set_date("2024-07-04".parse()?);
    template.render(variables.as_object().expect("variables").iter().map(|(name, value)| (name.as_str(), value.clone())).collect())
}

fn refused<T>(result: Result<T>, words: &[&str]) {
    let text = result.err().expect("refused").to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

/// What is wrong with a case, if anything.
fn difference(template: &str, variables: &Value, case: &Value) -> Option<String> {
    let got = render(template, variables);
    match (&got, case["text"].as_str()) {
        (Ok(output), Some(text)) if output.text == text => None,
        (Err(_), None) => None,
        (Ok(output), _) => Some(format!("{template}\n  expected {case}\n  found {:?}", output.text)),
        (Err(e), _) => Some(format!("{template}\n  expected {case}\n  found {e}")),
    }
}

#[test]
fn expressions_and_tags_render_as_jinja2_renders_them() {
    let golden = golden();
    let cases = golden["table"].as_array().expect("cases");
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| difference(case["template"].as_str().expect("text"), &golden["variables"], case)).collect();
    assert!(wrong.is_empty() && cases.len() > 200, "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // The comparison itself fails where it should.
    assert!(difference("{{ 1 }}", &json!({}), &json!({"text": "2"})).is_some());
    assert!(difference("{{ 1 }}", &json!({}), &json!({"error": "any"})).is_some());
    assert!(difference("{{ x.y }}", &json!({}), &json!({"text": ""})).is_some());
}

#[test]
fn whole_chat_templates_render_as_jinja2_renders_them() {
    let golden = golden();
    let mut wrong = Vec::new();
    let chats = golden["chats"].as_array().expect("chats");
    for chat in chats {
        let number = chat["conversation"].as_u64().expect("number") as usize;
        let mut variables = json!({"documents": null, "tools": null, "add_generation_prompt": number.is_multiple_of(2), "bos_token": "<s>", "eos_token": "</s>"});
        for (key, value) in golden["conversations"][number].as_object().expect("conversation") {
            variables[key] = value.clone();
        }
        let template = golden["templates"][chat["template"].as_str().expect("name")].as_str().expect("template");
        wrong.extend(difference(template, &variables, chat));
    }
    assert!(wrong.is_empty() && chats.len() == 16, "{}", wrong.join("\n"));
}

#[test]
fn generation_tags_give_the_bytes_between_them() {
    let generated = |template: &str| render(template, &json!({})).map(|output| (output.text, output.generated));
    let (text, spans) = generated(
        "é{% generation %}hi\n{% endgeneration %}!{% generation %}{% endgeneration %}{%- generation -%} x {%- endgeneration -%} y",
    )
    .expect("renders");
    assert_eq!((text.as_str(), spans), ("éhi\n!xy", vec![2..5, 6..7]));
    // Characters that once marked the tags are text.
    let (text, spans) = generated("\u{fdd0}{% if true %}{% generation %}a\u{fdd1}{% endgeneration %}{% endif %}").expect("renders");
    assert_eq!((text.as_str(), spans.as_slice()), ("\u{fdd0}a\u{fdd1}", std::slice::from_ref(&(3..7))));
    assert!(Template::new("{{ generation }}").is_ok_and(|template| !template.marks_generation()));
    for broken in [
        "{%",
        "{% generation",
        "{% generation %}",
        "{%- generation -%}a{% endgeneration",
        "{% endgeneration %}",
        "{% generation %}{% if x %}{% endgeneration %}",
    ] {
        assert!(Template::new(broken).is_err(), "{broken}");
    }
}

/// Each takes more than a limit allows, and the error names the limit.
#[test]
fn templates_that_would_never_end_are_stopped_by_name() {
    let limit = |template: &str, words: &[&str]| refused(render(template, &json!({"m": [{"role": "user"}]})), words);
    for loops in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ range(100000) | sum }}{% endfor %}",
        "{% set s = 'ab' * 5000000 %}{% for i in range(100000) %}{{ 'c' in s }}{{ s.find('c') }}{{ s == s }}{% endfor %}",
        "{{ range(100000) | unique | list | length }}",
        // Keys are hashed whole, names are copied into what an undefined value says.
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = {s: 1} %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = m[0][s] %}{% set t = m[s] %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = m[0] | attr(s) %}{% endfor %}",
    ] {
        limit(loops, &["limit", "steps"]);
    }
    for large in [
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(s='aaaa') %}{% for i in range(60) %}{% set ns.s = ns.s | join(ns.s) %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ 'a'.center(100000000000) }}",
        "{{ '7'.zfill(10**15) }}",
        "{{ 'a' | center(10**12) }}",
        "{{ '%1000000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '{:1000000000000}'.format(1) }}",
        "{{ '\t'.expandtabs(10**12) }}",
        "{{ m | tojson(indent=10000000000) }}",
        "{{ 'a\nb' | indent(10**12) }}",
        "{{ ('&' * 30000000) | e }}",
        "{% set s = 'a-' * 100000 %}{{ s | wordwrap(1, wrapstring=s) }}",
        "{{ [1] | batch(10**12, 'x') | list }}",
        "{{ [1] | slice(10**12) | list }}",
        "{% for i in range(100000) %}{% for j in range(10) %}{{ 'a' * 1000 }}{% endfor %}{% endfor %}",
        "{{ range(100001) }}",
    ] {
        limit(large, &["limit"]);
    }
    for deep in [
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x | string }}",
        "{% set ns = namespace(l=1) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(100000) %}{% set ns.l = {'a': ns.l} %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = [ns.l | reverse] %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for p in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ] {
        limit(deep, &["nested deeper", "limit"]);
    }
    for part in ["not ", "-", "1 if 1 else "] {
        refused(Template::new(&format!("{{{{ {}1 }}}}", part.repeat(100_000))).map(|_| ()), &["limit"]);
    }
    for (open, close) in [("(", ")"), ("[", "]")] {
        refused(Template::new(&format!("{{{{ {}1{} }}}}", open.repeat(100_000), close.repeat(100_000))).map(|_| ()), &["limit"]);
    }
    refused(Template::new(&"{% if 1 %}".repeat(5000)).map(|_| ()), &["limit"]);
    refused(Template::new(&format!("{{{{ {} }}}}", "a".repeat(2_000))).map(|_| ()), &["name of 2000 bytes", "limit"]);
    refused(Template::new(&"a".repeat(2_000_000)).map(|_| ()), &["2000000", "limit"]);
    // Long chains are not deep.
    assert_eq!(render(&format!("{{{{ 1{} }}}}", "+1".repeat(100_000)), &json!({})).expect("adds").text, "100001");
    assert_eq!(render(&format!("{{{{ 1{} }}}}", "|abs".repeat(100_000)), &json!({})).expect("filters").text, "1");
    assert_eq!(render("{{ 'a'.count('') }}", &json!({})).expect("counts").text, "2");
}

/// Each goes over long texts, or over many names, again and again.
#[test]
fn work_inside_operators_counts_by_what_it_goes_over() {
    let limit = |template: &str| {
        let shown: String = template.chars().take(200).collect();
        let text = render(template, &json!({})).err().unwrap_or_else(|| panic!("{shown} renders")).to_string();
        assert!(text.contains("the limit for these messages"), "{shown}: {text}");
    };
    for strip in [" | trim", ".strip"] {
        assert_eq!(render(&format!("{{{{ ('a' * 1000000){strip}('b' * 1000000 ~ 'a') }}}}"), &json!({})).expect("a set").text, "");
        limit(&format!("{{{{ ('a' * 10000000){strip}('b' * 3000000 ~ 'a') }}}}"));
    }
    for (made, asked) in [
        ("'ab' * 100000", "'a'.find(t)"),
        ("'ab' * 5000000", "'a'.count(t)"),
        ("'ab' * 5000000", "'a'.split(t)"),
        ("'ab' * 5000000", "'a'.partition(t)"),
        ("'ab' * 5000000", "'a'.replace(t, '')"),
        ("'1' * 16000000", "t | int"),
        ("'1' * 16000000", "t | float"),
        ("'1' * 16000000", "t | truncate(5)"),
        ("'A' * 16000000", "t is lower"),
        ("'a' * 16000000", "t is upper"),
        ("'a' * 16000000", "'%.1s' % t"),
        ("'a' * 16000000", "[1] | tojson(separators=(t, t))"),
        ("'a' * 16000000", "'a' | indent(t)"),
        ("'a' * 16000000", "joiner(t)"),
    ] {
        limit(&format!("{{% set t = {made} %}}{{% for i in range(100000) %}}{{% if {asked} %}}{{% endif %}}{{% endfor %}}"));
    }
    limit("{% set t = 'a' * 10000000 %}{{ (t ~ 'b').startswith((t ~ 'c',) * 500000) }}");
    limit("{{ (['A' * 16000000] * 1000) | sort }}");
    limit("{{ [{}] | map(attribute='a.' * 8000000, default={}) | list }}");
    limit("{% set ns = namespace(t=(1, 2)) %}{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ {ns.t: 1} }}");
    limit("{% set s = ['é' * 8000000] %}{% for i in range(6) %}{% set x %}{{ s }}{% endset %}{% endfor %}");
    // What a list takes counts before it is made.
    limit("{{ (',' * 15000000).split(',') | length }}");
    limit("{{ (' a' * 7500000).split() | length }}");
    limit("{{ ('\n' * 15000000).splitlines() | length }}");
    let many = |one: &dyn Fn(usize) -> String, n: usize| (0..n).map(one).collect::<String>();
    limit(&format!(
        "{{% macro f({}) %}}{{% endmacro %}}{{{{ f({}) }}}}",
        many(&|i| format!("a{i},"), 40_000).trim_end_matches(','),
        many(&|i| format!("a{i}=1,"), 40_000)
    ));
}

#[test]
fn many_names_are_found_at_once() {
    let many = |one: &dyn Fn(usize) -> String, n: usize| (0..n).map(one).collect::<String>();
    let sets = many(&|i| format!("{{% set a{i} = 1 %}}"), 50_000);
    assert_eq!(render(&format!("{sets}{{{{ a0 + a49999 }}}}"), &json!({})).expect("renders").text, "2");
    let asked = format!("{}{{% for i in range(100000) %}}{{{{ b }}}}{{% endfor %}}", many(&|i| format!("{{% set a{i} = 1 %}}"), 3000));
    assert_eq!(render(&asked, &json!({})).expect("renders").text, "");
    let parameters = format!("{{% macro f({}a) %}}{{% endmacro %}}", "a,".repeat(500_000 - 20));
    assert!(Template::new(&parameters).is_ok());
    refused(Template::new(&format!("{{{{ 1{} }}}}", " if 1".repeat(200_000))).map(|_| ()), &["conditions", "limit"]);
}

#[test]
fn a_long_message_of_a_template_is_cut() {
    for template in ["{{ raise_exception('a' * 16000000) }}", "{{ '%(' ~ 'a' * 8000000 ~ ')s' }}{{ ('%(' ~ 'a' * 8000000 ~ ')s') % {} }}"] {
        let text = render(template, &json!({})).expect_err("refused").to_string();
        assert!(text.len() < 600 && text.contains("(cut, "), "{} bytes: {}", text.len(), &text[..100]);
    }
    refused(render("{{ raise_exception('roles must alternate') }}", &json!({})), &["roles must alternate (line 1"]);
}

#[test]
fn long_texts_are_escaped() {
    let text = "a&".repeat(100_000);
    assert_eq!(render("{{ x | e | length }}", &json!({"x": text})).expect("escapes").text, "600000");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (template, word) in [("{{ [1] | random }}", "\"random\""), ("{{ '\\N{BULLET}' }}", "\\N"), ("{{ 1 | nosuch }}", "\"nosuch\"")] {
        refused(render(template, &json!({})), &[word]);
    }
}

#[test]
fn a_long_conversation_has_larger_limits() {
    let messages: Vec<Value> = (0..1000).map(|i| json!({"role": "user", "content": format!("message {i}")})).collect();
    let template = "{% set ns = namespace(text='') %}{% for m in messages %}{% for o in messages %}{% if o.role == 'system' %}x{% endif %}{% endfor %}\
                    {% set ns.text = ns.text + m.content %}{% endfor %}{{ ns.text | length }}";
    assert_eq!(render(template, &json!({"messages": messages})).expect("renders").text, "10890");
}

#[test]
fn nothing_that_a_template_says_panics() {
    for odd in [
        "{{ 1 is divisibleby(0) }}",
        "{{ ['nan' | float, 1, 'nan' | float, 0] | sort }}",
        "{{ (-170141183460469231731687303715884105727 - 1) // -1 }}",
        "{{ (-170141183460469231731687303715884105727 - 1) % -1 }}",
        "{{ -(-170141183460469231731687303715884105727 - 1) }}",
        "{{ (-170141183460469231731687303715884105727 - 1) | abs }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 1.5 | round(400) }}",
        "{{ 1.5 | round(-400) }}",
        "{{ range(9223372036854775807, -9223372036854775807, -9223372036854775807) | list }}",
        "{{ range(-10 ** 30, 10) }}",
        "{{ 'abc'[9223372036854775807:-9223372036854775808:-9223372036854775808] }}",
        "{{ 'é'.rfind('é', -1, 9) }}{{ 'é'[0:1] }}",
        "{{ 'abc'[::170141183460469231731687303715884105727] }}",
        "{{ cycler().next() }}",
        "{{ '' | wordwrap(-1) }}{{ '--' | wordwrap(1) }}{{ 'é--é-é' | wordwrap(1, false) }}",
        "{{ [] | pprint }}{{ [[[' ' * 90]]] | pprint }}{{ {('é' * 90): ''} | pprint }}",
        "{{ '@ . é@é.é http:// www. http://[ http://[] ((é)) &lt;' | urlize(-1, extra_schemes=['é:']) }}",
        "{{ 'a' | urlize(extra_schemes=['', ':', '::']) }}",
        "{{ (0 - 1e300) | filesizeformat }}{{ ('nan' | float) | filesizeformat }}{{ 1e300 | filesizeformat }}",
        "{{ '%' % 1 }}",
        "{{ '%(' % 1 }}",
        "{{ '%é' % 1 }}",
        "{{ '{0[}'.format(1) }}",
        "{{ '{0.}'.format(1) }}",
        "{{ '{:é>5}'.format(1) }}",
        "{{ '{!}'.format(1) }}",
        "{{ '\\ud800' }}",
        "{{ '\\x4' }}",
        "{{ 0x }}",
        "{{ 1e999 }}",
        "{{ 99999999999999999999999999999999999999999 }}",
        "{{ 'abc' | int(0, 99) }}",
        "{{ 'abcdefghi' | truncate(0) }}",
        "{{ [1] | batch(0) | list }}",
        "{{ [1] | slice(0) | list }}",
        "{{ strftime_now('%Q%-Q%-') }}",
        "{{ strftime_now('%é%') }}",
        "{{ dict(*1) }}",
        "{{ dict(**1) }}",
        "{% set n = namespace() %}{% for i in [1] %}{% set n.l = loop %}{% endfor %}{{ n.l.index }}",
        "{% set n = namespace() %}{% macro q() %}{% set n.c = caller %}{% endmacro %}{% for i in [1] %}{% call q() %}{{ i }}{% endcall %}{% endfor %}{{ n.c() }}",
        "{% set n = namespace() %}{% for i in [1] recursive %}{% set n.l = loop %}{% endfor %}{% for i in [1, 2] %}{{ n.l([1]) }}{% endfor %}",
        "{#",
        "{#-",
        "{#-#}",
        "{%-%}",
        "{{-}}",
        "{{--}}",
        "{{}}",
        "%}",
        "{{{}}}",
        "{% raw",
        "{% raw %}{% endraw",
        "{{ 'a",
        "{{ \"\\",
        "{% set a.b.c = 1 %}",
        "{{ {'a': 1}['a':] }}",
    ] {
        let _ = render(odd, &json!({"x": null}));
    }
}
