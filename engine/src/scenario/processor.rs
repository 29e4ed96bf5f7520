//! The processor that runs a scenario: reports and commands in, transitions out.

use std::sync::Arc;

use common::{
    avro::{Decoder, Encoder, Error as AvroError},
    registry::Registry,
    schema::{self, Cause, ClearOverride, DeleteObject, SetState, State},
};

use super::{
    Opinion, Scenario, Verdict as _,
    object::{Heard, Object, OverrideRow, place},
    view,
};
use crate::{
    processor::{Context, Event, Failure, Processor, Reason, Record, Rejected},
    timers::Timers,
};

/// Reads what a scenario's source topic carries, writes its states. Shared by all tasks.
#[derive(Debug)]
pub struct Codecs<S: Scenario> {
    report: Decoder<S::Report>,
    set_state: Decoder<SetState>,
    clear_override: Decoder<ClearOverride>,
    delete_object: Decoder<DeleteObject>,
    state: Encoder<State>,
}

impl<S: Scenario> Codecs<S> {
    /// Codecs that write states with `state`.
    ///
    /// # Errors
    /// When the scenario's report schema does not parse.
    pub fn new(state: Encoder<State>) -> Result<Self, AvroError> {
        Ok(Self {
            report: Decoder::new(S::REPORT_SCHEMA)?,
            set_state: Decoder::new(schema::SET_STATE)?,
            clear_override: Decoder::new(schema::CLEAR_OVERRIDE)?,
            delete_object: Decoder::new(schema::DELETE_OBJECT)?,
            state,
        })
    }

    /// Registers the report schema on the source topic, and the state's on the output topic.
    ///
    /// # Errors
    /// When the scenario's report schema does not parse.
    pub async fn register(
        registry: &Registry,
        topics: &common::topics::Names,
    ) -> Result<Self, AvroError> {
        registry
            .register_patiently(&topics.reports, S::REPORT_SCHEMA)
            .await;
        Self::new(registry.encoder(&topics.states, schema::STATE).await)
    }

    /// Reads a stored report, which may have been written with any schema that resolves.
    ///
    /// # Errors
    /// When the bytes do not resolve.
    pub fn report(
        &self,
        writer: &common::avro::Schema,
        datum: &[u8],
    ) -> Result<S::Report, AvroError> {
        self.report.decode(writer, datum)
    }
}

/// Runs a scenario over the objects of one task.
pub struct ScenarioProcessor<S: Scenario> {
    scenario: Arc<S>,
    codecs: Arc<Codecs<S>>,
    max_skew_ms: i64,
}

impl<S: Scenario> ScenarioProcessor<S> {
    /// A processor. A report observed more than `max_skew_ms` from now in the future is rejected.
    #[must_use]
    pub fn new(scenario: Arc<S>, codecs: Arc<Codecs<S>>, max_skew_ms: i64) -> Self {
        Self {
            scenario,
            codecs,
            max_skew_ms,
        }
    }

    fn report(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let report = decode(&self.codecs.report, record)?;
        let opinion = self.scenario.opinion(&report);
        same_key(record.key, opinion.object_id)?;
        self.not_from_the_future(&opinion, context.now_ms)?;
        let freshness_ms = self.scenario.freshness_ms();
        let entry = context.objects.entry(record.key)?;
        match entry.get().map_or(Heard::Taken, |o| o.hears(&opinion)) {
            Heard::Taken => {}
            Heard::Repeated => {
                metrics::counter!("reports_ignored_total", "why" => "repeated").increment(1);
                return Ok(());
            }
            Heard::Outdated => {
                metrics::counter!("reports_ignored_total", "why" => "outdated").increment(1);
                return Ok(());
            }
        }
        let object = entry.get_mut_or(Object::default);
        object.take(&opinion, freshness_ms, context.now_ms, record.value);
        let expires_at_ms = opinion.observed_at_ms.saturating_add(freshness_ms);
        let change = Change {
            cause: Cause::Vote,
            override_changed: false,
            expires_at_ms: Some(expires_at_ms).filter(|at| *at > context.now_ms),
        };
        self.settle(record.key, change, context)
    }

    fn not_from_the_future(
        &self,
        opinion: &Opinion<'_, S::Verdict>,
        now_ms: i64,
    ) -> Result<(), Rejected> {
        let ahead_ms = opinion.observed_at_ms.saturating_sub(now_ms);
        if ahead_ms <= self.max_skew_ms {
            return Ok(());
        }
        Err(Rejected::new(
            Reason::FromTheFuture,
            format!(
                "agent {} observed it {ahead_ms} ms from now; at most {} ms are allowed: check its clock",
                opinion.agent_id, self.max_skew_ms
            ),
        ))
    }

    fn set_state(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let command = decode(&self.codecs.set_state, record)?;
        same_key(record.key, &command.object_id)?;
        let verdict = S::Verdict::named(&command.verdict).ok_or_else(|| {
            Rejected::new(
                Reason::UnknownVerdict,
                format!("{:?} is not a verdict of {}", command.verdict, S::NAME),
            )
        })?;
        if command.expires_at_ms.is_some_and(|at| at <= context.now_ms) {
            // It was over before it was read: the vote counts, as it does already.
            return Ok(());
        }
        let object = context
            .objects
            .entry(record.key)?
            .get_mut_or(Object::default);
        object.stored.override_ = Some(OverrideRow {
            verdict: place(verdict),
            operator: command.operator,
            note: command.note,
            set_at_ms: command.issued_at_ms,
            expires_at_ms: command.expires_at_ms,
        });
        let change = Change {
            cause: Cause::Override,
            override_changed: true,
            expires_at_ms: command.expires_at_ms,
        };
        self.settle(record.key, change, context)
    }

