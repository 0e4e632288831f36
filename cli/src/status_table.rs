//! `tokenway status` as tables.

use comfy_table::Table;

use crate::status::{InstanceRow, Report};
use crate::table::{right, table};

/// Digits of a fingerprint that are enough for the eye.
const SHORT: usize = 8;

/// The report as text.
pub fn render(report: &Report, url: &str) -> String {
    let sections = [
        format!("NATS {url}"),
        section("pipelines", pipelines(report), report.pipelines.is_empty()),
        section("instances", instances(report), report.instances.is_empty()),
        section("queues", queues(report), report.queues.is_empty()),
    ];
    sections.join("\n\n")
}

fn section(name: &str, table: Table, is_empty: bool) -> String {
    if is_empty { format!("no {name}") } else { table.trim_fmt() }
}

fn pipelines(report: &Report) -> Table {
    let mut table = table(&["MODEL", "FINGERPRINT", "SHARDS", "CONTEXT", "STATE"]);
    for row in &report.pipelines {
        let state = if row.missing.is_empty() {
            "serving".to_owned()
        } else {
            format!("no {}", row.missing.join(", "))
        };
        let record = &row.record;
        let [shards, context] = [record.shards.to_string(), record.context_length.to_string()];
        table.add_row([&record.model, short(&record.fp), &shards, &context, &state]);
    }
    right(&mut table, &[2, 3]);
    table
}

fn instances(report: &Report) -> Table {
    let header = [
        "ROLE",
        "MODEL",
        "INSTANCE",
        "PID",
        "STATE",
        "SEQUENCES",
        "KV BLOCKS",
        "BUSY MS",
        "DONE",
        "ADMIN",
        "VERSION",
    ];
    let mut table = table(&header);
    for row in &report.instances {
        table.add_row([
            row.role.clone(),
            model(row),
            row.instance.clone(),
            row.pid.to_string(),
            row.state.to_owned(),
            of(Some(row.sequences_used), Some(row.sequences_capacity)),
            of(row.kv_blocks_used, row.kv_blocks_capacity),
            row.busy_ms.to_string(),
            row.done.to_string(),
            row.admin.clone().unwrap_or_else(|| "-".to_owned()),
            row.version.clone(),
        ]);
    }
    right(&mut table, &[3, 5, 6, 7, 8]);
    table
}

fn queues(report: &Report) -> Table {
    let mut table = table(&["QUEUE OF", "MODEL", "WAITING", "IN WORK"]);
    for row in &report.queues {
        table.add_row([&row.role, &row.model, &row.waiting.to_string(), &row.unacknowledged.to_string()]);
    }
    right(&mut table, &[2, 3]);
    table
}

/// The model, else the pipeline it would be part of.
fn model(row: &InstanceRow) -> String {
    let fp = row.fp.as_deref().map(short);
    row.model.as_deref().or(fp).unwrap_or("all").to_owned()
}

fn of(used: Option<u32>, capacity: Option<u32>) -> String {
    match (used, capacity) {
        (Some(used), Some(capacity)) => format!("{used}/{capacity}"),
        _ => "-".to_owned(),
    }
}

fn short(fp: &str) -> &str {
    fp.get(..SHORT).unwrap_or(fp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_name_what_is_missing_and_who_is_there() {
        let text = render(&crate::status::tests::report(), "nats://h:1");
        assert!(text.contains("no shard-forward.1"), "{text}");
        assert!(text.contains("1/64") && text.contains("2/2048"), "{text}");
        assert!(text.contains("no queues"), "{text}");
    }
}
