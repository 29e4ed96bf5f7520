//! The schemas that the generator writes with.

use anyhow::Result;
use common::avro::Encoder;
use common::registry::Registry;
use common::schema::{
    self, ClearOverride, DeleteObject, SITE_ATTACK_REPORT, SetState, SiteAttackReport, State,
};

/// Registered schemas.
pub struct Schemas {
    pub(super) report: Encoder<SiteAttackReport>,
    pub(super) set_state: Encoder<SetState>,
    pub(super) clear_override: Encoder<ClearOverride>,
    pub(super) delete_object: Encoder<DeleteObject>,
    /// A type that has no business in the source topic.
    pub(super) state: Encoder<State>,
    /// The id of a report schema with one more verdict, as a newer agent has it.
    pub(super) newer_report: u32,
}

/// The report schema with one more verdict.
fn newer() -> String {
    SITE_ATTACK_REPORT.replace("\"UNDER_ATTACK\"]", "\"UNDER_ATTACK\", \"DEGRADED\"]")
}

impl Schemas {
    /// Registers them for the source topic.
    ///
    /// # Errors
    /// The registry does not take them.
    pub async fn register(registry: &Registry, topic: &str) -> Result<Self> {
        let other = format!("{topic}-newer");
        Ok(Self {
            report: Encoder::new(registry.register(topic, SITE_ATTACK_REPORT).await?),
            set_state: Encoder::new(registry.register(topic, schema::SET_STATE).await?),
            clear_override: Encoder::new(registry.register(topic, schema::CLEAR_OVERRIDE).await?),
            delete_object: Encoder::new(registry.register(topic, schema::DELETE_OBJECT).await?),
            state: Encoder::new(registry.register(&other, schema::STATE).await?),
            newer_report: registry.register(&other, &newer()).await?.id,
        })
    }

    /// Made-up ids, for tests without a registry.
    #[cfg(test)]
    pub(super) fn remembered(registry: &Registry) -> Self {
        let schema = |id, text: &str| registry.remember(id, text).unwrap();
        Self {
            report: Encoder::new(schema(1, SITE_ATTACK_REPORT)),
            set_state: Encoder::new(schema(2, schema::SET_STATE)),
            clear_override: Encoder::new(schema(3, schema::CLEAR_OVERRIDE)),
            delete_object: Encoder::new(schema(4, schema::DELETE_OBJECT)),
            state: Encoder::new(schema(5, schema::STATE)),
            newer_report: schema(6, &newer()).id,
        }
    }
}
