//! Agents whose clocks are wrong.

use tokio::time::sleep;

use crate::plan::Step;
use crate::world::World;

/// The clock of an agent jumps: far ahead (its reports are from the future), a little ahead (they are taken, and the
/// right ones that follow look old), or back (they are old, or stale).
pub(super) async fn clock(world: &World, step: &Step) -> String {
    let ahead_ms = match step.variant % 6 {
        0 => 3_600_000,
        1 => 2_500,
        2 => 2_990,
        3 => -1_500,
        4 => -4_900,
        _ => -3_600_000,
    };
    let agent = world.writer.set_clock(step.target, ahead_ms);
    sleep(step.lasts).await;
    world.writer.set_clock(step.target, 0);
    format!("{} by {ahead_ms} ms", agent.unwrap_or_default())
}
