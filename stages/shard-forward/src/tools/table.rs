//! Tables of text, and numbers in them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// An empty table with this header; all but the first `left` columns are aligned to the right.
pub(super) fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    table.column_iter_mut().skip(left).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A rate with the prefix of its unit: `12.3 G`.
pub(super) fn scaled(rate: f64) -> String {
    let (scale, prefix) = match rate {
        rate if rate >= 1e12 => (1e12, " T"),
        rate if rate >= 1e9 => (1e9, " G"),
        rate if rate >= 1e6 => (1e6, " M"),
        _ => (1e3, " k"),
    };
    format!("{:.1}{prefix}", rate / scale)
}

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
