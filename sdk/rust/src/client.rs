//! A gateway, and what can be asked of it.

use std::fmt;
use std::time::Duration;

use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Error};
use crate::generated::{
    ChatCompletion, ChatRequest, Completion, CompletionRequest, Model, ModelList, Readiness,
};
use crate::stream::{ChatStream, Chunk, ChunkStream, CompletionStream, Patience};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const READY_WITHIN: Duration = Duration::from_secs(5);
/// A connection is tested after this much silence, so that a wait for a machine that has gone ends.
const PROBE_AFTER: Duration = Duration::from_secs(15);

/// A gateway and the key to it. A clone shares its connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
    pub(crate) patience: Patience,
}

impl Client {
    /// A client of the gateway at `base_url`, with or without `/v1` at its end.
    ///
    /// The proxy that the environment names is used, unless the gateway is on this machine.
    pub fn new(base_url: &str) -> Result<Self, Error> {
        let url = Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| Error::BaseUrl(base_url.to_owned()))?;
        let mut builder =
            reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).tcp_keepalive(PROBE_AFTER);
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let base = base_url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http = builder.build().map_err(Error::Http)?;
        Ok(Self { http, base, key: None, patience: Patience::default() })
    }

    /// The same with an API key, for gateways that want one.
    pub fn with_api_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// URL of the gateway, without `/v1` and without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The answers to a conversation, in one piece. Whether `request` says `stream` does not matter.
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatCompletion, Error> {
        parsed(&self.chat_json(request).await?)
    }

    /// The same, as the gateway writes it.
    pub async fn chat_json(&self, request: &ChatRequest) -> Result<String, Error> {
        let request = ChatRequest { stream: None, stream_options: None, ..request.clone() };
        let response = self.send(self.post("/v1/chat/completions").json(&request)).await?;
        response.text().await.map_err(Error::Http)
    }

    /// The answers to a conversation, piece by piece. Whether `request` says `stream` does not matter.
    pub async fn chat_stream(&self, request: &ChatRequest) -> Result<ChatStream, Error> {
        let request = ChatRequest { stream: Some(true), ..request.clone() };
        let response = self.send(self.post("/v1/chat/completions").json(&request)).await?;
        Ok(ChunkStream::begun(self.clone(), response))
    }

    /// What follows the prompts, in one piece. Whether `request` says `stream` does not matter.
    pub async fn completion(&self, request: &CompletionRequest) -> Result<Completion, Error> {
        let request = CompletionRequest { stream: None, stream_options: None, ..request.clone() };
        self.json(self.post("/v1/completions").json(&request)).await
    }

    /// What follows the prompts, piece by piece. Whether `request` says `stream` does not matter.
    pub async fn completion_stream(&self, request: &CompletionRequest) -> Result<CompletionStream, Error> {
        let request = CompletionRequest { stream: Some(true), ..request.clone() };
        let response = self.send(self.post("/v1/completions").json(&request)).await?;
        Ok(ChunkStream::begun(self.clone(), response))
    }

    /// What follows the event `last_event_id` of the stream `id`, 0 for all of it, at this gateway or whichever began it:
    /// for a reader that has ended since. Asks until somebody is there, for a minute.
    pub async fn read_stream<C: Chunk>(&self, id: &str, last_event_id: u64) -> Result<ChunkStream<C>, Error> {
        ChunkStream::taken_up(self.clone(), id.to_owned(), last_event_id).await
    }

    /// The models served.
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        let list: ModelList = self.json(self.get("/v1/models")).await?;
        Ok(list.data)
    }

    /// Whether `model`, or any when none is named, can be served now, and what is missing if not.
    pub async fn ready(&self, model: Option<&str>) -> Result<Readiness, Error> {
        let request = self.get("/ready").query(&model.map(|model| [("model", model)])).timeout(READY_WITHIN);
        let response = request.send().await.map_err(|error| self.unsent(error))?;
        let status = response.status();
        let body = response.text().await.map_err(Error::Http)?;
        match serde_json::from_str(&body) {
            Ok(readiness) => Ok(readiness),
            Err(error) if status.is_success() => Err(Error::Undocumented(error)),
            Err(_) => Err(ApiError::new(status, &body).into()),
        }
    }

    /// The response with what follows the event `last` of the stream `id`.
    pub(crate) async fn rest_of(&self, id: &str, last: u64) -> Result<Response, Error> {
        let mut url = Url::parse(&self.base).map_err(|_| Error::BaseUrl(self.base.clone()))?;
        // As segments, for the id may come from anywhere.
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(["v1", "streams", id]),
            Err(()) => return Err(Error::BaseUrl(self.base.clone())),
        };
        self.send(self.http.get(url).header("last-event-id", last)).await
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        parsed(&self.send(request).await?.text().await.map_err(Error::Http)?)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unsent(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(ApiError::read(response).await.into())
    }

    fn unsent(&self, error: reqwest::Error) -> Error {
        if error.is_connect() {
            Error::Unreachable { base: self.base.clone(), source: error }
        } else {
            Error::Http(error)
        }
    }
}

