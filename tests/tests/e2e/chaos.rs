//! Cells of `make chaos` that every change must pass: each stage restarted in turn, under load.

use std::sync::Arc;

use tests::Options;
use tests::chaos::cell::{Arena, Plan, Row};
use tests::chaos::matrix::{Cell, Fault, matrix};
use tests::chaos::question;

/// Strikes every process once with `fault`, under load.
async fn strike_all(fault: Fault) -> anyhow::Result<Vec<Row>> {
    let mut options = Options::demo().set("shard-forward", "deterministic", true);
    options.replicas = 2;
    let plan = Plan { options, clients: 8, strikes: 1, requests: 0, seed: 1 };
    let is_process = |cell: &Cell| cell.fault == fault && !cell.target.starts_with("nats-server");
    let cells: Vec<Cell> = matrix().into_iter().filter(is_process).collect();
    let mut arena = Arena::open(&plan, Arc::new(question::all()?), cells[0]).await?;
    let mut rows = Vec::new();
    for cell in cells {
        rows.push(arena.run(cell).await?);
    }
    Ok(rows)
}

fn assert_nothing_happened(rows: &[Row]) {
    for row in rows {
        let Row { name, requests, answered, failures, lost, doubled, changed, .. } = row;
        assert_eq!((answered, lost, doubled, changed), (requests, &0, &0, &0), "{name}: {failures:?}");
    }
}

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_request() -> anyhow::Result<()> {
    assert_nothing_happened(&strike_all(Fault::Term).await?);
    Ok(())
}

#[tokio::test]
async fn killing_one_of_two_of_each_process_under_load_fails_no_request() -> anyhow::Result<()> {
    assert_nothing_happened(&strike_all(Fault::Kill).await?);
    Ok(())
}
