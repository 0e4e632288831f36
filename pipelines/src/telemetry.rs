//! Logs and metrics of a process.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// How often the exporter folds its histograms.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Upper bounds of the time histograms, in seconds: from a bus hop to a long answer.
const SECONDS: [f64; 16] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0];

/// Sends log lines to standard error; `TOKENWAY_LOG` filters them (default `info`).
pub fn init_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TOKENWAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn,poem=warn"));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call (two services in one process, in tests) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Installs the metrics recorder of this process.
pub fn init_metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}
