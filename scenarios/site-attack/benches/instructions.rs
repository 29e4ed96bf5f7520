//! What `scripts/instructions.sh` counts: one case, named on the command line, under callgrind.
//!
//! Only what happens inside [`Drain::process`] and [`Drain::cut`] is counted; the script says so to
//! callgrind by their names.

mod drain;

use drain::Drain;

/// Reports that are counted.
const REPORTS: usize = 20_000;

fn main() {
    // `cargo bench` adds flags of its own.
    let case = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let (agents, objects) = match case.as_deref() {
        None | Some("10-agents") => (10, 2_000),
        Some("1000-agents") => (1_000, 20),
        Some(other) => panic!("{other:?} is no case: 10-agents, 1000-agents"),
    };
    let mut drain = Drain::new(objects, agents);
    for _ in 0..4 {
        let reports = drain.reports(REPORTS / 4);
        drain.process(&reports);
        drain.commit();
    }
}
