//! The processor that runs a scenario: reports and commands in, transitions out.

use std::sync::Arc;

use common::{
    avro::{Decoder, Encoder, Error as AvroError},
    registry::Registry,
    schema::{self, Cause, ClearOverride, DeleteObject, SetState, State},
};

use super::{
    Opinion, Scenario, Verdict as _,
    object::{Heard, LARGEST_ORDER, LARGEST_VOTES, Object, OverrideRow, Place, place},
    view,
};
use crate::{
    epoch::Outputs,
    objects::Objects,
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
        let (_, state) = tokio::join!(
            registry.register_patiently(&topics.reports, S::REPORT_SCHEMA),
            registry.encoder(&topics.states, schema::STATE),
        );
        Self::new(state)
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
    counters: Counters,
}

/// Looked up once: that takes longer than a report.
struct Counters {
    transitions: metrics::Counter,
    repeated: metrics::Counter,
    outdated: metrics::Counter,
}

impl<S: Scenario> ScenarioProcessor<S> {
    /// A processor. A report observed more than `max_skew_ms` from now in the future is rejected.
    #[must_use]
    pub fn new(scenario: Arc<S>, codecs: Arc<Codecs<S>>, max_skew_ms: i64) -> Self {
        Self {
            scenario,
            codecs,
            max_skew_ms,
            counters: Counters {
                transitions: metrics::counter!("transitions_total"),
                repeated: metrics::counter!("reports_ignored_total", "why" => "repeated"),
                outdated: metrics::counter!("reports_ignored_total", "why" => "outdated"),
            },
        }
    }

    fn report(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let mut scratch = Vec::new();
        let decoder = &self.codecs.report;
        let report: S::Read<'_> = decoder
            .read(record.schema, record.datum, &mut scratch)
            .map_err(rejected)?;
        let opinion = self.scenario.opinion(&report);
        same_key(record.key, opinion.object_id)?;
        self.not_from_the_future(&opinion, context.now_ms)?;
        let freshness_ms = self.scenario.freshness_ms();
        let (mut settling, objects) = self.settling(record.key, context);
        let entry = objects.entry(record.key)?;
        let heard = entry.get().map(|object| object.hears(&opinion));
        let place = match heard.unwrap_or(Heard::Taken(Place::default())) {
            Heard::Taken(place) => place,
            Heard::Repeated => {
                self.counters.repeated.increment(1);
                return Ok(());
            }
            Heard::Outdated => {
                self.counters.outdated.increment(1);
                return Ok(());
            }
        };
        let nothing = Object::default();
        let held = entry.get().unwrap_or(&nothing);
        if !held.has_room(place, opinion.agent_id, record.value) {
            return Err(full(opinion.agent_id).into());
        }
        let object = entry.get_mut_or(Object::default);
        let now_ms = settling.now_ms;
        object.take(place, &opinion, freshness_ms, now_ms, record.value);
        let expires_at_ms = opinion.observed_at_ms.saturating_add(freshness_ms);
        let change = Change {
            cause: Cause::Vote,
            override_changed: false,
            expires_at_ms: Some(expires_at_ms).filter(|at| *at > now_ms),
        };
        settling.settle(object, change);
        Ok(())
    }

