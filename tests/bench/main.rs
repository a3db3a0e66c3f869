//! `./dev bench`: the budgets of SPECIFICATION.md and the comparisons, measured
//! on the shipped programs (profile dist), as Markdown and JSON under
//! `target/bench/`. Speeds are ratios beside a peer in the same run.

mod idle;
mod table;
mod update;

use std::process::ExitCode;

use table::Table;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--help" || word == "-h") {
        println!("Usage: ./dev bench [--check]\n\n  --check   exit with 1 when a budget is passed");
        return ExitCode::SUCCESS;
    }
    let check = arguments.iter().any(|word| word == "--check");
    let mut table = Table::default();
    idle::measure(&mut table);
    update::measure(&mut table);
    table.write();
    if check && table.is_over() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
