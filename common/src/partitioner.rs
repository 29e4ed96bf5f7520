//! Which partition a key belongs to: murmur2, as Kafka's Java client does it, so that Java, Python
//! and Rust producers and the router agree.

/// Murmur2 of `data` with the seed of Kafka's Java client (MurmurHash2, Austin Appleby; the 32-bit
/// form that `org.apache.kafka.common.utils.Utils.murmur2` computes).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Kafka keeps the length in 32 bits; keys are far shorter.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions`, as the Java client's default partitioner and
/// librdkafka's `murmur2_random` choose it.
///
/// # Panics
/// When `partitions` is 0.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka's own Java client: see `golden/murmur2.tsv` for how.
    #[test]
    fn agrees_with_the_java_client() {
        let golden = include_str!("../golden/murmur2.tsv");
        let mut vectors = 0;
        for line in golden.lines().filter(|l| !l.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [key, hash, partition] = fields[..] else {
                panic!("three fields in {line:?}");
            };
            #[allow(clippy::cast_sign_loss)]
            let hash = hash.parse::<i32>().unwrap() as u32;
            assert_eq!(murmur2(key.as_bytes()), hash, "hash of {key:?}");
            assert_eq!(
                partition_of(key.as_bytes(), 12),
                partition.parse::<u32>().unwrap(),
                "partition of {key:?}"
            );
            vectors += 1;
        }
        assert!(vectors >= 20, "only {vectors} vectors");
    }
}
