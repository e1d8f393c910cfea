//! Chat templates to choose by name, for models that have none: the formats in common use, in our own words.

use std::collections::HashSet;

use crate::settings::one_of;
use crate::{Error, Result};

/// ChatML: Qwen's, SmolLM2's, Hermes'.
const CHATML: &str = "\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
";

/// Llama 3's headers.
const LLAMA3: &str = "\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
";

/// Mistral's instructions; the system text goes before the first question, where every later turn still sees it.
const MISTRAL: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' or message.role == 'developer' -%}{%- set ns.system = message.content + '\\n\\n' -%}
{%- elif message.role == 'assistant' -%}{{- ' ' + message.content + eos_token -}}
{%- else -%}{{- '[INST] ' + ns.system + message.content + '[/INST]' -}}{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
";

/// Gemma's turns; the system text goes before the first question.
const GEMMA: &str = "\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' or message.role == 'developer' -%}{%- set ns.system = message.content + '\\n\\n' -%}
{%- elif message.role == 'assistant' -%}{{- '<start_of_turn>model\\n' + message.content | trim + '<end_of_turn>\\n' -}}
{%- else -%}{{- '<start_of_turn>user\\n' + (ns.system + message.content) | trim + '<end_of_turn>\\n' -}}{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
";

/// Alpaca's headings, needing no control tokens but the end of sequence.
const ALPACA: &str = "\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' or message.role == 'developer' -%}{{- message.content + '\\n\\n' -}}
{%- elif message.role == 'assistant' -%}{{- '### Response:\\n' + message.content + eos_token + '\\n\\n' -}}
{%- else -%}{{- '### Instruction:\\n' + message.content + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
";

const TABLE: &[(&str, &str)] = &[("chatml", CHATML), ("llama3", LLAMA3), ("mistral", MISTRAL), ("gemma", GEMMA), ("alpaca", ALPACA)];

/// The names of the built-in templates.
pub const NAMES: &[&str] = &["chatml", "llama3", "mistral", "gemma", "alpaca"];

/// The Jinja source of a template given by name, or as the source itself.
///
/// # Errors
/// When it is neither.
pub fn source(template: &str) -> Result<&str> {
    if let Some((_, source)) = TABLE.iter().find(|(name, _)| *name == template) {
        return Ok(source);
    }
    if template.contains("{{") || template.contains("{%") {
        return Ok(template);
    }
    let shown: String = template.chars().take(60).collect();
    Err(Error::config(
        "chat-template",
        format!("is {shown:?}"),
        format!("give {}, or Jinja: a file of it, or text with {{{{ or {{%", one_of(NAMES)),
    ))
}

/// The control tokens that a template's source spells, such as `<|im_end|>` or `[INST]`.
pub(super) fn control_tokens(source: &str) -> Vec<&str> {
    const KNOWN: &[&str] = &["<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"];
    const LONGEST: usize = 40;
    // Each is looked for in every row.
    const MOST: usize = 256;
    let mut found: Vec<&str> = KNOWN.iter().copied().filter(|token| source.contains(token)).collect();
    let mut seen = HashSet::new();
    for (at, _) in source.match_indices("<|") {
        let rest = &source[at + 2..];
        let near = &rest.as_bytes()[..rest.len().min(LONGEST + 2)];
        let end = near.windows(2).position(|pair| pair == b"|>");
        let Some(end) = end.filter(|end| *end > 0).filter(|end| rest[..*end].chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-'))
        else {
            continue;
        };
        let token = &source[at..at + 2 + end + 2];
        if found.len() < MOST && seen.insert(token) {
            found.push(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sources_are_told_apart() {
        for (name, text) in TABLE {
            assert_eq!(source(name).expect("a name"), *text);
            assert!(NAMES.contains(name));
        }
        assert_eq!(NAMES.len(), TABLE.len());
        assert_eq!(source("{{ x }}").expect("Jinja"), "{{ x }}");
        assert!(source("chat-ml").expect_err("unknown").to_string().contains("chatml"));
    }

    #[test]
    fn control_tokens_of_a_source() {
        assert_eq!(control_tokens("{{ '<|im_start|>' + x }}{% if a <|b %}<|im_start|><|x y|>[INST]"), ["[INST]", "<|im_start|>"]);
    }

    #[test]
    fn a_source_of_nothing_but_control_tokens() {
        assert!(control_tokens(&"<|".repeat(520_000)).is_empty());
        let many: String = (0..110_000).map(|i| format!("<|{i}|>")).collect();
        assert_eq!(control_tokens(&many).len(), 256);
        assert_eq!(control_tokens(&format!("<|{}|><|é|><||>", "a".repeat(40))), [format!("<|{}|>", "a".repeat(40)).as_str(), "<|é|>"]);
    }
}
