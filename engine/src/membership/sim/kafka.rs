//! Kafka as far as the protocol relies on it: two logs, transactional ids with their epochs, and the
//! committed history of every partition.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Sabotage,
    event::{Event, Sender},
    world::World,
};
use crate::membership::{Plan, PlanNumber, Row};

/// The transactional id of the leader's seat.
pub(super) const SEAT: &str = "leader";

/// What is asked of the broker.
pub(super) enum Request {
    Row(Box<Row>),
    Init(String),
    /// Opens a transaction.
    Write(String, u32, Payload),
    /// Commits it, or aborts it.
    End(String, u32, bool),
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    RowDone,
    Initialised(u32),
    /// The last transaction of this id is not resolved yet: ask again.
    Concurrent,
    Written,
    Committed,
    Aborted,
    Fenced,
    /// The client gives up asking what became of its commit.
    Unknown,
}

/// What one transaction writes.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Tasks(Vec<Piece>),
    Plan(Box<Plan>),
}

/// A step in the history of a partition: it was made from this position, and adds one. Where the source goes on is a row
/// of the changelog (`docs/adr/0006-the-source-position-is-a-row.md`): one position stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) partition: u32,
    pub(super) changelog: i64,
}

#[derive(Default)]
struct Producer {
    epoch: u32,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Open(Payload),
    /// It is decided, but the markers are not written everywhere.
    Resolving {
        payload: Payload,
        commit: bool,
        left: u32,
    },
}

/// The changelog of a partition, counted in commits.
#[derive(Default)]
pub(super) struct Partition {
    /// Commits that are decided: the truth.
    pub(super) decided: i64,
    /// What a reader of committed records sees.
    pub(super) changelog: i64,
    /// Transactions without a marker on it.
    pub(super) open: u32,
    pub(super) last: Option<(Sender, u32)>,
    /// How many were decided when everything was as it shall be.
    pub(super) before: i64,
}

#[derive(Default)]
pub(super) struct Kafka {
    pub(super) rows: Vec<(usize, Row)>,
    /// Plans that readers see.
    pub(super) plans: Vec<Plan>,
    /// The newest plan that is decided.
    pub(super) newest: Option<Plan>,
    pub(super) numbers: BTreeSet<PlanNumber>,
    ids: BTreeMap<String, Producer>,
    /// How far both topics are compacted, and the rows that are left of that.
    compacted: (usize, usize),
    kept: BTreeSet<usize>,
    pub(super) partitions: Vec<Partition>,
}

impl Kafka {
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn ends(&self) -> (usize, usize) {
        (self.rows.len(), self.plans.len())
    }

    /// Compacts both topics but for their newest records: of what is older, the last record of each
    /// key is left. Kafka never compacts the segment that it is writing.
    pub(super) fn compact(&mut self, newest: usize) {
        let (rows, plans) = self.ends();
        self.compacted = (rows.saturating_sub(newest), plans.saturating_sub(newest));
        let rows = self.rows[..self.compacted.0].iter().enumerate();
        let last: BTreeMap<usize, usize> = rows.map(|(i, (machine, _))| (*machine, i)).collect();
        self.kept = last.into_values().collect();
    }

    /// The row at an offset, if it is still there.
    pub(super) fn row(&self, offset: usize) -> Option<&(usize, Row)> {
        let is_there = offset >= self.compacted.0 || self.kept.contains(&offset);
        is_there.then(|| &self.rows[offset])
    }

    /// The plan at an offset, if it is still there.
    pub(super) fn plan(&self, offset: usize) -> Option<&Plan> {
        (offset + 1 >= self.compacted.1).then(|| &self.plans[offset])
    }

    pub(super) fn partition(&mut self, number: u32) -> &mut Partition {
        &mut self.partitions[number as usize]
    }

    /// Ids with an open transaction.
    pub(super) fn open_ids(&self) -> Vec<String> {
        let open = self.ids.iter();
        open.filter(|(_, producer)| matches!(producer.state, State::Open(_)))
            .map(|(id, _)| id.clone())
            .collect()
    }
}

impl World {
    pub(super) fn serve(&mut self, from: Sender, request: Request) {
        let answer = match request {
            Request::Row(row) => self.append(&from, *row),
            Request::Init(id) => self.init(&from, &id),
            Request::Write(id, epoch, payload) => self.write(&id, epoch, payload),
            Request::End(id, epoch, commit) => self.end(&from, &id, epoch, commit),
        };
        self.answer(from, answer);
    }

    fn append(&mut self, from: &Sender, row: Row) -> Answer {
        if self.random.one_in(self.swarm.lose_rows) {
            self.note(|| format!("the row of {from} is lost"));
            return Answer::RowDone;
        }
        if self.random.one_in(self.swarm.repeat_rows) {
            self.kafka.rows.push((from.machine, row.clone()));
        }
        self.note_row(from, &row);
        self.kafka.rows.push((from.machine, row));
        self.wake_all();
        Answer::RowDone
    }