/// Without the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

fn parsed<T: DeserializeOwned>(body: &str) -> Result<T, Error> {
    serde_json::from_str(body).map_err(Error::Undocumented)
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::generated::Message;
    use crate::test_server::{Server, response};

    fn question() -> ChatRequest {
        ChatRequest { stream: Some(true), ..ChatRequest::new("m", [Message::user("?")]) }
    }

    #[tokio::test]
    async fn an_answer_comes_in_one_piece_whatever_the_request_says() {
        let choice = json!({
            "index": 0, "message": { "role": "assistant", "content": "42" }, "finish_reason": "stop", "logprobs": null,
        });
        let usage = json!({ "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 });
        let answer = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f",
            "choices": [choice], "usage": usage,
        });
        let body = answer.to_string();
        let server = Server::start({
            let body = body.clone();
            move |_, _| response("200 OK", "", &body)
        });
        let server = server.await;
        let client = server.client().with_api_key("secret");
        assert_eq!(client.chat(&question()).await.unwrap().text(), "42");
        assert_eq!(client.chat_json(&question()).await.unwrap(), body);
        let asked = &server.asked()[0];
        assert_eq!(asked.path(), "/v1/chat/completions");
        assert_eq!(asked.header("authorization"), Some("bearer secret"));
        assert_eq!(asked.body, r#"{"messages":[{"content":"?","role":"user"}],"model":"m"}"#);
        assert!(!format!("{client:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_refusal_has_everything_that_the_gateway_says() {
        let error =
            json!({ "message": "full", "type": "rate_limit_error", "param": "n", "code": "queue_full" });
        let body = json!({ "error": error }).to_string();
        let server =
            Server::start(move |_, _| response("429 Too Many Requests", "retry-after: 7\r\n", &body)).await;
        let Error::Api(error) = server.client().chat_stream(&question()).await.unwrap_err() else { panic!() };
        let expected = ApiError {
            status: Some(StatusCode::TOO_MANY_REQUESTS),
            message: "full".into(),
            kind: Some("rate_limit_error".into()),
            code: Some("queue_full".into()),
            param: Some("n".into()),
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(error, expected);
        assert_eq!(server.asked().len(), 1, "never asked again");
    }

    #[tokio::test]
    async fn a_model_that_is_not_ready_is_no_error() {
        let pipeline = json!({ "model": "a&b", "fingerprint": "f", "ready": false, "missing": ["sample"] });
        let body =
            json!({ "ready": false, "bus": true, "draining": false, "pipelines": [pipeline] }).to_string();
        let server = Server::start(move |request, _| match request.path() {
            "/ready?model=a%26b" => response("503 Service Unavailable", "", &body),
            _ => response("502 Bad Gateway", "", "<html>"),
        })
        .await;
        let readiness = server.client().ready(Some("a&b")).await.unwrap();
        assert_eq!(
            (readiness.ready, readiness.pipelines[0].missing.as_slice()),
            (false, &["sample".to_owned()][..])
        );
        assert!(matches!(server.client().ready(None).await, Err(Error::Api(_))));
        assert_eq!(server.asked()[1].path(), "/ready");
    }

    #[tokio::test]
    async fn the_base_url_may_end_like_openai_s() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&format!("http://{closed}/v1/")).unwrap();
        assert_eq!(client.base(), format!("http://{closed}"));
        assert!(
            matches!(client.models().await, Err(Error::Unreachable { base, .. }) if base == client.base())
        );
        for wrong in ["127.0.0.1:9", "localhost:9", "ftp://example.org", ""] {
            assert!(matches!(Client::new(wrong), Err(Error::BaseUrl(_))), "{wrong}");
        }
    }
}
