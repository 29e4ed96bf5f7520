//! Where errors of the transactional API lead: one table.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Where an error of librdkafka's transactional API leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Make the same call again.
    Again,
    /// Abort the transaction, throw the epoch away.
    Abort,
    /// The same, because a record was refused for what it is: it would be the next time, too.
    Refused,
    /// Close the tasks, start with a new producer.
    Close,
}

/// The one table of ways. `during_commit`: only the same call may follow an interrupted commit.
#[must_use]
pub fn way(error: &KafkaError, during_commit: bool) -> Way {
    let KafkaError::Transaction(transaction) = error else {
        return match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced) => Way::Close,
            Some(RDKafkaErrorCode::QueueFull) => Way::Again,
            _ if during_commit => Way::Close,
            Some(code) => undelivered(code),
            None => Way::Abort,
        };
    };
    classify(
        transaction.is_fatal(),
        transaction.is_retriable(),
        transaction.txn_requires_abort(),
    )
}

/// An error in words: librdkafka's own may not say that this producer was fenced.
pub(super) fn words(error: &KafkaError) -> String {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    match error.rdkafka_error_code() {
        Some(Fenced | InvalidProducerEpoch | ProducerFenced) => {
            format!("fenced by the next producer with its transactional id: {error}")
        }
        _ => error.to_string(),
    }
}

/// Where it leads that a record was not delivered.
#[must_use]
pub fn undelivered(code: RDKafkaErrorCode) -> Way {
    use RDKafkaErrorCode::{
        InvalidRecord, InvalidTimestamp, MessageBatchTooLarge, MessageSizeTooLarge,
        PolicyViolation, TopicAuthorizationFailed, UnsupportedForMessageFormat,
    };
    match code {
        MessageSizeTooLarge
        | MessageBatchTooLarge
        | InvalidRecord
        | InvalidTimestamp
        | PolicyViolation
        | TopicAuthorizationFailed
        | UnsupportedForMessageFormat => Way::Refused,
        _ => Way::Abort,
    }
}

/// How often in a row an epoch may be refused.
const REFUSED_AT_MOST: u32 = 5;

/// Counts refusals without a commit between them. Only the reading may be what makes an epoch what it
/// is, so the first ones are answered by reading again.
#[derive(Debug, Default)]
pub(super) struct Refusals(u32);

impl Refusals {
    /// An epoch was refused: the reason to end, if it has been often enough.
    pub(super) fn refused(&mut self, why: &str) -> Option<String> {
        self.0 += 1;
        (self.0 >= REFUSED_AT_MOST).then(|| {
            format!("what must be written was refused {REFUSED_AT_MOST} times in a row: {why}")
        })
    }

    /// An epoch was committed.
    pub(super) fn committed(&mut self) {
        self.0 = 0;
    }
}

/// What the three flags of an error mean: fatal comes before all, and what is neither retriable nor
/// abortable is of unknown outcome.
#[must_use]
pub fn classify(fatal: bool, retriable: bool, requires_abort: bool) -> Way {
    match (fatal, requires_abort, retriable) {
        (true, _, _) => Way::Close,
        (_, true, _) => Way::Abort,
        (_, _, true) => Way::Again,
        _ => Way::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_outside_the_transactional_api_has_its_way() {
        use RDKafkaErrorCode::{
            Fatal, Fenced, InvalidProducerEpoch, MessageSizeTooLarge, MessageTimedOut, QueueFull,
        };
        let produce = KafkaError::MessageProduction;
        let cases = [
            (produce(QueueFull), false, Way::Again),
            (produce(MessageTimedOut), false, Way::Abort),
            (produce(MessageSizeTooLarge), false, Way::Refused),
            (produce(MessageSizeTooLarge), true, Way::Close),
            (produce(Fatal), false, Way::Close),
            (produce(Fenced), false, Way::Close),
            // Of an interrupted commit nobody knows what became.
            (produce(MessageTimedOut), true, Way::Close),
            (KafkaError::Flush(InvalidProducerEpoch), true, Way::Close),
            (KafkaError::Canceled, true, Way::Close),
            (KafkaError::Canceled, false, Way::Abort),
        ];
        for (error, during_commit, expected) in cases {
            assert_eq!(
                way(&error, during_commit),
                expected,
                "{error:?}, commit: {during_commit}"
            );
        }
    }

    #[test]
    fn every_combination_of_flags_has_its_way() {
        let cases = [
            ((true, false, false), Way::Close),
            ((true, true, true), Way::Close),
            ((false, false, true), Way::Abort),
            ((false, true, true), Way::Abort),
            ((false, true, false), Way::Again),
            ((false, false, false), Way::Close),
        ];
        for ((fatal, retriable, abort), expected) in cases {
            assert_eq!(
                classify(fatal, retriable, abort),
                expected,
                "fatal {fatal}, retriable {retriable}, abort {abort}"
            );
        }
    }

    #[test]
    fn only_what_is_about_the_record_is_a_refusal() {
        use RDKafkaErrorCode::{
            InvalidRecord, MessageSizeTooLarge, MessageTimedOut, NotEnoughReplicas, PurgeQueue,
            TopicAuthorizationFailed, UnknownTopicOrPartition,
        };
        for (code, expected) in [
            (MessageSizeTooLarge, Way::Refused),
            (InvalidRecord, Way::Refused),
            (TopicAuthorizationFailed, Way::Refused),
            // Brokers that are away, or not well.
            (MessageTimedOut, Way::Abort),
            (NotEnoughReplicas, Way::Abort),
            (UnknownTopicOrPartition, Way::Abort),
            (PurgeQueue, Way::Abort),
        ] {
            assert_eq!(undelivered(code), expected, "{code:?}");
        }
    }

    #[test]
    fn five_refusals_in_a_row_are_enough() {
        let mut refusals = Refusals::default();
        for _ in 1..REFUSED_AT_MOST {
            assert_eq!(refusals.refused("too large"), None);
        }
        refusals.committed();
        for _ in 1..REFUSED_AT_MOST {
            assert_eq!(refusals.refused("too large"), None);
        }
        let why = refusals.refused("too large");
        assert!(why.is_some_and(|why| why.ends_with("5 times in a row: too large")));
    }
}
