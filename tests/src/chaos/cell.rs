//! One cell of the matrix: clients ask, the fault strikes some times, and every answer is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt;

use super::client::{Client, Ending, Heard, Outcome};
use super::fault::{Strike, strike};
use super::load::Load;
use super::matrix::{BROKER, BROKER_OF_THREE, Cell, Fault};
use super::question::Question;
use super::verdict::Difference;
use crate::bench::random::Random;
use crate::cluster::{Cluster, Holdings, Options};

/// Load before, between and after faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 1300);
/// After a fault was taken away, a silence may still be its doing for this long.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Memory of the broker that a filler must fill; the streams of one pipeline reserve most of it.
const MEMORY_TO_FILL: &str = "1GiB";
/// How long an answer of a cell may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How much is done in each cell.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pipeline.
    pub options: Options,
    /// Clients at a time.
    pub clients: usize,
    /// Faults of a cell.
    pub strikes: u32,
    /// Requests of a cell, at least.
    pub requests: u64,
    /// Where random numbers begin.
    pub seed: u64,
}

/// What was seen in one cell.
#[derive(Debug, Default, serde::Serialize)]
pub struct Row {
    /// What was done.
    pub name: String,
    /// The faults.
    pub strikes: Vec<Strike>,
    /// Requests that ended.
    pub requests: usize,
    /// Those with an answer.
    pub answered: usize,
    /// Those with 429 or 503.
    pub refused: usize,
    /// Those that ended in another way, and why.
    pub failures: Vec<String>,
    /// Tokens that were missing.
    pub lost: usize,
    /// Tokens that came twice.
    pub doubled: usize,
    /// Answers that became others.
    pub changed: usize,
    /// How often a client went to another gateway.
    pub moves: u32,
    /// For each stream under way when a fault struck, its longest silence afterwards, in seconds.
    pub silences: Vec<f64>,
}

/// A running cluster with what its answers must be.
pub struct Arena {
    cluster: Cluster,
    holdings: Holdings,
    plan: Plan,
    questions: Arc<Vec<Question>>,
    expected: Vec<Heard>,
    random: Random,
}

impl Arena {
    /// Starts a cluster for `cell` and all that share its fault and kind of target, and has every question answered undisturbed.
    pub async fn open(plan: &Plan, questions: Arc<Vec<Question>>, cell: Cell) -> anyhow::Result<Self> {
        let fault = cell.fault;
        let mut options = plan.options.clone();
        options.brokers = cell.brokers();
        options.proxied = matches!(fault, Fault::Slow | Fault::Cut | Fault::Reset);
        options.namespaces = fault == Fault::Drop;
        options.stream_memory = (fault == Fault::Full).then(|| MEMORY_TO_FILL.to_owned());
        let cluster = Cluster::start(options).await?;
        let holdings = Holdings::watch(&cluster).await?;
        holdings.all_present(&cluster).await?;
        let random = Random::new(plan.seed);
        let mut arena =
            Self { cluster, holdings, plan: plan.clone(), questions, expected: Vec::new(), random };
        arena.expected = arena.undisturbed().await?;
        Ok(arena)
    }

    /// The answer to every question, several at a time.
    async fn undisturbed(&self) -> anyhow::Result<Vec<Heard>> {
        let gateways = self.cluster.apis();
        let ask = async |(number, question): (usize, &Question)| {
            let outcome = Client::new(&gateways, number).ask(number, question).await;
            match outcome.ending {
                Ending::Answered(heard) => Ok(heard),
                ending => anyhow::bail!("undisturbed, a `{}` request: {ending:?}", question.kind),
            }
        };
        let answers = futures_util::stream::iter(self.questions.iter().enumerate().map(ask));
        answers.buffered(self.plan.clients).collect::<Vec<_>>().await.into_iter().collect()
    }

    /// A second undisturbed run beside the first.
    pub async fn calm(&mut self) -> anyhow::Result<Row> {
        let mut row = Row { name: "undisturbed".into(), ..Row::default() };
        for (heard, expected) in self.undisturbed().await?.iter().zip(&self.expected) {
            row.requests += 1;
            row.answered += 1;
            row.add(Difference::of(heard, expected));
        }
        Ok(row)
    }

