//! Once every agent has reported every object, a report costs no allocation; only what is published does.

#[path = "../benches/drain/mod.rs"]
mod drain;

use drain::Drain;

/// What a published state may cost: its key, its value while that grows, the encoder's own.
const PER_STATE: u64 = 12;

#[test]
fn a_report_that_changes_no_state_allocates_nothing() {
    let (objects, agents, reports) = (200, 10, 4_000);
    let mut drain = Drain::new(objects, agents);
    // Texts that come now and then find their room.
    for _ in 0..10 {
        let reports = drain.reports(reports);
        drain.process(&reports);
        drain.commit();
    }
    let reports = drain.reports(reports);
    let counted = allocation_counter::measure(|| drain.process(&reports));
    let epoch = drain.cut().expect("something happened");
    let states = epoch.outputs.len() as u64;
    assert!(states < reports.len() as u64 / 2, "{states} states");
    // Lists that grow with the epoch, pieces of text that outgrow their place.
    let few = reports.len() as u64 / 50;
    let most = states * PER_STATE + few;
    assert!(counted.count_total <= most, "{counted:?}, {states} states");
}
