//! The table of a chaos run.

use std::fmt;

use super::cell::Row;
use crate::bench::spread::percentile;
use crate::bench::table::Table;

/// What was seen in all cells.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// One a cell, in their order; undisturbed runs among them.
    pub rows: Vec<Row>,
}

impl Report {
    /// Everything that must not be; `changed_is_fault` where answers are promised to be equal.
    pub fn faults(&self, changed_is_fault: bool) -> Vec<String> {
        let mut faults = Vec::new();
        for row in &self.rows {
            let name = &row.name;
            faults.extend(row.failures.iter().map(|failure| format!("{name}: {failure}")));
            if row.lost + row.doubled > 0 {
                faults.push(format!("{name}: {} tokens lost, {} doubled", row.lost, row.doubled));
            }
            if changed_is_fault && row.changed > 0 {
                faults.push(format!("{name}: {} answers changed", row.changed));
            }
        }
        faults
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let silence = |quantile: f64| match self.silences.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.2}", percentile(&self.silences, quantile)),
        };
        vec![
            self.name.clone(),
            self.strikes.len().to_string(),
            self.requests.to_string(),
            self.answered.to_string(),
            self.refused.to_string(),
            self.failures.len().to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            self.changed.to_string(),
            silence(0.5),
            silence(0.99),
            silence(1.0),
        ]
    }
}

/// In one line, while others are still to come.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, answered, refused, failures, lost, doubled, changed, .. } = self;
        let failed = failures.len();
        write!(f, "{name}: {answered} answered, {refused} refused, {failed} failed; ")?;
        write!(f, "{lost} tokens lost, {doubled} doubled, {changed} answers changed")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header =
            "fault|strikes|requests|answered|refused|failed|lost|doubled|changed|silence s p50|p99|max";
        let mut table = Table::new(header.split('|'));
        let mut all = Row { name: "all".into(), ..Row::default() };
        for row in &self.rows {
            table.row(row.cells());
            all.take(row);
        }
        table.row(all.cells());
        writeln!(f, "lost and doubled are tokens, changed is answers; refused is 429 or 503.")?;
        writeln!(
            f,
            "Silence: the longest time without an event in each stream that was under way at a strike.\n"
        )?;
        write!(f, "{table}")
    }
}

impl Row {
    fn take(&mut self, row: &Row) {
        self.strikes.extend(row.strikes.iter().cloned());
        self.requests += row.requests;
        self.answered += row.answered;
        self.refused += row.refused;
        self.failures.extend(row.failures.iter().cloned());
        self.lost += row.lost;
        self.doubled += row.doubled;
        self.changed += row.changed;
        self.silences.extend(&row.silences);
    }
}
