//! Clients that ask without a pause while faults come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Outcome};
use super::question::Question;
use crate::client::Api;

/// Clients at work; dropped, they end at once.
pub struct Load {
    clients: JoinSet<Vec<Outcome>>,
    stop: CancellationToken,
    answered: Arc<AtomicU64>,
}

impl Load {
    /// Starts `clients` clients. Each asks one question after the other, beginning at another one, at a gateway of its own.
    pub fn start(gateways: &[Api], questions: &Arc<Vec<Question>>, clients: usize) -> Self {
        let stop = CancellationToken::new();
        let answered = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (gateways, questions) = (gateways.to_vec(), questions.clone());
            let (stop, answered) = (stop.clone(), answered.clone());
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                let mut number = client * questions.len() / clients.max(1);
                while !stop.is_cancelled() {
                    number = (number + 1) % questions.len();
                    outcomes.push(Client::new(&gateways, client).ask(number, &questions[number]).await);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                outcomes
            });
        }
        Self { clients: tasks, stop, answered }
    }

    /// Requests that have ended, in whatever way.
    pub fn ended(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every client hear its answer out, and returns all of them.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Outcome>> {
        self.stop.cancel();
        let mut outcomes = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            outcomes.extend(ended?);
        }
        Ok(outcomes)
    }
}
