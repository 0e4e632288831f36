//! The HTTP server: settings, layers, start and end.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use pipelines::journal::Journal;
use pipelines::session::Door;
use poem::endpoint::BoxEndpoint;
use poem::middleware::CatchPanic;
use poem::{EndpointExt, IntoResponse, Response, Route, Server};
use poem_openapi::OpenApiService;
use schemas::{Failure, FailureKind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::acceptor::DoorAcceptor;
use crate::http::api::Api;
use crate::http::body::BodyLimit;
use crate::http::cors::{Origin, allow_origin};
use crate::http::failure::{Refusal, answer_errors};
use crate::http::images::Intake;
use crate::http::images::hosts::Hosts;
use crate::http::keys::{ApiKeys, require_key};
use crate::http::streams::Streams;
use crate::http::{access, document, pages};

/// What an operator decides.
#[derive(Clone)]
pub struct HttpSettings {
    /// Keys that `/v1` wants; none leaves it open.
    pub keys: Option<ApiKeys>,
    /// Whose web pages may call.
    pub cors: Option<Origin>,
    /// Hosts that images are fetched from.
    pub image_hosts: Hosts,
    /// Largest request body in bytes.
    pub body_bytes_max: usize,
    /// Connections served at a time.
    pub connections_max: usize,
    /// How long requests may run on after a shutdown has begun.
    pub drain: Duration,
    /// Where streams are recorded; without it they end with their gateway.
    pub journal: Option<Journal>,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
}

/// Serves `door` on `listener` until `shutdown`, then lets the requests in flight finish within the drain time.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    settings: HttpSettings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let drain = settings.drain;
    let acceptor = DoorAcceptor::new(listener, settings.connections_max).context("HTTP listener")?;
    let routes = routes(door, settings, shutdown.clone())?;
    Server::new_with_acceptor(acceptor)
        .name("gateway")
        .run_with_graceful_shutdown(routes, shutdown.cancelled(), Some(drain))
        .await
        .context("HTTP server")
}

/// All routes behind all layers.
fn routes(
    door: Door,
    settings: HttpSettings,
    shutdown: CancellationToken,
) -> anyhow::Result<BoxEndpoint<'static, Response>> {
    let intake = Intake::new(settings.image_hosts.clone())?;
    let streams = Streams { journal: settings.journal.clone() };
    let api = Api { door, intake, streams, metrics: settings.metrics.clone(), shutdown };
    let routes = Route::new().nest("/", OpenApiService::new(api, document::TITLE, document::VERSION));
    Ok(behind_layers(pages::add(routes), settings))
}

/// `routes` with what every request passes first, the outermost layer last.
fn behind_layers(routes: Route, settings: HttpSettings) -> BoxEndpoint<'static, Response> {
    routes
        .with(CatchPanic::new().with_handler(panicked))
        .around(answer_errors)
        .around(require_key)
        .around(allow_origin)
        .around(access::observe)
        .data(BodyLimit(settings.body_bytes_max))
        .data(settings.keys)
        .data(settings.cors)
        .boxed()
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Refusal::from(Failure::new(FailureKind::Internal, "the gateway failed")).into_response()
}

#[cfg(test)]
mod tests {
    use poem::http::Method;
    use poem::{Endpoint, Request, RequestBuilder};
    use poem_openapi::OpenApi;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::body::Posted;
    use crate::http::models::Model;
    use crate::http::reply::Reply;
    use crate::http::request::chat::ChatRequest;

    const CHAT: &str = "/v1/chat/completions";

    /// Stands where the operations stand, behind the same layers.
    struct Asked;

    #[OpenApi]
    impl Asked {
        #[oai(path = "/v1/chat/completions", method = "post")]
        async fn chat(&self, Posted(request): Posted<ChatRequest>) -> Result<Reply<Model>, Refusal> {
            assert_ne!(request.model, "panics");
            request.generation()?;
            Err(Failure::new(FailureKind::Overloaded, "the queue is full").into())
        }
    }

