//! Pages for people, embedded in the binary: the chat page and the API's documentation. They load nothing from elsewhere.

use bytes::Bytes;
use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::{IntoEndpoint, Response, Route, get};

use crate::http::document;

const CHAT_HTML: &str = include_str!("../../ui/index.html");
const CHAT_CSS: &str = include_str!("../../ui/app.css");
const CHAT_JS: &str = include_str!("../../ui/app.js");
const IMAGES_JS: &str = include_str!("../../ui/images.js");
const SETTINGS_JS: &str = include_str!("../../ui/settings.js");
const API_JS: &str = include_str!("../../ui/api.js");
const ICON_SVG: &str = include_str!("../../ui/icon.svg");

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The chat page may load and call this origin only, and shows attached images from their `data:` URLs.
const CHAT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                           img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The documentation is one page with its script and styles inside.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                           img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Puts the pages into `routes`.
pub fn add(routes: Route) -> Route {
    routes
        .at("/openapi.json", page(JSON, "default-src 'none'", document::json()))
        .at("/docs", page(HTML, DOCS_POLICY, document::page()))
        .at("/ui", page(HTML, CHAT_POLICY, CHAT_HTML))
        .at("/ui/", redirect("../ui"))
        .at("/ui/app.css", page("text/css; charset=utf-8", CHAT_POLICY, CHAT_CSS))
        .at("/ui/app.js", page(JAVASCRIPT, CHAT_POLICY, CHAT_JS))
        .at("/ui/images.js", page(JAVASCRIPT, CHAT_POLICY, IMAGES_JS))
        .at("/ui/settings.js", page(JAVASCRIPT, CHAT_POLICY, SETTINGS_JS))
        .at("/ui/api.js", page(JAVASCRIPT, CHAT_POLICY, API_JS))
        .at("/ui/icon.svg", page("image/svg+xml", CHAT_POLICY, ICON_SVG))
        .at("/favicon.ico", page("image/svg+xml", CHAT_POLICY, ICON_SVG))
}

fn page(
    content_type: &'static str,
    policy: &'static str,
    content: impl Into<Bytes>,
) -> impl IntoEndpoint<Endpoint: 'static> {
    let content = content.into();
    get(make_sync(move |_| {
        Response::builder()
            .content_type(content_type)
            .header("content-security-policy", policy)
            .header("x-content-type-options", "nosniff")
            .header("referrer-policy", "no-referrer")
            .header("cache-control", "no-cache")
            .body(content.clone())
    }))
}

/// Sends a browser to `place`, which is relative, so that it holds behind a proxy's prefix, too.
fn redirect(place: &'static str) -> impl IntoEndpoint<Endpoint: 'static> {
    get(make_sync(move |_| {
        Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header("location", place).finish()
    }))
}
