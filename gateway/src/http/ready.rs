//! `/health` and `/ready`: whether this process lives, and whether it can serve.

use pipelines::record::Record;
use pipelines::session::Door;
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::http::failure::ErrorBody;
use crate::http::models;
use crate::http::reply::Reply;

/// This process lives.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// This gateway's id on the bus.
    pub instance: String,
}

/// What this gateway can serve.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Readiness {
    /// Whether the bus is connected, nothing is shutting down, and a pipeline (or the one asked for) can serve.
    pub ready: bool,
    /// Whether the bus is connected.
    pub bus: bool,
    /// Whether this gateway is shutting down.
    pub draining: bool,
    /// The pipelines, or the one asked for.
    pub pipelines: Vec<PipelineReadiness>,
}

/// What one pipeline lacks.
#[derive(Debug, Clone, Object, Serialize)]
pub struct PipelineReadiness {
    /// The model that it serves.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Whether every stage runs.
    pub ready: bool,
    /// Stages without a running instance, such as `tokenize` or `shard-forward.1`.
    pub missing: Vec<String>,
}

/// Whether this gateway can serve.
#[derive(Debug, Clone, ApiResponse)]
pub enum ReadyResponse {
    /// It can.
    #[oai(status = 200)]
    Ready(Reply<Readiness>),
    /// The model does not exist.
    #[oai(status = 404)]
    NotFound(Reply<ErrorBody>),
    /// It cannot; the body says what is missing.
    #[oai(status = 503)]
    NotReady(Reply<Readiness>),
}

/// Whether `door` can serve `model`, or any model when none is named.
pub fn check(door: &Door, shutdown: &CancellationToken, model: Option<&str>) -> ReadyResponse {
    let records = match model.map(|model| models::find(door, model)) {
        None => door.pipelines(),
        Some(Ok(record)) => vec![record],
        Some(Err(failure)) => return ReadyResponse::NotFound(Reply(failure.into())),
    };
    let bus = door.is_connected();
    let draining = shutdown.is_cancelled();
    let pipelines: Vec<_> = records.iter().map(|record| PipelineReadiness::of(record, door)).collect();
    let ready = bus && !draining && pipelines.iter().any(|pipeline| pipeline.ready);
    let readiness = Reply(Readiness { ready, bus, draining, pipelines });
    if ready { ReadyResponse::Ready(readiness) } else { ReadyResponse::NotReady(readiness) }
}

impl PipelineReadiness {
    fn of(record: &Record, door: &Door) -> Self {
        let missing = door.missing(record);
        Self {
            model: record.model.clone(),
            fingerprint: record.fp.clone(),
            ready: missing.is_empty(),
            missing: missing.iter().map(ToString::to_string).collect(),
        }
    }
}
