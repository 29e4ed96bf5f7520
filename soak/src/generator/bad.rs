//! Records that must become dead letters, one way each.

use common::schema::{SetState, SiteAttackReport, SiteAttackVerdict, State};
use common::wire::HEADER_LEN;

use super::{History, Write};

/// Longest object id that the service is told to accept, in bytes.
pub const OBJECT_ID_BYTES: usize = 64;
/// Largest record that the service is told to accept, in bytes.
pub const RECORD_BYTES: usize = 4_096;

/// How many ways there are.
const WAYS: u64 = 15;

impl History {
    /// A record that cannot be processed.
    pub(super) fn bad(&mut self, now_ms: i64) -> Option<Write> {
        let way = self.random.below(WAYS);
        self.bad_in(way, now_ms)
    }

    /// A record that cannot be processed for this reason.
    pub(super) fn bad_in(&mut self, way: u64, now_ms: i64) -> Option<Write> {
        let id = self.any_id()?;
        // Its agent is nobody else's, so that it would be noticed if it counted.
        let report = SiteAttackReport {
            object_id: id.clone(),
            agent_id: "agent-bad".to_owned(),
            verdict: SiteAttackVerdict::UnderAttack,
            observed_at_ms: now_ms,
            sequence: i64::try_from(way).ok()?,
            attack_kind: None,
            requests_per_second: None,
            detail: None,
        };
        let mut write = self.framed(&id, &self.schemas.report, &report)?;
        let value = write.value.as_mut()?;
        match way {
            0 => write.value = Some(b"{\"json\": true}".to_vec()),
            1 => value.truncate(3),
            2 => write.value = None,
            3 => drop(value.splice(1..5, 99_999_999u32.to_be_bytes())),
            4 => drop(value.pop()),
            5 => value.push(0),
            6 => *value = self.newer(&report)?,
            7 => *value = self.schemas.state.encode(&state(&id)).ok()?,
            8 => {
                let command = SetState {
                    object_id: id,
                    verdict: "DEGRADED".to_owned(),
                    operator: None,
                    note: None,
                    expires_at_ms: None,
                    issued_at_ms: now_ms,
                };
                *value = self.schemas.set_state.encode(&command).ok()?;
            }
            9 => write.key = None,
            10 => write.key = Some(vec![0xff, 0xfe]),
            11 => write.key = Some(vec![b'x'; OBJECT_ID_BYTES + 1]),
            12 => {
                let other = self.any_id()?;
                let mut other = self.framed(&other, &self.schemas.report, &report)?;
                if other.key == write.key {
                    return None;
                }
                other.value = write.value;
                return Some(other);
            }
            13 => {
                let future = SiteAttackReport {
                    observed_at_ms: now_ms + 3_600_000,
                    ..report
                };
                *value = self.schemas.report.encode(&future).ok()?;
            }
            _ => {
                let huge = SiteAttackReport {
                    detail: Some("x".repeat(RECORD_BYTES)),
                    ..report
                };
                *value = self.schemas.report.encode(&huge).ok()?;
            }
        }
        Some(write)
    }

    /// A report of a newer agent, with a verdict that this service does not know.
    fn newer(&self, report: &SiteAttackReport) -> Option<Vec<u8>> {
        let good = self.schemas.report.encode(report).ok()?;
        let mut newer = common::wire::header(self.schemas.newer_report);
        newer.extend_from_slice(&good[HEADER_LEN..]);
        // The verdict follows the two ids: each is a length of one byte and its text.
        let ids = 1 + report.object_id.len() + 1 + report.agent_id.len();
        *newer.get_mut(HEADER_LEN + ids)? = 4;
        Some(newer)
    }
}

fn state(id: &str) -> State {
    State {
        object_id: id.to_owned(),
        scenario: "site-attack".to_owned(),
        verdict: "CLEAR".to_owned(),
        previous_verdict: None,
        basis: common::schema::Basis::Votes,
        cause: common::schema::Cause::Vote,
        since_ms: 0,
        version: 1,
        votes: Vec::new(),
        override_: None,
    }
}
