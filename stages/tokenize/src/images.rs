//! Images in a prompt: the placeholder that a template leaves becomes as many tokens as the image has embeddings.

use models::{ImageRefusal, ModelFolder, Tokenizer, VisionConfig};
use schemas::prompt::{Grid, PromptImage, Span};
use schemas::request::Image;
use schemas::{Failure, FailureKind};

/// What tokenize knows of the model's vision side.
#[derive(Debug)]
pub struct Vision {
    config: VisionConfig,
    /// The placeholder as templates write it.
    token: String,
    /// That of a video, where the model has one.
    video_token: Option<String>,
}

/// An image in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What the encoder is told.
    pub image: PromptImage,
    /// Rows and columns of its embeddings, where the model's positions count them.
    pub grid: Option<(u32, u32)>,
}

impl Vision {
    /// The vision side of `folder`, whose tokenizer must have its placeholder; none for a text model.
    pub fn load(folder: &ModelFolder, tokenizer: &Tokenizer) -> anyhow::Result<Option<Self>> {
        let Some(config) = folder.vision() else { return Ok(None) };
        let id = config.image_token_id();
        let token = tokenizer
            .token(id)
            .ok_or_else(|| anyhow::anyhow!("`image_token_id` is {id}, which the tokenizer does not have"))?;
        let video_token = config.video_token_id().and_then(|id| tokenizer.token(id));
        Ok(Some(Self { config: config.clone(), token, video_token }))
    }

    /// `rendered` with the placeholder of each image in its full length, and what each image is for the model.
    pub fn expand(&self, rendered: &str, images: &[Image]) -> Result<(String, Vec<Placed>), Failure> {
        self.refuse_videos(rendered)?;
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
            let plan =
                self.config.plan(image.width, image.height).map_err(|refusal| refused(image, refusal))?;
            expanded.push_str(&self.config.placeholder(&self.token, &plan));
            expanded.push_str(text);
            let image = PromptImage { image: image.clone(), rows: plan.rows() };
            placed.push(Placed { image, grid: plan.grid });
        }
        Ok((expanded, placed))
    }

    /// A video's placeholder would be taken for text.
    pub(crate) fn refuse_videos(&self, rendered: &str) -> Result<(), Failure> {
        match &self.video_token {
            Some(token) if rendered.contains(token) => {
                let message = format!(
                    "the placeholder `{token}` stands in the conversation, but videos are not served"
                );
                Err(Failure::invalid("messages", message).with_code("unsupported_content"))
            }
            _ => Ok(()),
        }
    }

    /// Where the placeholders are in `ids`: as many as `images` have rows.
    pub fn spans(&self, ids: &[u32], images: &[Placed]) -> Result<Vec<Span>, Failure> {
        let mut spans: Vec<Span> = Vec::new();
        let places = (0..).zip(ids).filter(|(_, id)| **id == self.config.image_token_id());
        for (position, _) in places {
            match spans.last_mut() {
                Some(span) if span.start + span.rows == position => span.rows += 1,
                _ => spans.push(Span { start: position, rows: 1 }),
            }
        }
        let found: u64 = spans.iter().map(|span| u64::from(span.rows)).sum();
        let expected: u64 = images.iter().map(|placed| u64::from(placed.image.rows)).sum();
        if found == expected {
            return Ok(spans);
        }
        let message = format!("the tokenizer gives {found} placeholders for {expected} embeddings");
        Err(Failure::new(FailureKind::Internal, message))
    }
}

/// The images as positions count them: each begins at the first placeholder that is none of those before. `spans` has as many
/// placeholders as `images` have rows.
pub fn grids(spans: &[Span], images: &[Placed]) -> Vec<Grid> {
    let mut places = spans.iter().flat_map(|span| span.start..span.start + span.rows);
    let mut grids = Vec::new();
    for Placed { image, grid } in images {
        let own = places.by_ref().take(image.rows as usize);
        if let (Some(start), Some((rows, columns))) = (own.min(), *grid) {
            grids.push(Grid { start, rows, columns });
        }
    }
    grids
}

fn refused(image: &Image, refusal: ImageRefusal) -> Failure {
    let Image { width, height, field, .. } = image;
    let message = format!("`{field}` is {width} by {height} pixels, {refusal}");
    Failure::invalid(field.clone(), message).with_code("invalid_image")
}
