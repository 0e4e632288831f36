//! What a model takes: its vocabulary and its context.

use schemas::Failure;
use schemas::request::Generation;

/// The word for programs when a sequence would be too long; OpenAI's.
pub const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";

/// The limits of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest sequence in tokens, prompt and answer together.
    pub context_length: u32,
    /// Token ids are below this.
    pub vocabulary: u32,
}

impl Limits {
    /// Checks that every id of `field` is in the vocabulary.
    pub fn check_ids(&self, ids: impl IntoIterator<Item = u32>, field: &str) -> Result<(), Failure> {
        match ids.into_iter().find(|id| *id >= self.vocabulary) {
            None => Ok(()),
            Some(id) => {
                let limit = self.vocabulary;
                Err(Failure::invalid(
                    field,
                    format!("`{field}` has token id {id}, the model's are below {limit}"),
                ))
            }
        }
    }

    /// Checks the ids that the settings name.
    pub fn check_settings(&self, generation: &Generation) -> Result<(), Failure> {
        self.check_ids(generation.sampling.logit_bias.iter().map(|(id, _)| *id), "logit_bias")?;
        self.check_ids(generation.stop.token_ids.iter().copied(), "stop_token_ids")
    }

    /// The longest answer after a prompt of `prompt_tokens`, which came in `field`.
    ///
    /// An explicit `max_tokens` must fit the context; without one the answer may take what the context leaves.
    pub fn max_tokens(
        &self,
        prompt_tokens: usize,
        max_tokens: Option<u32>,
        field: &str,
    ) -> Result<u32, Failure> {
        let context = self.context_length;
        let too_long = |message: String| Failure::invalid(field, message).with_code(CONTEXT_LENGTH_EXCEEDED);
        let prompt = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        if prompt == 0 {
            return Err(Failure::invalid(field, format!("`{field}` has no tokens, must have at least 1")));
        }
        if prompt >= context {
            let message = format!(
                "`{field}` has {prompt_tokens} tokens, the model's context of {context} must hold them and an answer"
            );
            return Err(too_long(message));
        }
        match max_tokens {
            None => Ok(context - prompt),
            Some(0) => Err(Failure::invalid("max_tokens", "`max_tokens` is 0, must be at least 1")),
            Some(max_tokens) if max_tokens > context - prompt => Err(too_long(format!(
                "`{field}` has {prompt} tokens and `max_tokens` is {max_tokens}, the model's context holds {context}"
            ))),
            Some(max_tokens) => Ok(max_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { context_length: 10, vocabulary: 100 };

    fn fault(result: Result<u32, Failure>) -> (Option<String>, Option<String>) {
        let failure = result.unwrap_err();
        (failure.param, failure.code)
    }

    #[test]
    fn an_answer_gets_what_was_asked_for_or_what_the_context_leaves() {
        assert_eq!(LIMITS.max_tokens(4, None, "prompt"), Ok(6));
        assert_eq!(LIMITS.max_tokens(4, Some(6), "prompt"), Ok(6));
        assert_eq!(LIMITS.max_tokens(9, None, "prompt"), Ok(1));
    }

    #[test]
    fn what_does_not_fit_is_the_fault_of_the_field_that_holds_it() {
        let too_long = |field: &str| (Some(field.to_owned()), Some(CONTEXT_LENGTH_EXCEEDED.to_owned()));
        assert_eq!(fault(LIMITS.max_tokens(10, None, "messages")), too_long("messages"));
        assert_eq!(fault(LIMITS.max_tokens(4, Some(7), "prompt")), too_long("prompt"));
        assert_eq!(fault(LIMITS.max_tokens(4, Some(0), "prompt")), (Some("max_tokens".into()), None));
        assert_eq!(fault(LIMITS.max_tokens(0, None, "prompt")), (Some("prompt".into()), None));
    }

    #[test]
    fn a_length_error_names_both_lengths() {
        let message = LIMITS.max_tokens(12, None, "prompt").unwrap_err().message;
        assert!(message.contains("12") && message.contains("10"), "{message}");
    }
}
