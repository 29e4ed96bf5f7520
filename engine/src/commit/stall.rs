//! Finds out that a producer delivers nothing although brokers answer.

/// So often may brokers answer others of this instance (see [`crate::membership::link::BEAT`]) while
/// not one record of a transaction is delivered. After that this producer is given up. librdkafka
/// would try for as long as a transaction may take, and has been seen to do so beside a broker that
/// was frozen for some seconds and answered everybody else.
const ANSWERS_WITHOUT_DELIVERY: u64 = 40;

/// Since when nothing was delivered, in answers of brokers.
pub(super) struct Stall {
    answers: u64,
    in_flight: usize,
}

impl Stall {
    pub(super) fn at(answers: u64, in_flight: usize) -> Self {
        Self { answers, in_flight }
    }

    pub(super) fn is_stuck(&mut self, answers: u64, in_flight: usize) -> bool {
        if in_flight != self.in_flight {
            *self = Self::at(answers, in_flight);
        }
        answers - self.answers >= ANSWERS_WITHOUT_DELIVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_stuck_when_only_others_are_answered() {
        let mut stall = Stall::at(7, 3);
        // Nobody is answered: the brokers are away.
        assert!(!stall.is_stuck(7, 3));
        assert!(!stall.is_stuck(7 + ANSWERS_WITHOUT_DELIVERY - 1, 3));
        // Something was delivered.
        assert!(!stall.is_stuck(7 + ANSWERS_WITHOUT_DELIVERY, 2));
        assert!(!stall.is_stuck(6 + 2 * ANSWERS_WITHOUT_DELIVERY, 2));
        assert!(stall.is_stuck(7 + 2 * ANSWERS_WITHOUT_DELIVERY, 2));
    }
}
