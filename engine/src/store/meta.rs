//! What a store says of itself, beside its rows: whose it is, the changelog position that it reaches,
//! and when it last lacked nothing of the changelog.

use std::sync::atomic::Ordering;

use rocksdb::WriteBatch;

use super::{Error, OBJECT, SOURCE, Store, TIMER, overlay::Standing};
use crate::{digest, pending::is_object};

/// What a store says of itself is in rows like all others, so that all of it changes at once; they come
/// before those of the changelog, which never begin like this.
const META: u8 = 0;
pub(super) const COMPLETE: &[u8] = b"\0complete";
const ROWS_DIGEST: &[u8] = b"\0digest";
const GENERATION: &[u8] = b"\0generation";
pub(super) const IDENTITY: &[u8] = b"\0identity";
pub(super) const POSITION: &[u8] = b"\0position";
/// The position, if it was reached by writing to the changelog, not by reading it.
const WRITTEN: &[u8] = b"\0written";
const LAYOUT: u32 = 3;
/// In memory: nobody knows when the store was last complete.
pub(super) const NEVER: i64 = i64::MIN;

/// A row that says something of the store.
pub(super) type MetaRow = (&'static [u8], Option<[u8; 8]>);

/// The rows that say how far a store is, and when it last lacked nothing, in order.
pub(super) fn meta_rows(standing: Standing, complete_ms: i64) -> Vec<MetaRow> {
    let Standing {
        position,
        written,
        digest,
    } = standing;
    let complete = (complete_ms != NEVER).then_some((COMPLETE, Some(complete_ms.to_be_bytes())));
    let written = written.map(|written| (WRITTEN, Some(written.to_be_bytes())));
    let rows = [
        complete,
        Some((ROWS_DIGEST, digest.map(u64::to_be_bytes))),
        Some((POSITION, Some(position.to_be_bytes()))),
        written,
    ];
    rows.into_iter().flatten().collect()
}

/// As rows like any other.
pub(super) fn as_rows(meta: &[MetaRow]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    meta.iter()
        .map(|(key, value)| (*key, value.as_ref().map(|value| &value[..])))
}

/// May a changelog have a row with this key?
pub(crate) fn is_row(key: &[u8]) -> bool {
    let first = key.first();
    first.is_some_and(|first| ![META, TIMER].contains(first))
}

impl Store {
    pub(super) fn check_identity(&self, application_id: &str, partition: u32) -> Result<(), Error> {
        let expected = format!("{application_id}/{partition} layout {LAYOUT}");
        let Some(found) = self.meta_row(IDENTITY)? else {
            if !self.is_empty()? {
                return Err(self.damaged("it does not say whose it is".into()));
            }
            self.write_meta(IDENTITY, expected.as_bytes())?;
            // On disk before any row is: a row without an identity is damage.
            return self.flush();
        };
        match String::from_utf8(found) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) if is_identity(&found) => Err(Error::Foreign {
                path: self.path.clone(),
                found,
                expected,
            }),
            _ => Err(self.damaged("whose it is cannot be read".into())),
        }
    }

    /// The changelog offset that the store is complete up to (exclusive); 0 for an empty store.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn position(&self) -> Result<i64, Error> {
        Ok(self.standing()?.map_or(0, |standing| standing.position))
    }

    /// The offset of the last record of the changelog that this store knows of, if an owner wrote it and
    /// nobody has read it yet: [`crate::restore`] makes sure that it is there.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn unseen(&self) -> Result<Option<i64>, Error> {
        let standing = self.standing()?;
        let written = standing.filter(|standing| standing.written == Some(standing.position));
        Ok(written.map(|standing| standing.position - 1))
    }

    /// `None` for a store that has never got anywhere.
    fn standing(&self) -> Result<Option<Standing>, Error> {
        let in_memory = self.layers().standing();
        // What has left memory since is found on disk.
        if let Some(
            standing @ Standing {
                written: Some(_), ..
            },
        ) = in_memory
        {
            return Ok(Some(standing));
        }
        let written = self.number(WRITTEN)?;
        if let Some(standing) = in_memory {
            return Ok(Some(Standing {
                written,
                ..standing
            }));
        }
        let Some(position) = self.number(POSITION)? else {
            return Ok(None);
        };
        let digest = self.number(ROWS_DIGEST)?.map(i64::cast_unsigned);
        Ok(Some(Standing {
            position,
            written,
            digest,
        }))
    }

    /// The digest of all rows (see [`crate::digest`]), if it is known without reading them all.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn known_digest(&self) -> Result<Option<u64>, Error> {
        match self.standing()? {
            Some(standing) => Ok(standing.digest),
            None => Ok(self.is_empty()?.then_some(0)),
        }
    }

    /// The digest of all rows. Reads them all if it is not known.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn digest(&self) -> Result<u64, Error> {
        if let Some(digest) = self.known_digest()? {
            return Ok(digest);
        }
        self.push()?;
        let mut sum = 0_u64;
        self.scan(&[OBJECT], |key, value| {
            sum = sum.wrapping_add(digest::of_row(key, value));
            true
        })?;
        self.write_meta(ROWS_DIGEST, &sum.to_be_bytes())?;
        Ok(sum)
    }

    /// The offset of the first source record that is not in these rows; `None` if none ever was.
    ///
    /// It is a row like any other, so it is always that of these rows. The consumer group's offset is
    /// committed in the same transactions, but need not be the last one: a commit of offsets carries
    /// no sequence number, and one that was sent twice, as a broker went away, may arrive in a later
    /// transaction of the same producer (KIP-890 has the story).
    ///
    /// # Errors
    /// What RocksDB says, and when the row holds no offset.
    pub fn source_offset(&self) -> Result<Option<i64>, Error> {
        let Some(value) = self.get(&[SOURCE])? else {
            return Ok(None);
        };
        let offset = <[u8; 8]>::try_from(value.as_slice());
        let offset = offset.map_err(|_| self.corrupt(&[SOURCE], "it is no offset".into()))?;
        Ok(Some(i64::from_be_bytes(offset)))
    }

    /// The generation of the application (see [`crate::membership::Plan::generation`]) whose rows it
    /// holds, if it has been told.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn generation(&self) -> Result<Option<String>, Error> {
        let found = self.meta_row(GENERATION)?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(super) fn set_generation(&self, generation: &str) -> Result<(), Error> {
        self.write_meta(GENERATION, generation.as_bytes())
    }

    /// Does it hold nothing at all: no row, no position?
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn is_empty(&self) -> Result<bool, Error> {
        if self.standing()?.is_some() {
            return Ok(false);
        }
        let mut rows = self.db.raw_iterator();
        rows.seek([META + 1]);
        rows.status().map_err(|e| self.error(e))?;
        Ok(!rows.valid())
    }

    /// Has RocksDB any object?
    pub(super) fn has_objects(&self) -> Result<bool, Error> {
        let mut rows = self.db.raw_iterator();
        rows.seek([OBJECT]);
        rows.status().map_err(|e| self.error(e))?;
        Ok(rows.key().is_some_and(is_object))
    }

    /// At `now_ms` the store lacks nothing of the changelog. Reaches the disk with a flush.
    pub fn complete_at(&self, now_ms: i64) {
        self.complete_ms.store(now_ms, Ordering::Release);
    }

    /// When the store last lacked nothing of the changelog, in ms since 1970; `None` if nobody knows.
    #[must_use]
    pub fn complete_ms(&self) -> Option<i64> {
        let complete_ms = self.complete_ms.load(Ordering::Acquire);
        (complete_ms != NEVER).then_some(complete_ms)
    }

    pub(super) fn say_complete(&self, complete_ms: i64) -> Result<(), Error> {
        if complete_ms == NEVER {
            return Ok(());
        }
        self.write_meta(COMPLETE, &complete_ms.to_be_bytes())
    }

    fn write_meta(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.write(|| {
            let mut batch = WriteBatch::default();
            batch.put(key, value);
            batch
        })
    }

    pub(super) fn number(&self, key: &[u8]) -> Result<Option<i64>, Error> {
        let Some(bytes) = self.meta_row(key)? else {
            return Ok(None);
        };
        let number = bytes.try_into().map(i64::from_be_bytes);
        number.map(Some).map_err(|bytes: Vec<u8>| {
            let name = String::from_utf8_lossy(&key[1..]);
            self.damaged(format!("its {name} is no number: {bytes:?}"))
        })
    }

    fn meta_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get(key).map_err(|e| self.error(e))
    }
}

/// Does this say whose a store is, in any layout?
fn is_identity(text: &str) -> bool {
    let Some((owner, layout)) = text.split_once(" layout ") else {
        return false;
    };
    let partition = owner.rsplit_once('/').map(|(_, partition)| partition);
    partition.is_some_and(|p| p.parse::<u32>().is_ok()) && layout.parse::<u32>().is_ok()
}
