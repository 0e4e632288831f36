//! What tokenize knows of its model, and the function that this stage is.

use bytes::Bytes;
use models::{ModelFolder, Tokenizer};
use schemas::prompt::{Prompt, Span};
use schemas::request::{Image, Input, Payload, Request};
use schemas::{Failure, FailureKind};

use crate::chat::Conversations;
use crate::images::{Placed, Vision, grids};
use crate::limits::Limits;
use crate::{chat, input};

/// A prompt's tokens.
struct Encoded {
    ids: Vec<u32>,
    images: Vec<Placed>,
    spans: Vec<Span>,
}

/// Tokenizer, template and limits of one model.
#[derive(Debug)]
pub struct Model {
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Conversation to text, when the model is made for it.
    pub template: Option<Conversations>,
    /// Images to placeholders, when the model sees.
    pub vision: Option<Vision>,
    /// What it takes.
    pub limits: Limits,
    /// Token ids with which it ends a sequence.
    pub eos: Vec<u32>,
}

impl Model {
    /// Loads what is needed from `folder`.
    pub fn load(folder: &ModelFolder) -> anyhow::Result<Self> {
        let vocabulary = u32::try_from(folder.config().vocab_size)?;
        let tokenizer = folder.load_tokenizer()?;
        Ok(Self {
            vision: Vision::load(folder, &tokenizer)?,
            tokenizer,
            template: folder.load_chat_template()?.map(Conversations::new),
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
        let Encoded { mut ids, images, spans } = self.encode(request, content)?;
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
            grids: grids(&spans, &images),
            images: images.into_iter().map(|placed| placed.image).collect(),
            spans,
            embeddings: None,
        })
    }

    fn encode(&self, request: &Request, content: &[u8]) -> Result<Encoded, Failure> {
        let field = input::field(&request.input);
        let mut images = Vec::new();
        let (text, add_special) = match &request.input {
            // A template writes the special tokens itself.
            Input::Chat(_) => {
                let rendered = chat::render(self.template.as_ref(), content, request.now_unix)?;
                let (text, placed) = self.place_images(rendered, &request.images)?;
                images = placed;
                let add_special = self.vision.is_some() && !self.begins(&text);
                (text, add_special)
            }
            Input::Text(_) => (input::text(content, field)?.to_owned(), true),
            Input::Ids(_) => {
                let ids = input::ids(content, field)?;
                self.limits.check_ids(ids.iter().copied(), field)?;
                return Ok(Encoded { ids, images, spans: Vec::new() });
            }
        };
        let internal = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Internal, error.to_string());
        let ids = self.tokenizer.encode(&text, add_special).map_err(|error| internal(&error))?;
        // A tokenizer with more tokens than its model has rows would end the process that looks them up.
        self.limits.check_ids(ids.iter().copied(), field).map_err(|failure| internal(&failure))?;
        let spans = match &self.vision {
            Some(vision) if !images.is_empty() => vision.spans(&ids, &images)?,
            _ => Vec::new(),
        };
        Ok(Encoded { ids, images, spans })
    }

    /// Whether a rendered conversation begins with the token that begins sequences. Templates of models that see leave it to
    /// the tokenizer, and processors of transformers add what is missing.
    fn begins(&self, text: &str) -> bool {
        let bos = self.template.as_ref().and_then(Conversations::bos);
        bos.is_some_and(|bos| text.starts_with(bos))
    }

    fn place_images(&self, rendered: String, images: &[Image]) -> Result<(String, Vec<Placed>), Failure> {
        match (&self.vision, images) {
            (None, []) => Ok((rendered, Vec::new())),
            (Some(vision), []) => vision.refuse_videos(&rendered).map(|()| (rendered, Vec::new())),
            (Some(vision), images) => vision.expand(&rendered, images),
            (None, [image, ..]) => Err(Failure::invalid(image.field.clone(), "the model takes no images")
                .with_code("unsupported_content")),
        }
    }
}
