//! The operations, as `/openapi.json` describes them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::PrometheusHandle;
use pipelines::record::Record;
use pipelines::session::{AskInput, Door};
use poem::web::Data;
use poem_openapi::auth::Bearer;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::PlainText;
use poem_openapi::{ApiResponse, OpenApi, ResponseContent, SecurityScheme, Tags, Union};
use schemas::Failure;
use schemas::journal::Dialect;
use tokio_util::sync::CancellationToken;

use crate::http::answer::chat::{ChatCompletion, ChatCompletionChunk, ChatDialect};
use crate::http::answer::completion::{Completion, CompletionChunk, CompletionDialect};
use crate::http::answer::dialect::{self as words, Head};
use crate::http::body::Posted;
use crate::http::collect::collect;
use crate::http::failure::{ErrorBody, Refusal};
use crate::http::generate::{Opened, Plan};
use crate::http::images::Intake;
use crate::http::meter::Meter;
use crate::http::models::{self, Model, ModelList};
use crate::http::ready::{self, Health, ReadyResponse};
use crate::http::reply::{Events, Reply};
use crate::http::request::chat::ChatRequest;
use crate::http::request::completion::CompletionRequest;
use crate::http::stream::events;
use crate::http::streams::{Recording, Resumed, Streams};
use crate::http::trace::Trace;

/// What the operations need.
pub struct Api {
    /// The way to the bus.
    pub door: Door,
    /// The way of images in.
    pub intake: Intake,
    /// The way of streams into the journal and out of it.
    pub streams: Streams,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process shuts down.
    pub shutdown: CancellationToken,
}

#[derive(Tags)]
enum Tag {
    /// Conversations.
    Chat,
    /// Plain continuations of a prompt.
    Completions,
    /// Answers on their way.
    Streams,
    /// What can be asked for.
    Models,
    /// For operators and orchestrators.
    Operations,
}

