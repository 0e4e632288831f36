//! Chat templates: golden renderings by transformers, and what must not happen.

use models::{ChatTemplate, TemplateError, TemplateInput};
use serde_json::{Map, Value, json};

const GOLDENS: &str = include_str!("../../goldens/templates.json");

/// The `now` of the golden file, 2025-03-04T05:06:07.
const NOW_UNIX: i64 = 1_741_064_767;

fn render(
    template: &str,
    messages: &Value,
    mut context: Map<String, Value>,
) -> Result<String, TemplateError> {
    let tools = context.shift_remove("tools");
    let add_generation_prompt = context.shift_remove("add_generation_prompt") == Some(json!(true));
    ChatTemplate::new(template, Map::new())?.render(&TemplateInput {
        messages,
        tools: tools.as_ref(),
        add_generation_prompt,
        extra: &context,
        now_unix: NOW_UNIX,
    })
}

/// Golden cases that use `%` on strings, the one thing that is missing: they must fail, not render something
/// else.
const NOT_RENDERED: [&str; 1] = ["concatenation"];

#[test]
fn every_golden_template_renders_as_in_transformers() {
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    assert_eq!(goldens["now"], "2025-03-04T05:06:07");
    for case in goldens["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let context = case["context"].as_object().unwrap().clone();
        match render(case["template"].as_str().unwrap(), &case["messages"], context) {
            Ok(text) => assert_eq!(case["expected"], text.as_str(), "{name}"),
            Err(TemplateError::Refused(text)) => assert_eq!(case["expected_error"], text.as_str(), "{name}"),
            Err(error) => assert!(NOT_RENDERED.contains(&name), "{name}: {error:?}"),
        }
    }
}

#[test]
fn null_fields_of_a_message_count_as_absent() {
    let messages = json!([{"role": "assistant", "content": null, "tool_calls": null}]);
    let template = "{{ messages[0] | tojson }}{{ messages[0].content is defined }}";
    assert_eq!(render(template, &messages, Map::new()).unwrap(), r#"{"role": "assistant"}False"#);
}

#[test]
fn reasoning_is_found_under_each_of_its_names() {
    for name in ["reasoning", "reasoning_content", "thinking"] {
        let messages = json!([{"role": "assistant", "content": "4", name: "2 + 2"}]);
        let template = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}";
        assert_eq!(render(template, &messages, Map::new()).unwrap(), "2 + 2|2 + 2");
    }
}

/// Expected text: transformers 5.24.0 with jinja2 3.1.6.
#[test]
fn parts_turn_into_text_as_in_python_however_a_template_prints_them() {
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "it's"}, 1.0, null, true]}]);
    let parts = r#"[{'type': 'text', 'text': "it's"}, 1.0, None, True]"#;
    for template in [
        "{{ messages[0].content }}",
        "{{ messages[0].content | trim }}",
        "{{ messages[0].content | string }}",
        "{{ '' ~ messages[0].content }}",
        "{{ [messages[0].content] | join }}",
    ] {
        assert_eq!(render(template, &messages, Map::new()).unwrap(), parts, "{template}");
    }
}

#[test]
fn what_is_undefined_has_no_length_to_speak_of() {
    let template = "{{ messages[0].content | length }}{{ 'é🦊' | length }}{{ messages | count }}";
    assert_eq!(render(template, &json!([{}]), Map::new()).unwrap(), "021");
    assert!(matches!(render("{{ 7 | length }}", &json!([]), Map::new()), Err(TemplateError::Render(_))));
}

#[test]
fn generation_tags_keep_their_whitespace_control_and_their_scope() {
    let template = "{% set x = 1 %}a {%- generation -%} {% set x = 2 %}{{ x }} {%- endgeneration %} {{ x }}";
    assert_eq!(render(template, &json!([]), Map::new()).unwrap(), "a2 1");
}

#[test]
fn a_refusal_inside_a_macro_keeps_its_text() {
    let template = "{% macro check() %}{{ raise_exception('no') }}{% endmacro %}{{ check() }}";
    assert!(
        matches!(render(template, &json!([]), Map::new()), Err(TemplateError::Refused(text)) if text == "no")
    );
}

#[test]
fn a_mistake_is_named_and_a_failure_is_no_refusal() {
    let syntax = render("{% if %}", &json!([]), Map::new());
    assert!(matches!(syntax, Err(TemplateError::Syntax { name, .. }) if name == "default"));
    let failure = render("{{ messages[0].content.parts }}", &json!([]), Map::new());
    assert!(matches!(failure, Err(TemplateError::Render(_))));
}

#[test]
fn a_template_cannot_run_for_ever() {
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% set c = b %}{% endfor %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(400) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(400) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    ] {
        assert!(
            matches!(render(template, &json!([]), Map::new()), Err(TemplateError::Render(_))),
            "{template}"
        );
    }
}

#[test]
fn a_failure_does_not_show_the_messages() {
    let messages = json!([{"role": "user", "content": "a secret"}]);
    let error =
        render("{% for m in messages %}{{ m.content.x.y }}{% endfor %}", &messages, Map::new()).unwrap_err();
    assert!(!format!("{error:?}").contains("secret"));
}
