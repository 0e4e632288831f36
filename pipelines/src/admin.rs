//! Health and metrics of one stage instance.

use std::net::SocketAddr;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{EndpointExt, Route, Server, get, handler, web::Data};
use tokio_util::sync::CancellationToken;

/// Binds `address` and serves `/health` and `/metrics` until `stop`; returns the bound address.
pub async fn serve(
    address: SocketAddr,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let acceptor = TcpListener::bind(address)
        .into_acceptor()
        .await
        .with_context(|| format!("admin address `{address}`"))?;
    let bound = acceptor
        .local_addr()
        .first()
        .and_then(|local| local.as_socket_addr().copied())
        .context("admin address is not a socket address")?;
    let routes = Route::new().at("/health", get(health)).at("/metrics", get(render)).data(metrics);
    tokio::spawn(async move {
        let ended = Server::new_with_acceptor(acceptor)
            .run_with_graceful_shutdown(routes, stop.cancelled(), None)
            .await;
        if let Err(error) = ended {
            tracing::error!(%error, "admin server ended");
        }
    });
    Ok(bound)
}

/// Alive: this thread answers.
#[handler]
fn health() -> &'static str {
    "ok\n"
}

#[handler]
fn render(Data(metrics): Data<&PrometheusHandle>) -> String {
    metrics.render()
}
