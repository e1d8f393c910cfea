//! What should be known of a run that trains embeddings.

use crate::adapters::AdapterLayout;
use crate::config::ModelConfig;

/// How many train, what does not, and who reads them; `None` where none train.
pub fn warning(layout: &AdapterLayout, model: &ModelConfig) -> Option<String> {
    let own = layout.embeddings.as_ref()?;
    let head = if model.tie_word_embeddings {
        "; the head, which is the embedding in this model, stays the base's, and merged models have both"
    } else {
        ""
    };
    Some(format!(
        "the embeddings of {} tokens train{head}; only weblora reads them in the run's folder: export it with --to peft --model for PEFT, merged \
         for others",
        own.tokens.len()
    ))
}
