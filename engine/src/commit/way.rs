//! Where errors of the transactional API lead: one table.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Where an error of librdkafka's transactional API leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Make the same call again.
    Again,
    /// Abort the transaction, throw the epoch away.
    Abort,
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
            _ => Way::Abort,
        };
    };
    classify(
        transaction.is_fatal(),
        transaction.is_retriable(),
        transaction.txn_requires_abort(),
    )
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
            (produce(MessageSizeTooLarge), false, Way::Abort),
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
}