    /// Runs one cell.
    pub async fn run(&mut self, cell: Cell) -> anyhow::Result<Row> {
        let load = Load::start(&self.cluster.apis(), &self.questions, self.plan.clients);
        let mut strikes = Vec::new();
        for number in 0..self.plan.strikes {
            self.pause().await;
            let victim = self.victim(cell);
            let strike = strike(&mut self.cluster, &victim, cell.fault)
                .await
                .with_context(|| format!("{cell}, strike {number}"))?;
            eprintln!("chaos: {cell} [{}/{}] {}: {}", number + 1, self.plan.strikes, victim, strike.proof);
            strikes.push(strike);
            self.holdings.all_present(&self.cluster).await.with_context(|| format!("after {cell}"))?;
        }
        self.pause().await;
        self.wait_for_requests(&load, cell).await?;
        let outcomes = tokio::time::timeout(ANSWERED_WITHIN, load.finish()).await;
        let outcomes = outcomes.with_context(|| format!("no end of the answers after {cell}"))??;
        ensure!(!outcomes.is_empty(), "nothing was asked");
        let row = self.row(cell, strikes, &outcomes);
        self.holdings.nothing_is_held(&self.cluster).await.with_context(|| format!("after {cell}"))?;
        Ok(row)
    }

    /// Waits until as many requests have ended as the plan wants; fails when none ends for long.
    async fn wait_for_requests(&self, load: &Load, cell: Cell) -> anyhow::Result<()> {
        let (mut before, mut since, mut reported) = (load.ended(), Instant::now(), Instant::now());
        while load.ended() < self.plan.requests {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if load.ended() > before {
                (before, since) = (load.ended(), Instant::now());
            }
            ensure!(since.elapsed() < ANSWERED_WITHIN, "{cell}: no request ended for {ANSWERED_WITHIN:?}");
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                eprintln!("chaos: {cell}: {before} of {} requests", self.plan.requests);
            }
        }
        Ok(())
    }

    async fn pause(&mut self) {
        let (least, most) = PAUSE_MS;
        let pause = least + self.random.below(most - least);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// One of the target's replicas.
    fn victim(&mut self, cell: Cell) -> String {
        let replica = self.random.below(u64::from(self.plan.options.replicas));
        match (cell.target, replica) {
            (BROKER_OF_THREE, _) => format!("{BROKER_OF_THREE}#{}", self.random.below(3)),
            (BROKER, _) | (_, 0) => cell.target.to_owned(),
            (target, replica) => format!("{target}#{replica}"),
        }
    }

    fn row(&self, cell: Cell, strikes: Vec<Strike>, outcomes: &[Outcome]) -> Row {
        let mut row = Row { name: cell.to_string(), requests: outcomes.len(), ..Row::default() };
        for outcome in outcomes {
            row.moves += outcome.moves;
            let kind = self.questions[outcome.question].kind;
            match &outcome.ending {
                Ending::Answered(heard) => {
                    row.answered += 1;
                    let difference = Difference::of(heard, &self.expected[outcome.question]);
                    if difference != Difference::None {
                        eprintln!("chaos: {cell}: a `{kind}` answer: {difference:?}");
                    }
                    row.add(difference);
                }
                Ending::Refused(why) => {
                    row.refused += 1;
                    eprintln!("chaos: {cell}: a `{kind}` request: {why}");
                }
                Ending::Failed(why) => row.failures.push(format!("{kind}: {why}")),
            }
        }
        row.silences = strikes.iter().flat_map(|it| outcomes.iter().filter_map(|o| silence(o, it))).collect();
        row.strikes = strikes;
        row
    }
}

impl Row {
    /// A cell that could not be run to its end.
    pub fn broken(cell: &Cell, error: &anyhow::Error) -> Self {
        let why = format!("{error:#}");
        let first_line = why.lines().next().unwrap_or_default().to_owned();
        Self { name: cell.to_string(), failures: vec![first_line], ..Self::default() }
    }

    fn add(&mut self, difference: Difference) {
        match difference {
            Difference::None => {}
            Difference::Lost(tokens) => self.lost += tokens,
            Difference::Doubled(tokens) => self.doubled += tokens,
            Difference::Changed(_) => self.changed += 1,
        }
    }
}

/// The longest silence that a strike may have caused in a stream that was under way, in seconds.
fn silence(outcome: &Outcome, strike: &Strike) -> Option<f64> {
    let last = *outcome.arrivals.last()?;
    if outcome.began > strike.at || last <= strike.at {
        return None;
    }
    let mut before = strike.at;
    let mut longest = Duration::ZERO;
    for &arrival in outcome.arrivals.iter().filter(|arrival| **arrival > strike.at) {
        longest = longest.max(arrival - before);
        before = arrival;
        if before > strike.healed + AFTERMATH {
            break;
        }
    }
    Some(longest.as_secs_f64())
}