    fn server(keys: &str, cors: Option<&str>) -> BoxEndpoint<'static, Response> {
        let settings = HttpSettings {
            keys: (!keys.is_empty()).then(|| ApiKeys::parse(keys)),
            cors: cors.map(|origin| origin.parse().unwrap()),
            image_hosts: Hosts::default(),
            body_bytes_max: 1000,
            connections_max: 1,
            drain: Duration::ZERO,
            journal: None,
            metrics: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
        };
        let routes = Route::new().nest("/", OpenApiService::new(Asked, "t", "1"));
        behind_layers(pages::add(routes), settings)
    }

    fn get(path: &str) -> RequestBuilder {
        Request::builder().uri_str(path)
    }

    fn post() -> RequestBuilder {
        Request::builder().method(Method::POST).uri_str(CHAT).content_type("application/json")
    }

    fn question() -> Value {
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] })
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    /// The error in the answer to `request`, which must have `status` and OpenAI's body.
    async fn error(server: &BoxEndpoint<'static, Response>, request: Request, status: u16) -> Value {
        let response = server.get_response(request).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.content_type(), Some("application/json"));
        let body = response.into_body().into_bytes().await.unwrap();
        let error = serde_json::from_slice::<Value>(&body).unwrap()["error"].take();
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        error
    }

    #[tokio::test]
    async fn every_refusal_has_openais_body() {
        let server = server("", None);
        assert_eq!(error(&server, get("/nowhere").finish(), 404).await["code"], "unknown_url");
        assert_eq!(header(&server.get_response(get(CHAT).finish()).await, "allow"), Some("POST"));
        error(&server, get(CHAT).finish(), 405).await;
        error(&server, post().content_type("text/plain").body("{}"), 415).await;
        error(&server, post().finish(), 400).await;
        assert_eq!(error(&server, post().body("x".repeat(1001)), 413).await["code"], "request_too_large");
        let overloaded = server.get_response(post().body(question().to_string())).await;
        assert_eq!(header(&overloaded, "retry-after"), Some("1"));
        error(&server, post().body(question().to_string()), 429).await;
        let mut hot = question();
        hot["temperature"] = json!(3);
        let hot = error(&server, post().body(hot.to_string()), 400).await;
        assert_eq!(hot["param"], "temperature");
        assert!(hot["message"].as_str().unwrap().contains("at most 2"), "{hot}");
    }

    #[tokio::test]
    async fn a_panic_is_answered() {
        let body = json!({ "model": "panics", "messages": [] });
        error(&server("", None), post().body(body.to_string()), 500).await;
    }

    #[tokio::test]
    async fn keys_guard_the_api_and_nothing_else() {
        let server = server("alpha\nbeta", None);
        let refused = server.get_response(post().body(question().to_string())).await;
        assert_eq!(header(&refused, "www-authenticate"), Some("Bearer"));
        let refused = error(&server, post().body(question().to_string()), 401).await;
        assert_eq!(refused["code"], "invalid_api_key");
        error(&server, get("/v1/nowhere").header("authorization", "Bearer gamma").finish(), 401).await;
        let known = post().header("authorization", "bearer beta").body(question().to_string());
        error(&server, known, 429).await;
        assert!(server.get_response(get("/ui").finish()).await.is_success());
        assert!(server.get_response(get("/openapi.json").finish()).await.is_success());
    }

    #[tokio::test]
    async fn a_request_keeps_its_id_or_gets_one() {
        let server = server("", None);
        let kept = server.get_response(get("/ui").header("x-request-id", "mine-1").finish()).await;
        assert_eq!(header(&kept, "x-request-id"), Some("mine-1"));
        let replaced = server.get_response(get("/nowhere").header("x-request-id", "a b").finish()).await;
        assert!(header(&replaced, "x-request-id").unwrap().starts_with("req-"));
    }

    #[tokio::test]
    async fn pages_of_the_allowed_origin_may_call() {
        let server = server("alpha", Some("https://a.example"));
        let preflight = Request::builder()
            .method(Method::OPTIONS)
            .uri_str(CHAT)
            .header("origin", "https://a.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type")
            .finish();
        let preflight = server.get_response(preflight).await;
        assert_eq!(preflight.status().as_u16(), 204);
        assert_eq!(header(&preflight, "access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(header(&preflight, "access-control-allow-headers"), Some("authorization, content-type"));
        let refused = server.get_response(post().header("origin", "https://a.example").finish()).await;
        assert_eq!(refused.status().as_u16(), 401);
        assert_eq!(header(&refused, "access-control-allow-origin"), Some("https://a.example"));
        let other = server.get_response(get("/ui").header("origin", "https://b.example").finish()).await;
        assert!(other.is_success());
        assert_eq!(header(&other, "access-control-allow-origin"), None);
    }
}
