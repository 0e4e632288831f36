//! The outermost layer: every request gets its trace, one log line and its place in the metrics.

use std::sync::Arc;

use poem::http::HeaderValue;
use poem::{Endpoint, IntoResponse, Request, Response};

use crate::http::trace::{REQUEST_ID, Trace};

/// Serves `request` and records how it went.
pub async fn observe<E: Endpoint>(next: Arc<E>, mut request: Request) -> poem::Result<Response> {
    let trace = Arc::new(Trace::of(&request));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request.set_data(trace.clone());
    let mut response = match next.call(request).await {
        Ok(response) => response.into_response(),
        Err(error) => error.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&trace.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let status = response.status().as_u16();
    let elapsed = trace.started.elapsed();
    let model = trace.model.get().cloned().unwrap_or_default();
    let route = route(&path);
    tracing::info!(
        %method,
        path,
        status,
        model,
        request_id = trace.id,
        seconds = elapsed.as_secs_f64(),
        "request"
    );
    let labels = [("route", route.to_owned()), ("status", status.to_string()), ("model", model)];
    metrics::counter!("tokenway_http_requests_total", &labels).increment(1);
    metrics::histogram!("tokenway_http_response_seconds", "route" => route).record(elapsed);
    Ok(response)
}

/// The route that serves `path`, for a label with few values.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 10] = [
        "/",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/ui",
    ];
    if let Some(route) = ROUTES.into_iter().find(|route| *route == path) {
        return route;
    }
    match path {
        _ if path.starts_with("/v1/models/") => "/v1/models/{id}",
        _ if path.starts_with("/v1/streams/") => "/v1/streams/{id}",
        _ if path.starts_with("/ui/") => "/ui",
        _ => "other",
    }
}
