//! What the echo engine's load showed, beside a peer's figures.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::bench::echo::{ANSWER_TOKENS, PROMPT_TOKENS, Window};
use crate::bench::spread::{Spread, percentile};
use crate::bench::table::Table;

/// All loads.
#[derive(Debug, Clone, Serialize)]
pub struct EchoReport {
    /// How often each load was measured.
    pub rounds: u32,
    /// How long each time.
    pub seconds: f64,
    /// In the order in which they were asked for.
    pub loads: Vec<LoadReport>,
}

/// One number of clients.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    clients: u32,
    tokens_per_second: Spread,
    ttft_ms_p50: f64,
    ttft_ms_p99: f64,
    itl_ms_p50: f64,
    itl_ms_p99: f64,
    /// CPU seconds per 1,000 tokens of all server processes.
    cpu_seconds: Spread,
    /// The same of each process, the median.
    cpu_seconds_of: BTreeMap<String, f64>,
}

/// A line of a peer's published measurement.
struct Peer {
    clients: &'static str,
    tokens_per_second: &'static str,
    ttft_ms_p50: &'static str,
    itl_ms_p50: &'static str,
    cpu_seconds: &'static str,
}

/// NVIDIA Dynamo 1.6.1, echo worker, TCP request plane without a bus, two processes, the same lengths, client on the same
/// two processors.
const DYNAMO: [Peer; 3] = [
    Peer { clients: "1", tokens_per_second: "1400", ttft_ms_p50: "44", itl_ms_p50: "-", cpu_seconds: "0.24" },
    Peer {
        clients: "32",
        tokens_per_second: "15000–20000",
        ttft_ms_p50: "12–29",
        itl_ms_p50: "1.2–1.7",
        cpu_seconds: "0.085–0.106",
    },
    Peer {
        clients: "128",
        tokens_per_second: "15000–17000",
        ttft_ms_p50: "37–60",
        itl_ms_p50: "6.4–7.8",
        cpu_seconds: "0.095",
    },
];

impl LoadReport {
    /// Of the windows measured with `clients` clients.
    pub fn new(clients: u32, windows: &[Window]) -> Self {
        let ms = |values: Vec<f64>, quantile| percentile(&values, quantile) * 1e3;
        let ttft: Vec<f64> = windows.iter().flat_map(|window| window.ttft.clone()).collect();
        let itl: Vec<f64> = windows.iter().flat_map(|window| window.itl.clone()).collect();
        let per_thousand = |window: &Window, seconds: f64| seconds / window.tokens as f64 * 1e3;
        let names =
            windows.first().map(|window| window.cpu.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let of = |name: &str| {
            Spread::of(windows.iter().map(|window| per_thousand(window, window.cpu[name]))).median
        };
        Self {
            clients,
            tokens_per_second: Spread::of(windows.iter().map(|window| window.tokens as f64 / window.seconds)),
            ttft_ms_p50: ms(ttft.clone(), 0.5),
            ttft_ms_p99: ms(ttft, 0.99),
            itl_ms_p50: ms(itl.clone(), 0.5),
            itl_ms_p99: ms(itl, 0.99),
            cpu_seconds: Spread::of(
                windows.iter().map(|window| per_thousand(window, window.cpu.values().sum())),
            ),
            cpu_seconds_of: names.into_iter().map(|name| (name.clone(), of(&name))).collect(),
        }
    }
}

impl EchoReport {
    fn loads(&self) -> Table {
        let mut table = Table::new([
            "clients",
            "tok/s",
            "TTFT ms p50",
            "p99",
            "ITL ms p50",
            "p99",
            "server CPU s per 1,000 tokens",
        ]);
        for load in &self.loads {
            table.row([
                load.clients.to_string(),
                format!("{:.0}", load.tokens_per_second),
                format!("{:.2}", load.ttft_ms_p50),
                format!("{:.2}", load.ttft_ms_p99),
                format!("{:.3}", load.itl_ms_p50),
                format!("{:.3}", load.itl_ms_p99),
                format!("{:.4}", load.cpu_seconds),
            ]);
        }
        table
    }

    fn processes(&self) -> Table {
        let clients = self.loads.iter().map(|load| format!("{} clients", load.clients));
        let mut table = Table::new(["CPU s per 1,000 tokens".to_owned()].into_iter().chain(clients));
        let names = self.loads.first().map(|load| load.cpu_seconds_of.keys()).into_iter().flatten();
        for name in names {
            let cells = self.loads.iter().map(|load| format!("{:.4}", load.cpu_seconds_of[name]));
            table.row([name.clone()].into_iter().chain(cells));
        }
        table
    }
}

impl fmt::Display for EchoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seconds, .. } = self;
        write!(
            f,
            "\
Echo engine: everything but the model
  lengths    {PROMPT_TOKENS} prompt tokens, {ANSWER_TOKENS} tokens out, streamed; each client asks again at once
  figures    {rounds} rounds of {seconds} s; median [least–most] of the rounds, percentiles over all of them
  server     gateway, tokenize, two of shard-forward, sample, detokenize, nats-server; the client runs on the same
             processors and is not counted

{}
Aims: at most 0.03 CPU s at 32 and 128 clients, TTFT at most 5 ms at 1 client.

{}
NVIDIA Dynamo 1.6.1 with an echo worker (TCP, no bus, two processes), the same lengths, client on the same processors.
Published figures, measured on a like machine; this command did not run it:

{}
Its 44 ms are its client's delayed ACKs: with quick ACKs it gave 6000 tok/s, TTFT 1.7 ms, ITL 0.14 ms, CPU 0.19 s.
",
            self.loads(),
            self.processes(),
            dynamo()
        )
    }
}

fn dynamo() -> Table {
    let mut table =
        Table::new(["clients", "tok/s", "TTFT ms p50", "ITL ms p50", "server CPU s per 1,000 tokens"]);
    for peer in &DYNAMO {
        let cells =
            [peer.clients, peer.tokens_per_second, peer.ttft_ms_p50, peer.itl_ms_p50, peer.cpu_seconds];
        table.row(cells.map(str::to_owned));
    }
    table
}
