//! `./dev bench`: the budgets of SPECIFICATION.md and the comparisons, measured
//! on the shipped programs (profile dist), as Markdown and JSON under
//! `target/bench/`. Speeds are ratios beside a peer in the same run.

mod hub;
mod idle;
mod kubernetes;
mod stage;
mod table;
mod targets;
mod update;

use std::process::ExitCode;

use table::Table;

const USAGE: &str = "Usage: ./dev bench [--check] [SECTION…]

  --check   exit with 1 when a budget is passed

Sections: size, targets, idle, update, kubernetes, hub; all of them where none is named.";

type Section = (&'static str, fn(&mut Table));

/// What can be measured, in this order.
const SECTIONS: [Section; 6] = [
    ("size", idle::sizes),
    ("targets", targets::measure),
    ("idle", idle::measure),
    ("update", update::measure),
    ("kubernetes", kubernetes::measure),
    ("hub", hub::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let check = arguments.iter().any(|word| word == "--check");
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--check").collect();
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.iter().any(|(known, _)| known == *name)) {
        eprintln!("unknown section {unknown}\n\n{USAGE}");
        return ExitCode::from(2);
    }
    let mut table = Table::default();
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.contains(&name) {
            eprintln!("== {name}");
            measure(&mut table);
        }
    }
    table.write();
    if check && table.is_over() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
