//! `GET /v1/models`: every pipeline on the bus, running or not.

use pipelines::record::Record;
use pipelines::session::Door;
use poem_openapi::Object;
use schemas::{Failure, FailureKind};
use serde::Serialize;

/// The models.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// One entry a model.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Object, Serialize)]
pub struct Model {
    /// Goes into the `model` field of requests.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Seconds since the Unix epoch when its pipeline was first started.
    pub created: u64,
    /// Always `tokenway`.
    pub owned_by: String,
    /// Longest prompt and answer together, in tokens.
    pub context_length: u32,
    /// Fingerprint of weights, tokenizer, template and layer plan.
    pub fingerprint: String,
    /// Whether every stage that text needs runs.
    pub ready: bool,
    /// Whether it takes images.
    pub vision: bool,
}

impl ModelList {
    /// Every model that `door` knows, by id.
    pub fn of(door: &Door) -> Self {
        let mut ids: Vec<String> = door.pipelines().into_iter().map(|record| record.model).collect();
        ids.sort_unstable();
        ids.dedup();
        let data =
            ids.iter().filter_map(|id| door.pipeline(id)).map(|record| Model::of(record, door)).collect();
        Self { object: "list".into(), data }
    }
}

impl Model {
    /// The model of `record`.
    pub fn of(record: Record, door: &Door) -> Self {
        Self {
            ready: door.missing(&record).is_empty(),
            vision: record.images.is_some(),
            id: record.model,
            object: "model".into(),
            created: record.created,
            owned_by: "tokenway".into(),
            context_length: record.context_length,
            fingerprint: record.fp,
        }
    }
}

/// The pipeline that serves `model`.
pub fn find(door: &Door, model: &str) -> Result<Record, Failure> {
    door.pipeline(model).ok_or_else(|| {
        let message = format!("the model `{model}` does not exist");
        Failure { param: Some("model".into()), ..Failure::new(FailureKind::NotFound, message) }
            .with_code("model_not_found")
    })
}
