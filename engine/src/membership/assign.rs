//! Who gets which partition: a pure function, sticky and balanced.

use std::collections::{BTreeMap, BTreeSet};

use super::InstanceId;

/// Distributes `partitions` over `members`. Partitions stay where they were as far as the balance
/// allows: shares differ by at most one, and only what must move moves.
#[must_use]
pub fn assign(
    members: &BTreeSet<InstanceId>,
    before: &[Option<InstanceId>],
    partitions: u32,
) -> Vec<Option<InstanceId>> {
    let count = partitions as usize;
    let mut owners: Vec<Option<InstanceId>> = vec![None; count];
    if members.is_empty() {
        return owners;
    }
    // `spare` members may have one more than the others.
    let least = count / members.len();
    let mut spare = count % members.len();
    let mut shares: BTreeMap<&InstanceId, usize> = members.iter().map(|m| (m, 0)).collect();

    for (partition, owner) in before.iter().enumerate().take(count) {
        let Some(owner) = owner.as_ref() else {
            continue;
        };
        let Some(share) = shares.get_mut(owner) else {
            continue;
        };
        if *share < least || (*share == least && spare > 0) {
            if *share == least {
                spare -= 1;
            }
            *share += 1;
            owners[partition] = Some(owner.clone());
        }
    }
    for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
        let smallest = shares.iter_mut().min_by_key(|(_, share)| **share);
        if let Some((member, share)) = smallest {
            *share += 1;
            *owner = Some((*member).clone());
        }
    }
    owners
}