    fn init(&mut self, from: &Sender, id: &str) -> Answer {
        let producer = self.kafka.ids.entry(id.to_owned()).or_default();
        match producer.state {
            State::Empty => {
                producer.epoch += 1;
                let epoch = producer.epoch;
                self.note(|| format!("{from} initialises {id}: epoch {epoch}"));
                Answer::Initialised(epoch)
            }
            State::Open(_) => {
                self.abort(id, "initialised by another");
                Answer::Concurrent
            }
            State::Resolving { .. } => Answer::Concurrent,
        }
    }

    /// Ends the open transaction of an id in the name of the broker: its producer is fenced.
    pub(super) fn abort(&mut self, id: &str, why: &str) {
        let Some(producer) = self.kafka.ids.get_mut(id) else {
            return;
        };
        producer.epoch += 1;
        if let State::Open(payload) = std::mem::take(&mut producer.state) {
            self.note(|| format!("the transaction of {id} is aborted: {why}"));
            self.resolve(id, payload, false);
        }
    }

    fn write(&mut self, id: &str, epoch: u32, payload: Payload) -> Answer {
        let producer = self.kafka.ids.entry(id.to_owned()).or_default();
        let deposed_may_write = self.sabotage == Some(Sabotage::DeposedLeaderMayWrite);
        if producer.epoch != epoch && !(deposed_may_write && id == SEAT) {
            return Answer::Fenced;
        }
        if !matches!(producer.state, State::Empty) {
            return Answer::Concurrent;
        }
        producer.state = State::Open(payload.clone());
        if let Payload::Tasks(pieces) = payload {
            for piece in pieces {
                let partition = self.kafka.partition(piece.partition);
                partition.open += 1;
            }
        }
        Answer::Written
    }

    fn end(&mut self, from: &Sender, id: &str, epoch: u32, commit: bool) -> Answer {
        let producer = self.kafka.ids.entry(id.to_owned()).or_default();
        let deposed_may_write = self.sabotage == Some(Sabotage::DeposedLeaderMayWrite);
        if producer.epoch != epoch && !(deposed_may_write && id == SEAT) {
            self.tally.fenced += 1;
            self.note(|| format!("{from} is fenced: its epoch of {id} is {epoch}"));
            if self.was_gentle && id != SEAT {
                self.violation = Some("somebody was fenced without need".into());
            }
            return Answer::Fenced;
        }
        match std::mem::take(&mut producer.state) {
            State::Open(payload) => {
                if commit {
                    match &payload {
                        Payload::Tasks(pieces) => self.decide(from, id, epoch, pieces),
                        Payload::Plan(plan) => self.decide_plan(from, plan),
                    }
                }
                self.resolve(id, payload, commit);
                if commit {
                    Answer::Committed
                } else {
                    Answer::Aborted
                }
            }
            state => {
                producer.state = state;
                Answer::Fenced
            }
        }
    }

    /// The markers follow: readers wait for them, the client does not. Those of the group's offsets nobody waits for
    /// but the next transaction.
    fn resolve(&mut self, id: &str, payload: Payload, commit: bool) {
        let is_plan = matches!(payload, Payload::Plan(_));
        let left = if is_plan { 1 } else { 2 };
        let state = State::Resolving {
            payload,
            commit,
            left,
        };
        self.kafka.ids.entry(id.to_owned()).or_default().state = state;
        for offsets in [false, true] {
            if offsets && is_plan {
                continue;
            }
            let delay = self.random.within(0..=self.swarm.markers);
            let id = id.to_owned();
            self.schedule(delay, Event::Markers { id, offsets });
        }
    }

    pub(super) fn on_markers(&mut self, id: &str, offsets: bool) {
        let producer = self.kafka.ids.entry(id.to_owned()).or_default();
        let State::Resolving {
            payload,
            commit,
            left,
        } = &mut producer.state
        else {
            return;
        };
        let commit = *commit;
        *left -= 1;
        let payload = if *left > 0 {
            payload.clone()
        } else {
            match std::mem::take(&mut producer.state) {
                State::Resolving { payload, .. } => payload,
                _ => return,
            }
        };
        match payload {
            Payload::Tasks(_) if offsets => {}
            Payload::Tasks(pieces) => {
                for piece in pieces {
                    let partition = self.kafka.partition(piece.partition);
                    partition.open -= 1;
                    partition.changelog += i64::from(commit);
                }
            }
            Payload::Plan(plan) if commit => {
                self.note(|| format!("plan {} is there to be read", plan.number));
                self.kafka.plans.push(*plan);
                self.wake_all();
            }
            Payload::Plan(_) => {}
        }
    }
}