/// The gateway's API key, when it was started with `--api-keys`. A layer before the operations checks it.
#[derive(SecurityScheme)]
enum ApiKey {
    /// Sent as `Authorization: Bearer KEY`.
    Key(#[expect(dead_code, reason = "a layer before the operations checks it")] KeyScheme),
    #[oai(fallback)]
    None,
}

/// One of the keys that the gateway was started with.
#[derive(SecurityScheme)]
#[oai(rename = "ApiKey", ty = "bearer")]
struct KeyScheme(#[expect(dead_code, reason = "a layer before the operations checks it")] Bearer);

#[derive(ResponseContent)]
enum ChatContent {
    Whole(Reply<ChatCompletion>),
    Events(Events<ChatCompletionChunk>),
}

#[derive(ApiResponse)]
enum ChatResponse {
    /// The answers: one JSON document, or with `stream` server-sent events that end with `data: [DONE]`. A failure after
    /// the stream began is an event with `error` in it, and the end of the stream.
    #[oai(status = 200)]
    Answered(ChatContent),
}

#[derive(ResponseContent)]
enum CompletionContent {
    Whole(Reply<Completion>),
    Events(Events<CompletionChunk>),
}

#[derive(ApiResponse)]
enum CompletionResponse {
    /// The answers: one JSON document, or with `stream` server-sent events that end with `data: [DONE]`. A failure after
    /// the stream began is an event with `error` in it, and the end of the stream.
    #[oai(status = 200)]
    Answered(CompletionContent),
}

/// One event of a stream that is read on: of the kind that its request asked for.
#[derive(Union)]
enum StreamEvent {
    Chat(ChatCompletionChunk),
    Completion(CompletionChunk),
}

#[derive(ApiResponse)]
enum StreamResponse {
    /// Server-sent events that end with `data: [DONE]`.
    #[oai(status = 200)]
    Read(Events<StreamEvent>),
}

#[derive(ApiResponse)]
enum ModelsResponse {
    /// The models.
    #[oai(status = 200)]
    Listed(Reply<ModelList>),
    /// The gateway wants an API key and got none, or an unknown one.
    #[oai(status = 401)]
    #[expect(dead_code, reason = "a layer before the operations answers it")]
    Unauthorized(Reply<ErrorBody>),
}

#[derive(ApiResponse)]
enum ModelResponse {
    /// The model.
    #[oai(status = 200)]
    Found(Reply<Model>),
    /// The gateway wants an API key and got none, or an unknown one.
    #[oai(status = 401)]
    #[expect(dead_code, reason = "a layer before the operations answers it")]
    Unauthorized(Reply<ErrorBody>),
    /// The model does not exist.
    #[oai(status = 404)]
    NotFound(Reply<ErrorBody>),
}

#[derive(ApiResponse)]
enum Redirect {
    /// The chat page is there.
    #[oai(status = 307)]
    ToPage(
        /// Where.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi]
impl Api {
    /// Send a browser to the chat page
    #[oai(path = "/", method = "get", hidden)]
    async fn root(&self) -> Redirect {
        Redirect::ToPage("ui".into())
    }

    /// Answer a conversation
    #[oai(
        path = "/v1/chat/completions",
        method = "post",
        operation_id = "createChatCompletion",
        tag = "Tag::Chat"
    )]
    async fn chat(
        &self,
        _key: ApiKey,
        Data(trace): Data<&Arc<Trace>>,
        Posted(request): Posted<ChatRequest>,
    ) -> Result<ChatResponse, Refusal> {
        let record = self.find(&request.model, trace)?;
        let include_usage =
            request.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true);
        let head = Head::new("chatcmpl", &record);
        let input = AskInput::Chat(request.input()?);
        let plan = Plan {
            n: request.choices()?,
            generation: request.generation()?,
            inputs: vec![input],
            images: self.intake.take(&request.images(), &record).await?,
            now_unix: head.created,
            traceparent: trace.traceparent.clone(),
            record,
        };
        let meter = Meter::new(&plan.record.model, plan.answers(), trace.started);
        let asked = plan.asked(Dialect::Chat, &head, include_usage, trace.key);
        let dialect =
            ChatDialect::new(head, plan.answers(), plan.generation.logprobs.is_some(), include_usage);
        let record = plan.record.clone();
        let opened = plan.open(&self.door).await?;
        Ok(ChatResponse::Answered(if request.stream == Some(true) {
            let recording = self.streams.begin(asked, &opened, &record).await;
            ChatContent::Events(streamed(opened, meter, dialect, include_usage, recording)?)
        } else {
            ChatContent::Whole(Reply(collect(opened, meter, dialect).await?))
        }))
    }

    /// Continue prompts
    #[oai(
        path = "/v1/completions",
        method = "post",
        operation_id = "createCompletion",
        tag = "Tag::Completions"
    )]
    async fn complete(
        &self,
        _key: ApiKey,
        Data(trace): Data<&Arc<Trace>>,
        Posted(request): Posted<CompletionRequest>,
    ) -> Result<CompletionResponse, Refusal> {
        let record = self.find(&request.model, trace)?;
        let include_usage =
            request.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true);
        let head = Head::new("cmpl", &record);
        let plan = Plan {
            n: request.choices()?,
            generation: request.generation()?,
            inputs: request.inputs()?,
            images: Vec::new(),
            now_unix: head.created,
            traceparent: trace.traceparent.clone(),
            record,
        };
        let meter = Meter::new(&plan.record.model, plan.answers(), trace.started);
        let echoed = request.echo()?;
        let n = plan.n as usize;
        // What an echo needs is not in the journal.
        let asked =
            echoed.is_none().then(|| plan.asked(Dialect::Completion, &head, include_usage, trace.key));
        let echoes =
            (0..plan.answers()).map(|index| echoed.map(|prompts| prompts[index / n].clone())).collect();
        let dialect = CompletionDialect::new(head, echoes, plan.generation.logprobs.is_some(), include_usage);
        let record = plan.record.clone();
        let opened = plan.open(&self.door).await?;
        Ok(CompletionResponse::Answered(if request.stream == Some(true) {
            let recording = match asked {
                Some(asked) => self.streams.begin(asked, &opened, &record).await,
                None => None,
            };
            CompletionContent::Events(streamed(opened, meter, dialect, include_usage, recording)?)
        } else {
            CompletionContent::Whole(Reply(collect(opened, meter, dialect).await?))
        }))
    }

    /// Read a stream on, after its connection or its gateway was lost
    ///
    /// The id is that in the `X-Stream-Id` header of the response that began the stream; any gateway of the pipeline knows
    /// it for 15 minutes, and only for the same API key. Comes with the events after `Last-Event-ID`, each exactly once.
    /// A stream whose client has left pauses, and goes on here. One client reads a stream at a time.
    #[oai(path = "/v1/streams/:id", method = "get", operation_id = "resumeStream", tag = "Tag::Streams")]
    async fn stream(
        &self,
        _key: ApiKey,
        Data(trace): Data<&Arc<Trace>>,
        /// Id of the stream.
        Path(id): Path<String>,
        /// The `id` of the last event that the client has; without it, the stream comes from its beginning.
        #[oai(name = "Last-Event-ID")]
        Header(last): Header<Option<u64>>,
    ) -> Result<StreamResponse, Refusal> {
        let Resumed { opening, head, opened, recording } =
            self.streams.resume(&id, trace.key, last.unwrap_or(0), &self.door).await?;
        let _ = trace.model.set(head.model.clone());
        let answers = opening.inputs.len() * opening.n as usize;
        let meter = Meter::new(&head.model, answers, trace.started);
        let (logprobs, usage) = (opening.generation.logprobs.is_some(), opening.include_usage);
        Ok(StreamResponse::Read(match opening.dialect {
            Dialect::Chat => {
                let dialect = ChatDialect::new(head, answers, logprobs, usage);
                streamed(opened, meter, dialect, usage, Some(recording))?
            }
            Dialect::Completion => {
                let dialect = CompletionDialect::new(head, vec![None; answers], logprobs, usage);
                streamed(opened, meter, dialect, usage, Some(recording))?
            }
        }))
    }

    /// List the models
    #[oai(path = "/v1/models", method = "get", operation_id = "listModels", tag = "Tag::Models")]
    async fn models(&self, _key: ApiKey) -> ModelsResponse {
        ModelsResponse::Listed(Reply(ModelList::of(&self.door)))
    }

    /// Describe one model
    #[oai(path = "/v1/models/:id", method = "get", operation_id = "retrieveModel", tag = "Tag::Models")]
    async fn model(
        &self,
        _key: ApiKey,
        /// Id of the model.
        Path(id): Path<String>,
    ) -> ModelResponse {
        match models::find(&self.door, &id) {
            Ok(record) => ModelResponse::Found(Reply(Model::of(record, &self.door))),
            Err(failure) => ModelResponse::NotFound(Reply(failure.into())),
        }
    }

    /// Describe one model whose id has slashes that the client does not escape
    #[oai(path = "/v1/models/*param0", method = "get", hidden)]
    async fn model_with_slashes(&self, key: ApiKey, id: Path<String>) -> ModelResponse {
        self.model(key, id).await
    }

    /// Whether the process lives
    #[oai(path = "/health", method = "get", operation_id = "health", tag = "Tag::Operations")]
    async fn health(&self) -> Reply<Health> {
        Reply(Health { status: "ok".into(), instance: self.door.instance().to_string() })
    }

    /// Whether the gateway can serve
    #[oai(path = "/ready", method = "get", operation_id = "ready", tag = "Tag::Operations")]
    async fn ready(
        &self,
        /// Asks for this model only.
        Query(model): Query<Option<String>>,
    ) -> ReadyResponse {
        ready::check(&self.door, &self.shutdown, model.as_deref())
    }

    /// Metrics for Prometheus
    #[oai(path = "/metrics", method = "get", operation_id = "metrics", tag = "Tag::Operations")]
    async fn metrics(&self) -> PlainText<String> {
        PlainText(self.metrics.render())
    }
}

impl Api {
    fn find(&self, model: &str, trace: &Trace) -> Result<Record, Refusal> {
        let record = models::find(&self.door, model)?;
        // Set once: a request names one model.
        let _ = trace.model.set(record.model.clone());
        Ok(record)
    }
}

/// The response that streams `opened`.
fn streamed<D: words::Dialect, T>(
    opened: Opened,
    meter: Meter,
    dialect: D,
    include_usage: bool,
    recording: Option<Recording>,
) -> Result<Events<T>, Failure> {
    let stream = recording.as_ref().map(|recording| recording.log.stream());
    Ok(Events::new(stream, events(opened, meter, dialect, include_usage, recording)?))
}

impl Head {
    fn new(prefix: &str, record: &Record) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: format!("{prefix}-{:032x}", rand::random::<u128>()),
            created: now.as_secs() as i64,
            model: record.model.clone(),
            fingerprint: record.fp.clone(),
        }
    }
}