    /// What brings the object `key` up to date after a change, and all objects.
    fn settling<'a>(
        &'a self,
        key: &'a [u8],
        context: &'a mut Context<'_, Object<S>>,
    ) -> (Settling<'a, S>, &'a mut Objects<Object<S>>) {
        let settling = Settling {
            processor: self,
            key,
            now_ms: context.now_ms,
            timers: &mut *context.timers,
            outputs: &mut *context.outputs,
        };
        (settling, &mut *context.objects)
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
        if record.value.len() > LARGEST_ORDER {
            let why = format!("an order to override may have {LARGEST_ORDER} bytes at most");
            return Err(Rejected::new(Reason::ObjectTooLarge, why).into());
        }
        if command.expires_at_ms.is_some_and(|at| at <= context.now_ms) {
            // It was over before it was read: the vote counts, as it does already.
            return Ok(());
        }
        let (mut settling, objects) = self.settling(record.key, context);
        let object = objects.entry(record.key)?.get_mut_or(Object::default);
        let expires_at_ms = command.expires_at_ms;
        object.override_ = Some(Box::new(OverrideRow {
            verdict: place(verdict),
            operator: command.operator,
            note: command.note,
            set_at_ms: command.issued_at_ms,
            expires_at_ms,
        }));
        let change = Change {
            cause: Cause::Override,
            override_changed: true,
            expires_at_ms,
        };
        settling.settle(object, change);
        Ok(())
    }

    fn clear_override(
        &self,
        record: &Record<'_>,
        context: &mut Context<'_, Object<S>>,
    ) -> Result<(), Failure> {
        let command = decode(&self.codecs.clear_override, record)?;
        same_key(record.key, &command.object_id)?;
        let (mut settling, objects) = self.settling(record.key, context);
        let entry = objects.entry(record.key)?;
        if entry.get().is_none_or(|o| o.override_.is_none()) {
            return Ok(());
        }
        let Some(object) = entry.get_mut() else {
            return Ok(());
        };
        object.override_ = None;
        let change = Change {
            cause: Cause::Override,
            override_changed: true,
            expires_at_ms: None,
        };
        settling.settle(object, change);
        Ok(())
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
        if let Some(timer_ms) = object.timer_ms {
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
        let (mut settling, objects) = self.settling(key, context);
        let entry = objects.entry(key)?;
        let armed = entry.get().and_then(|object| object.timer_ms);
        if armed != Some(due_ms) {
            return Ok(());
        }
        let Some(object) = entry.get_mut() else {
            return Ok(());
        };
        object.timer_ms = None;
        let change = Change {
            cause: Cause::Expiry,
            override_changed: false,
            expires_at_ms: None,
        };
        settling.settle(object, change);
        Ok(())
    }
}

/// Brings one object up to date after a change: expiries, decision, transition, timer.
struct Settling<'a, S: Scenario> {
    processor: &'a ScenarioProcessor<S>,
    key: &'a [u8],
    now_ms: i64,
    timers: &'a mut Timers,
    outputs: &'a mut Outputs,
}

impl<S: Scenario> Settling<'_, S> {
    fn settle(&mut self, object: &mut Object<S>, change: Change) {
        let scenario = &self.processor.scenario;
        let freshness_ms = scenario.freshness_ms();
        let now_ms = self.now_ms;
        // Nothing expires before the armed timer, so until then the change alone needs a look.
        let mut first_expiry_ms = change.expires_at_ms;
        if object.timer_ms.is_none_or(|armed_ms| armed_ms <= now_ms) {
            object.expire(freshness_ms, now_ms);
            first_expiry_ms = object.first_expiry_ms(freshness_ms);
        }
        if object.decide(scenario, change.cause, change.override_changed, now_ms) {
            self.publish(object);
        }
        arm(self.key, object, first_expiry_ms, self.timers);
    }

    fn publish(&mut self, object: &Object<S>) {
        self.processor.counters.transitions.increment(1);
        let Some(current) = &object.current else {
            return;
        };
        let codec = &self.processor.codecs.state;
        self.outputs.emit_with(self.key, |out| {
            codec.put_header(out);
            view::put_state(out, self.key, current, object);
        });
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
    match object.timer_ms {
        Some(armed_ms) if armed_ms <= first_ms => return,
        Some(armed_ms) => timers.cancel(key, armed_ms),
        None => {}
    }
    object.timer_ms = Some(first_ms);
    timers.set(key, first_ms);
}

fn decode<T: serde::de::DeserializeOwned>(
    decoder: &Decoder<T>,
    record: &Record<'_>,
) -> Result<T, Rejected> {
    let decoded = decoder.decode(record.schema, record.datum);
    decoded.map_err(rejected)
}

fn rejected(error: AvroError) -> Rejected {
    let reason = match error {
        AvroError::Unresolvable(_) => Reason::Unresolvable,
        _ => Reason::Malformed,
    };
    Rejected::new(reason, error.to_string())
}

fn full(agent_id: &str) -> Rejected {
    Rejected::new(
        Reason::ObjectTooLarge,
        format!(
            "with this report of agent {agent_id}, those of all agents would be more than the \
             {LARGEST_VOTES} bytes that an object may hold: send smaller reports, or delete the object"
        ),
    )
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
