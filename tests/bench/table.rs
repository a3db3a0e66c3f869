//! The table: what was measured, beside its budget.

use std::fmt::Write as _;

use harness::bins::root;
use serde_json::{Value, json};

/// One row.
struct Row {
    what: String,
    seen: f64,
    unit: &'static str,
    /// At most; `None`: for comparison only.
    budget: Option<f64>,
    how: String,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// A figure with its budget, and how it was seen.
    pub(crate) fn add(&mut self, what: &str, seen: f64, unit: &'static str, budget: Option<f64>, how: &str) {
        eprintln!("  {what}: {seen:.2} {unit}");
        self.rows.push(Row { what: what.to_owned(), seen, unit, budget, how: how.to_owned() });
    }

    /// Whether a budget was passed.
    pub(crate) fn is_over(&self) -> bool {
        self.rows.iter().any(|row| row.budget.is_some_and(|budget| row.seen > budget))
    }

    /// Prints the table and keeps it.
    pub(crate) fn write(&self) {
        let mut text = String::from("| what | seen | budget | how |\n|---|---|---|---|\n");
        for row in &self.rows {
            let budget = row.budget.map_or("—".to_owned(), |budget| {
                let mark = if row.seen > budget { " **over**" } else { "" };
                format!("≤ {budget} {}{mark}", row.unit)
            });
            let _ = writeln!(text, "| {} | {:.2} {} | {budget} | {} |", row.what, row.seen, row.unit, row.how);
        }
        println!("{text}");
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({"what": row.what, "seen": row.seen, "unit": row.unit, "budget": row.budget, "how": row.how}))
            .collect();
        let folder = root().join("target/bench");
        std::fs::create_dir_all(&folder).expect("target/bench");
        std::fs::write(folder.join("bench.md"), text).expect("the table");
        std::fs::write(folder.join("bench.json"), json!({ "rows": rows }).to_string()).expect("the table");
    }
}
