//! Fuzz target: keys of sled's catalogue of replicas.

use super::format::{catalogue_key, parse_catalogue_key};
use crate::fuzzing::Fuzz;
use crate::storage::backend::ReplicaKey;
use crate::types::GroupId;

#[test]
fn backend_key() {
    let key = |group, replica| catalogue_key(ReplicaKey { group: GroupId(group), replica });
    Fuzz::new("backend_key", [key(3, 9), key(u32::MAX, u64::MAX)]).run(|input| {
        let key = parse_catalogue_key(input);
        assert!(key.is_none_or(|key| catalogue_key(key) == input), "one spelling");
        format!("{}", key.is_some())
    });
}
