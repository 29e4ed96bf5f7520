//! The mail about a transition: the same state and recipient make the same bytes, always.
//!
//! Everything in a state is text from outside: one line each, escaped in HTML, no control
//! characters, so that nobody writes headers or fakes lines of the mail.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use common::schema::{Basis, Cause, State};
use lettre::{
    Message,
    address::Envelope,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use minijinja::{AutoEscape, Environment, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use uuid::Uuid;

/// So many votes are shown, the rest is counted: a mail is read by a person.
const VOTES_SHOWN: usize = 50;
/// So many characters of one text from outside are shown.
const LONGEST_TEXT: usize = 200;
/// What identifiers of mails are hashed in (a random UUID, ours).
const NAMESPACE: Uuid = Uuid::from_u128(0x6d2c_1f7e_8b5a_4c39_9a0e_57d1_c2b4_e683);

/// A mail for one recipient, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its Message-ID, with the angle brackets.
    pub message_id: String,
    /// Its subject, decoded.
    pub subject: String,
    /// Sender and recipient for the mail server.
    pub envelope: Envelope,
    /// The message, headers included.
    pub bytes: Vec<u8>,
}

/// Writes mails for one application.
#[derive(Debug)]
pub struct Writer {
    application_id: String,
    from: Mailbox,
    templates: Environment<'static>,
}

impl Writer {
    /// A writer of mails from `from`.
    ///
    /// # Errors
    /// When a built-in template is broken, which the tests exclude.
    pub fn new(application_id: &str, from: Mailbox) -> anyhow::Result<Self> {
        let mut templates = Environment::new();
        templates.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .keep_trailing_newline(true)
                .build()?,
        );
        templates.set_auto_escape_callback(|name| match name {
            "mail.html" => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        templates.add_template("mail.txt", include_str!("../templates/mail.txt"))?;
        templates.add_template("mail.html", include_str!("../templates/mail.html"))?;
        Ok(Self {
            application_id: application_id.to_owned(),
            from,
            templates,
        })
    }

    /// The mail about `state` to `to`.
    ///
    /// # Errors
    /// When the addresses or the templates do not make a message.
    pub fn write(&self, state: &State, to: &Mailbox) -> anyhow::Result<Mail> {
        let view = View::of(&self.application_id, state);
        let render = |name: &str| -> anyhow::Result<String> {
            Ok(self.templates.get_template(name)?.render(Serde(&view))?)
        };
        let (text, html) = (render("mail.txt")?, render("mail.html")?);
        let id = self.id(&(
            &state.object_id,
            state.version,
            state.since_ms,
            to.email.to_string(),
        ));
        // Mail programs show the mails about one object as one conversation.
        let thread = self.id(&(&state.object_id, to.email.to_string()));
        let message_id = self.message_id(id);
        let body = MultiPart::alternative()
            .boundary(format!("=_{}", id.simple()))
            .singlepart(SinglePart::plain(text))
            .singlepart(SinglePart::html(html));
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(to.clone())
            .subject(view.subject.clone())
            .date(date(state.since_ms))
            .message_id(Some(message_id.clone()))
            .references(self.message_id(thread))
            .multipart(body)
            .context("the mail cannot be written")?;
        // RFC 3834: no vacation notes in return, please.
        message.headers_mut().insert_raw(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
        Ok(Mail {
            message_id,
            subject: view.subject,
            envelope: message.envelope().clone(),
            bytes: message.formatted(),
        })
    }

    /// A name for `parts` within this application. JSON keeps the parts apart.
    fn id<T: Serialize>(&self, parts: &T) -> Uuid {
        let name = serde_json::to_vec(&(&self.application_id, parts)).unwrap_or_default();
        Uuid::new_v5(&NAMESPACE, &name)
    }

    fn message_id(&self, id: Uuid) -> String {
        format!("<{id}@{}>", self.from.email.domain())
    }
}

/// What the templates see.
#[derive(Debug, Serialize)]
struct View {
    application_id: String,
    subject: String,
    object_id: String,
    verdict: String,
    previous: Option<String>,
    colour: &'static str,
    basis: &'static str,
    cause: &'static str,
    since: String,
    scenario: String,
    version: i64,
    #[serde(rename = "override")]
    override_: Option<Override>,
    header: String,
    votes: Vec<Vote>,
    more: usize,
}

#[derive(Debug, Serialize)]
struct Override {
    verdict: String,
    operator: String,
    note: Option<String>,
    set_at: String,
    expires: String,
}

#[derive(Debug, Serialize)]
struct Vote {
    agent_id: String,
    verdict: String,
    weight: i64,
    age: String,
    line: String,
}

impl View {
    fn of(application_id: &str, state: &State) -> Self {
        let object_id = one_line(&state.object_id);
        let verdict = one_line(&state.verdict);
        let previous = state.previous_verdict.as_deref().map(one_line);
        let was = previous.as_ref().map(|p| format!(" (was {p})"));
        let (header, votes) = votes(state);
        Self {
            application_id: application_id.to_owned(),
            subject: format!(
                "[{application_id}] {object_id} is {verdict}{}",
                was.unwrap_or_default()
            ),
            colour: match verdict.as_str() {
                "CLEAR" => "#1a7f37",
                "UNDETERMINED" => "#9a6700",
                _ => "#cf222e",
            },
            basis: match state.basis {
                Basis::Votes => "the votes",
                Basis::Tie => "a tie of the votes",
                Basis::NoQuorum => "too few fresh votes (no quorum)",
                Basis::Override => "an operator's override",
            },
            cause: match state.cause {
                Cause::Vote => "a report",
                Cause::Override => "an operator's command",
                Cause::Expiry => "time: a vote or an override expired",
            },
            since: utc(state.since_ms),
            scenario: one_line(&state.scenario),
            version: state.version,
            override_: state.override_.as_ref().map(|o| Override {
                verdict: one_line(&o.verdict),
                operator: o.operator.as_deref().map_or("somebody".into(), one_line),
                note: o.note.as_deref().map(one_line),
                set_at: utc(o.set_at_ms),
                expires: match o.expires_at_ms {
                    Some(ms) => format!("until {}", utc(ms)),
                    None => "until it is cleared".to_owned(),
                },
            }),
            header,
            more: state.votes.len().saturating_sub(votes.len()),
            votes,
            object_id,
            verdict,
            previous,
        }
    }
}

/// The head of the text table, and the votes with their lines.
fn votes(state: &State) -> (String, Vec<Vote>) {
    let mut votes: Vec<Vote> = state
        .votes
        .iter()
        .take(VOTES_SHOWN)
        .map(|vote| Vote {
            agent_id: one_line(&vote.agent_id),
            verdict: one_line(&vote.verdict),
            weight: vote.weight,
            age: seconds(state.since_ms.saturating_sub(vote.observed_at_ms)),
            line: String::new(),
        })
        .collect();
    let width = |title: &str, of: fn(&Vote) -> &str| {
        let widths = votes.iter().map(|vote| of(vote).chars().count());
        widths.max().unwrap_or(0).max(title.len())
    };
    let agent = width("AGENT", |vote| &vote.agent_id);
    let verdict = width("VERDICT", |vote| &vote.verdict);
    let row = |a: &str, v: &str, weight: &str, age: &str| {
        format!("{a:agent$}  {v:verdict$}  {weight:>6}  {age:>8}")
    };
    let header = row("AGENT", "VERDICT", "WEIGHT", "OBSERVED");
    for vote in &mut votes {
        let weight = vote.weight.to_string();
        vote.line = row(&vote.agent_id, &vote.verdict, &weight, &vote.age);
    }
    (header, votes)
}

/// `ms` in seconds, exactly.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn utc(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        Err(_) => format!("{ms} ms since 1970"),
    }
}

/// The Date header: the transition's time, so that the bytes do not depend on when it is sent.
fn date(since_ms: i64) -> SystemTime {
    // What the header can hold: 1970 to 9999.
    let ms = since_ms.clamp(0, 253_402_300_799_000).cast_unsigned();
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

/// `text` from outside as one short line: what could break a line or turn it around is replaced.
fn one_line(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut line: String = text
        .chars()
        .take(LONGEST_TEXT)
        .map(|c| {
            if harmful(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
pub(crate) mod tests;