    fn clear_override(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let command = decode(&self.codecs.clear_override, record)?;
        same_key(record.key, &command.object_id)?;
        let entry = context.objects.entry(record.key)?;
        if entry.get().is_none_or(|o| o.stored.override_.is_none()) {
            return Ok(());
        }
        if let Some(object) = entry.get_mut() {
            object.stored.override_ = None;
        }
        let change = Change {
            cause: Cause::Override,
            override_changed: true,
            expires_at_ms: None,
        };
        self.settle(record.key, change, context)
    }

    fn delete_object(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let command = decode(&self.codecs.delete_object, record)?;
        same_key(record.key, &command.object_id)?;
        let Some(object) = context.objects.entry(record.key)?.remove() else {
            return Ok(());
        };
        if let Some(timer_ms) = object.stored.timer_ms {
            context.timers.cancel(record.key, timer_ms);
        }
        context.outputs.emit(record.key, None);
        Ok(())
    }

    fn timer(
        &self,
        key: &[u8],
        due_ms: i64,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let entry = context.objects.entry(key)?;
        let armed = entry.get().and_then(|object| object.stored.timer_ms);
        if armed != Some(due_ms) {
            return Ok(());
        }
        if let Some(object) = entry.get_mut() {
            object.stored.timer_ms = None;
        }
        let change = Change {
            cause: Cause::Expiry,
            override_changed: false,
            expires_at_ms: None,
        };
        self.settle(key, change, context)
    }

    /// Brings an object that has changed up to date: expiries, decision, transition, timer.
    fn settle(
        &self,
        key: &[u8],
        change: Change,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let freshness_ms = self.scenario.freshness_ms();
        let now_ms = context.now_ms;
        let Some(object) = context.objects.entry(key)?.get_mut() else {
            return Ok(());
        };
        // Nothing expires before the armed timer, so until then the change alone needs a look.
        let mut first_expiry_ms = change.expires_at_ms;
        if object
            .stored
            .timer_ms
            .is_none_or(|armed_ms| armed_ms <= now_ms)
        {
            object.expire(freshness_ms, now_ms);
            first_expiry_ms = object.first_expiry_ms(freshness_ms);
        }
        if object.decide(
            &self.scenario,
            change.cause,
            change.override_changed,
            now_ms,
        ) {
            metrics::counter!("transitions_total").increment(1);
            // The key was checked to be UTF-8 before anything reached this store.
            let object_id = String::from_utf8_lossy(key);
            if let Some(state) = view::state::<S>(&object_id, &object.stored) {
                let value = self.codecs.state.encode(&state);
                let value = value.map_err(|e| Failure::Broken(e.to_string()))?;
                context.outputs.emit(key, Some(value));
            }
        }
        arm(key, object, first_expiry_ms, context.timers);
        Ok(())
    }
}

/// What happened to an object.
struct Change {
    cause: Cause,
    override_changed: bool,
    /// When what is new about it expires.
    expires_at_ms: Option<i64>,
}

/// One lazy timer per object: it is moved only when something expires before it.
fn arm<S: Scenario>(
    key: &[u8],
    object: &mut Object<S>,
    first_expiry_ms: Option<i64>,
    timers: &mut Timers,
) {
    let Some(first_ms) = first_expiry_ms else {
        return;
    };
    match object.stored.timer_ms {
        Some(armed_ms) if armed_ms <= first_ms => return,
        Some(armed_ms) => timers.cancel(key, armed_ms),
        None => {}
    }
    object.stored.timer_ms = Some(first_ms);
    timers.set(key, first_ms);
}

fn decode<T: serde::de::DeserializeOwned>(
    decoder: &Decoder<T>,
    record: &Record<'_>,
) -> Result<T, Rejected> {
    decoder.decode(record.schema, record.datum).map_err(|e| {
        let reason = match e {
            AvroError::Unresolvable(_) => Reason::Unresolvable,
            _ => Reason::Malformed,
        };
        Rejected::new(reason, e.to_string())
    })
}

fn same_key(key: &[u8], object_id: &str) -> Result<(), Rejected> {
    if key == object_id.as_bytes() {
        return Ok(());
    }
    let key = String::from_utf8_lossy(key);
    Err(Rejected::new(
        Reason::KeyMismatch,
        format!("the key is {key:?}, the object id inside is {object_id:?}"),
    ))
}

impl<S: Scenario> Processor for ScenarioProcessor<S> {
    type Value = Object<S>;

    fn process(
        &mut self,
        event: Event<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let record = match event {
            Event::Timer { key, due_ms } => return self.timer(key, due_ms, context),
            Event::Record(record) => record,
        };
        let name = record.schema.name.as_str();
        if name == self.codecs.report.name() {
            self.report(&record, context)
        } else if name == self.codecs.set_state.name() {
            self.set_state(&record, context)
        } else if name == self.codecs.clear_override.name() {
            self.clear_override(&record, context)
        } else if name == self.codecs.delete_object.name() {
            self.delete_object(&record, context)
        } else {
            let expected = self.codecs.report.name();
            Err(Rejected::new(
                Reason::UnexpectedType,
                format!("a {name} is neither a {expected} nor a command"),
            )
            .into())
        }
    }
}
