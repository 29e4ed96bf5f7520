//! The faults: what can be done to a running cluster, and how it is undone. One file for each family.

mod agents;
mod answers;
mod brokers;
mod disk;
pub mod inject;
mod network;
mod process;

use std::fmt;

use serde::Serialize;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An instance is killed, and comes back.
    Kill,
    /// An instance stands still for longer than the others wait for it, and goes on as if nothing had been.
    Zombie,
    /// An instance leaves in order, and comes back.
    Leave,
    /// A further instance with an empty disk joins, and leaves again.
    Join,
    /// The connections of an instance are cut, and no new ones accepted.
    Cut,
    /// The connections of an instance stay open and nothing moves.
    Freeze,
    /// The connections of an instance are cut once.
    Reset,
    /// Everything an instance hears of the brokers comes late.
    Delay,
    /// The answer to EndTxn is lost: was it committed?
    DropEndTxn,
    /// The answer to AddPartitionsToTxn is lost.
    DropAddPartitions,
    /// The answer to AddOffsetsToTxn is lost.
    DropAddOffsets,
    /// The answer to TxnOffsetCommit is lost.
    DropOffsetCommit,
    /// The answer to Produce is lost: are the records there?
    DropProduce,
    /// The answer to InitProducerId is lost: whose is the transactional id?
    DropInitProducerId,
    /// A broker is stopped in order, and started again.
    BrokerRestart,
    /// A broker is killed, and started again.
    BrokerKill,
    /// A broker stands still for a while.
    BrokerPause,
    /// The broker that leads a partition of the source topic is killed, and started again.
    LeaderKill,
    /// An instance's disk becomes slow.
    SlowDisk,
    /// An instance's disk becomes full: it must end, and comes back when there is space again.
    FullDisk,
    /// A file of a store of an instance is damaged while it is dead.
    CorruptStore,
    /// The clock of an agent jumps.
    AgentClock,
}

/// What is known of a kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The kind.
    pub kind: Kind,
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// The family that it belongs to.
    pub family: &'static str,
    /// How often it is chosen, compared with the others.
    pub weight: u64,
    /// How long it lasts before it is undone, in ms: from, to.
    pub lasts_ms: (i64, i64),
    /// The brokers that it needs.
    pub brokers: usize,
}

const fn fault(
    kind: Kind,
    name: &'static str,
    family: &'static str,
    weight: u64,
    lasts_ms: (i64, i64),
) -> Fault {
    Fault {
        kind,
        name,
        family,
        weight,
        lasts_ms,
        brokers: 1,
    }
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 22] = [
        fault(Kind::Kill, "kill", "process", 12, (0, 2_500)),
        fault(Kind::Zombie, "zombie", "process", 8, (2_500, 5_000)),
        fault(Kind::Leave, "leave", "process", 6, (0, 2_000)),
        fault(Kind::Join, "join", "process", 4, (500, 2_500)),
        fault(Kind::Cut, "cut", "network", 6, (300, 4_000)),
        fault(Kind::Freeze, "freeze", "network", 6, (300, 4_000)),
        fault(Kind::Reset, "reset", "network", 6, (0, 200)),
        fault(Kind::Delay, "delay", "network", 4, (500, 2_500)),
        fault(Kind::DropEndTxn, "drop-end-txn", "answers", 8, (0, 0)),
        fault(
            Kind::DropAddPartitions,
            "drop-add-partitions",
            "answers",
            4,
            (0, 0),
        ),
        fault(
            Kind::DropAddOffsets,
            "drop-add-offsets",
            "answers",
            5,
            (0, 0),
        ),
        fault(
            Kind::DropOffsetCommit,
            "drop-offset-commit",
            "answers",
            5,
            (0, 0),
        ),
        fault(Kind::DropProduce, "drop-produce", "answers", 5, (0, 0)),
        // It needs an instance that starts, and so kills one.
        fault(
            Kind::DropInitProducerId,
            "drop-init-producer-id",
            "answers",
            3,
            (0, 0),
        ),
        fault(
            Kind::BrokerRestart,
            "broker-restart",
            "brokers",
            1,
            (0, 2_000),
        ),
        fault(Kind::BrokerKill, "broker-kill", "brokers", 1, (0, 2_000)),
        fault(
            Kind::BrokerPause,
            "broker-pause",
            "brokers",
            2,
            (500, 5_000),
        ),
        Fault {
            brokers: 3,
            ..fault(Kind::LeaderKill, "leader-kill", "brokers", 3, (0, 3_000))
        },
        fault(Kind::SlowDisk, "slow-disk", "disk", 5, (500, 3_000)),
        // Seldom: a service notices only when it writes, which may take half a minute.
        fault(Kind::FullDisk, "full-disk", "disk", 1, (0, 1_000)),
        fault(Kind::CorruptStore, "corrupt-store", "disk", 4, (0, 500)),
        fault(Kind::AgentClock, "agent-clock", "agents", 4, (500, 4_000)),
    ];

    /// What is known of `kind`.
    pub fn of(kind: Kind) -> Self {
        let found = Self::ALL.into_iter().find(|fault| fault.kind == kind);
        found.unwrap_or_else(|| unreachable!("every kind is in the list"))
    }

    /// The kinds that a name on the command line stands for.
    ///
    /// # Errors
    /// There is neither a kind nor a family of this name.
    pub fn parse(text: &str) -> Result<Vec<Kind>, String> {
        let named = Self::ALL
            .iter()
            .filter(|f| f.name == text || f.family == text);
        let kinds: Vec<Kind> = named.map(|fault| fault.kind).collect();
        if kinds.is_empty() {
            let names: Vec<_> = Self::ALL.iter().map(|fault| fault.name).collect();
            return Err(format!(
                "no fault and no family; the faults are {}",
                names.join(", ")
            ));
        }
        Ok(kinds)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Fault::of(*self).name)
    }
}
