//! What tokenize knows of its model, and the function that this stage is.

use bytes::Bytes;
use models::{ChatTemplate, ModelFolder, Tokenizer};
use schemas::prompt::Prompt;
use schemas::request::{Input, Payload, Request};
use schemas::{Failure, FailureKind};

use crate::limits::Limits;
use crate::{chat, input};

/// Tokenizer, template and limits of one model.
#[derive(Debug)]
pub struct Model {
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Conversation to text, when the model is made for it.
    pub template: Option<ChatTemplate>,
    /// What it takes.
    pub limits: Limits,
    /// Token ids with which it ends a sequence.
    pub eos: Vec<u32>,
}

impl Model {
    /// Loads what is needed from `folder`.
    pub fn load(folder: &ModelFolder) -> anyhow::Result<Self> {
        let vocabulary = u32::try_from(folder.config().vocab_size)?;
        Ok(Self {
            tokenizer: folder.load_tokenizer()?,
            template: folder.load_chat_template()?,
            limits: Limits { context_length: folder.context_length(), vocabulary },
            eos: folder.eos_ids().into_iter().filter(|id| *id < vocabulary).collect(),
        })
    }

    /// The prompt of `request`, whose blobs are `fetched`; its ids are inline, whatever their number.
    ///
    /// A function of the request and the model alone: a second attempt gets the same ids.
    pub fn tokenize(&self, request: &Request, fetched: &[Option<Bytes>]) -> Result<Prompt, Failure> {
        let generation = &request.generation;
        self.limits.check_settings(generation)?;
        let (content, forced) = input::contents(request, fetched)?;
        let forced = input::ids(forced, "forced")?;
        let mut ids = self.encode(request, content)?;
        let prompt_tokens = ids.len();
        let field = input::field(&request.input);
        let max_tokens = self.limits.max_tokens(prompt_tokens, generation.max_tokens, field)?;
        if forced.len() >= max_tokens as usize {
            return Err(Failure::new(FailureKind::Internal, "an answer that is complete was opened again"));
        }
        ids.extend(&forced);
        Ok(Prompt {
            context: request.context.clone(),
            ids: Payload::Inline(input::bytes_of(&ids)),
            prompt_tokens: prompt_tokens as u32,
            max_tokens,
            generation: generation.clone(),
            eos: self.eos.clone(),
        })
    }

    fn encode(&self, request: &Request, content: &[u8]) -> Result<Vec<u32>, Failure> {
        let field = input::field(&request.input);
        let (text, add_special) = match &request.input {
            // A template writes the special tokens itself.
            Input::Chat(_) => (chat::render(self.template.as_ref(), content, request.now_unix)?, false),
            Input::Text(_) => (input::text(content, field)?.to_owned(), true),
            Input::Ids(_) => {
                let ids = input::ids(content, field)?;
                self.limits.check_ids(ids.iter().copied(), field)?;
                return Ok(ids);
            }
        };
        let internal = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Internal, error.to_string());
        let ids = self.tokenizer.encode(&text, add_special).map_err(|error| internal(&error))?;
        // A tokenizer with more tokens than its model has rows would end the process that looks them up.
        self.limits.check_ids(ids.iter().copied(), field).map_err(|failure| internal(&failure))?;
        Ok(ids)
    }
}
