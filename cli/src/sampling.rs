//! What `run` and `chat` share: where to ask, which model, how to sample.

use clap::Args;
use tokenway_sdk::{ChatRequest, Message};

use crate::client::Client;
use crate::exit::misuse;
use crate::last::Last;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Where to ask and how to sample.
#[derive(Args, Debug)]
pub struct Asking {
    /// The gateway [default: the running `tokenway up`, else http://127.0.0.1:8080]
    #[arg(long, env = "TOKENWAY_URL")]
    url: Option<String>,
    /// Model id [default: the only one served]
    #[arg(long)]
    model: Option<String>,
    /// System message
    #[arg(long)]
    pub system: Option<String>,
    /// Randomness; 0 always takes the likeliest token
    #[arg(long)]
    temperature: Option<f64>,
    /// Sample from the likeliest tokens that together reach this probability
    #[arg(long)]
    top_p: Option<f64>,
    /// Sample from this many of the likeliest tokens
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    top_k: Option<i32>,
    /// Longest answer, in tokens
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Seed of the randomness: the same seed gives the same answer
    #[arg(long)]
    seed: Option<i64>,
    /// Bearer key, where the gateway asks for one
    #[arg(long, env = "TOKENWAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Print token counts and speed after the answer, to standard error
    #[arg(long)]
    pub stats: bool,
}

impl Asking {
    /// A client of the gateway.
    pub fn client(&self) -> anyhow::Result<Client> {
        let running = || Last::read().and_then(|last| last.http);
        let url = self.url.clone().or_else(running).unwrap_or_else(|| DEFAULT_URL.to_owned());
        Client::new(&url, self.api_key.clone())
    }

    /// The model to ask: the one given, else the only one there is.
    pub async fn model(&self, client: &Client) -> anyhow::Result<String> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let mut served = client.models().await?;
        match served.len() {
            0 => anyhow::bail!("no model is served at `{}`: see `tokenway status`", client.base()),
            1 => Ok(served.remove(0)),
            _ => Err(misuse(format!(
                "several models are served, choose one with `--model`: {}",
                served.join(", ")
            ))),
        }
    }

    /// The request for a chat completion over `messages`.
    pub fn request(&self, model: &str, messages: &[Message]) -> ChatRequest {
        ChatRequest {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            seed: self.seed,
            ..ChatRequest::new(model, messages)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        asking: Asking,
    }

    #[test]
    fn only_the_settings_given_are_sent() {
        let line = Line::parse_from(["x", "--temperature", "0", "--top-k", "5"]);
        let request = line.asking.request("m", &[Message::user("hi")]);
        let expected = json!({
            "model": "m",
            "messages": [{ "role": "user", "content": "hi" }],
            "temperature": 0.0,
            "top_k": 5,
        });
        assert_eq!(serde_json::to_value(request).unwrap(), expected);
    }
}
