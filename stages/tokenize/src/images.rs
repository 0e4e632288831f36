//! Images in a prompt: the placeholder that a template leaves becomes as many tokens as the image has embeddings.

use models::{ASPECT_MAX, ModelFolder, Tokenizer, VisionConfig};
use schemas::prompt::{PromptImage, Span};
use schemas::request::Image;
use schemas::{Failure, FailureKind};

/// What tokenize knows of the model's vision side.
#[derive(Debug)]
pub struct Vision {
    config: VisionConfig,
    /// The placeholder as templates write it.
    token: String,
}

impl Vision {
    /// The vision side of `folder`, whose tokenizer must have its placeholder; none for a text model.
    pub fn load(folder: &ModelFolder, tokenizer: &Tokenizer) -> anyhow::Result<Option<Self>> {
        let Some(config) = folder.vision() else { return Ok(None) };
        let id = config.image_token_id();
        let token = tokenizer
            .token(id)
            .ok_or_else(|| anyhow::anyhow!("`image_token_id` is {id}, which the tokenizer does not have"))?;
        Ok(Some(Self { config: config.clone(), token }))
    }

    /// `rendered` with the placeholder of each image in its full length, and what each image is for the model.
    pub fn expand(&self, rendered: &str, images: &[Image]) -> Result<(String, Vec<PromptImage>), Failure> {
        let mut texts = rendered.split(&self.token);
        let found = rendered.matches(&self.token).count();
        if found != images.len() {
            let message = format!(
                "the conversation has {} images, but the model's placeholder `{}` stands in it {found} times",
                images.len(),
                self.token
            );
            return Err(Failure::invalid("messages", message));
        }
        let mut expanded = texts.next().unwrap_or_default().to_owned();
        let mut placed = Vec::with_capacity(images.len());
        for (image, text) in images.iter().zip(texts) {
            let plan = self.config.plan(image.width, image.height).ok_or_else(|| too_thin(image))?;
            expanded.push_str(&self.config.placeholder(&self.token, &plan));
            expanded.push_str(text);
            placed.push(PromptImage { image: image.clone(), rows: plan.rows() });
        }
        Ok((expanded, placed))
    }

    /// Where the placeholders are in `ids`: as many as `images` have rows.
    pub fn spans(&self, ids: &[u32], images: &[PromptImage]) -> Result<Vec<Span>, Failure> {
        let mut spans: Vec<Span> = Vec::new();
        let places = (0..).zip(ids).filter(|(_, id)| **id == self.config.image_token_id());
        for (position, _) in places {
            match spans.last_mut() {
                Some(span) if span.start + span.rows == position => span.rows += 1,
                _ => spans.push(Span { start: position, rows: 1 }),
            }
        }
        let found: u64 = spans.iter().map(|span| u64::from(span.rows)).sum();
        let expected: u64 = images.iter().map(|image| u64::from(image.rows)).sum();
        if found == expected {
            return Ok(spans);
        }
        let message = format!("the tokenizer gives {found} placeholders for {expected} embeddings");
        Err(Failure::new(FailureKind::Internal, message))
    }
}

fn too_thin(image: &Image) -> Failure {
    let Image { width, height, field, .. } = image;
    let message =
        format!("`{field}` is {width} by {height} pixels, one side may be {ASPECT_MAX} times the other");
    Failure::invalid(field.clone(), message).with_code("invalid_image")
}
