//! What an attempt to send a mail means for that mail: a pure decision.

use std::{fmt, time::Duration};

use lettre::transport::smtp::Error;

/// How far an attempt had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, greeting, encrypting, logging in: about no mail in particular.
    Connect,
    /// Sender, recipient, up to the server's consent to take the content.
    Envelope,
    /// The content was on its way.
    Content,
}

/// What was seen of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It replied with this code.
    Reply(u16),
    /// No reply that could be understood: the connection broke, timed out, spoke something else.
    Nothing,
}

/// What that means for the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server has it.
    Accepted,
    /// The server does not have it and may take it later.
    Retry,
    /// Nobody knows whether the server has it: send the same bytes again.
    Unknown,
    /// The server will never take it.
    Refused,
}

impl Verdict {
    /// As a label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Retry => "retry",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }
}

/// Decides what `observed` in `phase` means.
///
/// Replies after RFC 5321, 4.2.1: 4yz may pass later, 5yz is final. Not final are those that
/// complain about this client's login (RFC 4954: 530, 534, 535, 538): an operator mends that, and
/// the mail is not at fault. In [`Phase::Content`] only 250 says that the server has the mail.
#[must_use]
pub fn classify(phase: Phase, observed: Observed) -> Verdict {
    match (phase, observed) {
        (Phase::Content, Observed::Reply(250)) => Verdict::Accepted,
        (Phase::Connect, _) => Verdict::Retry,
        (_, Observed::Reply(530 | 534 | 535 | 538)) => Verdict::Retry,
        (_, Observed::Reply(500..=599)) => Verdict::Refused,
        (_, Observed::Reply(400..=499)) | (Phase::Envelope, _) => Verdict::Retry,
        (Phase::Content, Observed::Reply(_) | Observed::Nothing) => Verdict::Unknown,
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it means for the mail.
    pub verdict: Verdict,
    /// The server's words, or what became of the connection.
    pub detail: String,
}

impl Answer {
    /// What `error` means in `phase`.
    #[must_use]
    pub fn of(phase: Phase, error: &Error) -> Self {
        let observed = match error.status() {
            Some(code) => Observed::Reply(code.into()),
            None => Observed::Nothing,
        };
        Self {
            verdict: classify(phase, observed),
            detail: error.to_string(),
        }
    }

    /// The server took longer than `deadline`.
    #[must_use]
    pub fn timed_out(phase: Phase, deadline: Duration) -> Self {
        Self {
            verdict: classify(phase, Observed::Nothing),
            detail: format!("no answer within {deadline:?}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Observed::{Nothing, Reply},
        Phase::{Connect, Content, Envelope},
        Verdict::{Accepted, Refused, Retry, Unknown},
        *,
    };

    #[test]
    fn answers_mean_what_they_should() {
        let cases = [
            // Nothing before the first mail is about a mail.
            (Connect, Reply(421), Retry),
            (Connect, Reply(535), Retry),
            (Connect, Reply(554), Retry),
            (Connect, Nothing, Retry),
            (Envelope, Reply(421), Retry),
            (Envelope, Reply(450), Retry),
            (Envelope, Reply(550), Refused),
            (Envelope, Reply(553), Refused),
            (Envelope, Reply(530), Retry),
            (Envelope, Reply(535), Retry),
            (Envelope, Nothing, Retry),
            (Content, Reply(250), Accepted),
            // Not what RFC 5321 allows: nobody knows.
            (Content, Reply(220), Unknown),
            (Content, Reply(251), Unknown),
            (Content, Reply(354), Unknown),
            (Content, Reply(421), Retry),
            (Content, Reply(452), Retry),
            (Content, Reply(552), Refused),
            (Content, Reply(554), Refused),
            (Content, Nothing, Unknown),
        ];
        for (phase, observed, verdict) in cases {
            assert_eq!(classify(phase, observed), verdict, "{phase:?} {observed:?}");
        }
    }
}
