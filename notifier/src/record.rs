//! A record of the states topic, and the state in it.

use common::{
    avro::{self, Decoder},
    registry::{self, Registry},
    schema::{STATE, State},
    wire,
};
use rdkafka::Message;

/// A record as it came from the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None`: a tombstone, the object was deleted.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// A copy of `message`.
    #[must_use]
    pub fn of(message: &impl Message) -> Self {
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }
}

/// Why there is no state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There never will be: reason code and explanation for the dead letter.
    Undecodable(&'static str, String),
    /// The registry cannot be asked now.
    Unavailable(String),
}

/// Reads states, whatever schema wrote them, if it resolves to ours.
#[derive(Debug)]
pub struct Reader {
    decoder: Decoder<State>,
    registry: Registry,
}

impl Reader {
    /// A reader that asks `registry` for writers' schemas.
    ///
    /// # Errors
    /// When the schema of this build does not parse, which its tests exclude.
    pub fn new(registry: Registry) -> anyhow::Result<Self> {
        Ok(Self {
            decoder: Decoder::new(STATE)?,
            registry,
        })
    }

    /// The state in `value`.
    ///
    /// # Errors
    /// [`Error::Undecodable`] is final, [`Error::Unavailable`] is worth another try.
    pub async fn read(&self, value: &[u8]) -> Result<State, Error> {
        let (id, datum) = wire::split(value).map_err(|error| {
            let reason = match error {
                wire::Error::WrongMagicByte(_) => "wrong-magic-byte",
                wire::Error::Truncated(_) => "truncated",
            };
            Error::Undecodable(reason, error.to_string())
        })?;
        let writer = self.registry.resolve(id).await.map_err(|e| match e {
            registry::Error::Unavailable(why) => Error::Unavailable(why),
            unknown @ registry::Error::Unknown { .. } => {
                Error::Undecodable("unknown-schema", unknown.to_string())
            }
        })?;
        if writer.name != self.decoder.name() {
            let detail = format!("{} is not {}", writer.name, self.decoder.name());
            return Err(Error::Undecodable("unexpected-type", detail));
        }
        self.decoder.decode(&writer, datum).map_err(|error| {
            let reason = match error {
                avro::Error::Unresolvable(_) => "unexpected-type",
                _ => "malformed",
            };
            Error::Undecodable(reason, error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use common::{
        avro::{Encoder, Schema},
        schema::SET_STATE,
    };

    use super::*;
    use crate::mail::tests::state;

    /// A reader whose registry knows our schema as 1 and another record's as 2, and is away.
    fn reader() -> Reader {
        let registry = Registry::new(&registry::Args {
            schema_registry_url: "http://127.0.0.1:9".to_owned(),
            schema_registry_user: None,
            schema_registry_password: None,
            schema_registry_password_file: None,
            schema_registry_ca_file: None,
        })
        .unwrap();
        registry.remember(1, STATE).unwrap();
        registry.remember(2, SET_STATE).unwrap();
        Reader::new(registry).unwrap()
    }

    fn encoded() -> Vec<u8> {
        let schema = Schema::parse(1, STATE).unwrap();
        Encoder::new(schema.into()).encode(&state()).unwrap()
    }

    #[tokio::test]
    async fn reads_a_state() {
        assert_eq!(reader().read(&encoded()).await, Ok(state()));
    }

    #[tokio::test]
    async fn says_why_there_is_none() {
        let mut cut = encoded();
        cut.truncate(20);
        let mut other = encoded();
        other[4] = 2;
        let cases: [(&[u8], &str); 5] = [
            (b"", "truncated"),
            (b"\0\0\0", "truncated"),
            (b"{}", "wrong-magic-byte"),
            (&cut, "malformed"),
            (&other, "unexpected-type"),
        ];
        for (value, expected) in cases {
            match reader().read(value).await {
                Err(Error::Undecodable(reason, _)) => assert_eq!(reason, expected, "{value:?}"),
                other => panic!("{value:?}: {other:?}"),
            }
        }
    }
}
