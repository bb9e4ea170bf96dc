//! Which partitions a request's keys lie in; one part for each, and their answers together again.

use super::{Router, not_ready};
use crate::clock::Instant;
use crate::error::{Code, Error, Result};
use crate::partition::slot_in;
use crate::types::{GroupId, MapDescriptor, Op, Reply, ReplyBody, Request};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Requests of several partitions are split into at most so many at once.
const MAX_SPLIT: usize = 4096;

impl Router {
    /// The groups of a request's keys, each with the keys' places in the request.
    pub(super) fn groups_of(&self, request: &Request) -> Result<BTreeMap<GroupId, Vec<usize>>> {
        let view = self.directory.view();
        let group_of = |key: &Bytes| {
            let partition = view.partition_of(slot_in(request, key));
            partition.map(|partition| partition.group()).ok_or_else(not_ready)
        };
        if let Some(slot) = request.op.slot() {
            let partition = view.partition_of(slot).ok_or_else(not_ready)?;
            return Ok(BTreeMap::from([(partition.group(), vec![0])]));
        }
        let keys: Vec<&Bytes> = match &request.op {
            Op::GetMany { keys, .. } => keys.iter().collect(),
            Op::PutMany { entries, .. } => entries.iter().map(|(key, _)| key).collect(),
            Op::Transact { checks, writes, .. } => {
                checks.iter().map(|(key, _)| key).chain(writes.iter().map(|(key, _)| key)).collect()
            }
            op => op.routing_key().into_iter().collect(),
        };
        let mut groups: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (place, key) in keys.into_iter().enumerate() {
            groups.entry(group_of(key)?).or_default().push(place);
        }
        Ok(groups)
    }

    /// One request per partition, all at once; the answers merged. Atomic within each partition.
    pub(super) async fn execute_split(
        &self,
        request: Request,
        map: Option<MapDescriptor>,
        hops: u32,
        expires: Instant,
        groups: BTreeMap<GroupId, Vec<usize>>,
    ) -> Result<Reply> {
        if request.stamp.is_some() || hops > 0 || groups.len() > MAX_SPLIT {
            let what = "the keys lie in several partitions, which one stamped request cannot reach";
            return Err(Error::new(Code::CrossSlot, what));
        }
        let mut parts = Vec::new();
        for (group, places) in groups {
            let op = match &request.op {
                Op::GetMany { map, keys } => {
                    let keys = places.iter().filter_map(|place| keys.get(*place).cloned()).collect();
                    Op::GetMany { map: map.clone(), keys }
                }
                Op::PutMany { map, entries } => {
                    let entries = places.iter().filter_map(|place| entries.get(*place).cloned()).collect();
                    Op::PutMany { map: map.clone(), entries }
                }
                _ => return Err(Error::new(Code::CrossSlot, "the keys of the request lie in several slots")),
            };
            let part = Request { op, ..request.clone() };
            let answer = self.execute_in(group, part, map.clone(), hops, expires);
            parts.push(async move { answer.await.map(|reply| (places, reply)) });
        }
        of_the_whole(futures::future::join_all(parts).await, request.op.is_read())
    }
}

/// What the parts' answers, each with its keys' places, say of the whole request.
fn of_the_whole(answers: Vec<Result<(Vec<usize>, Reply)>>, is_read: bool) -> Result<Reply> {
    let may_have_run = |code| matches!(code, Code::OutcomeUnknown | Code::DeadlineExceeded | Code::PeerUnreachable);
    let refused = |error: &Error| error.code.may_pass() && !may_have_run(error.code);
    let nothing_done = answers.iter().all(|answer| answer.as_ref().is_err_and(refused));
    let told = |error: Error| if is_read || nothing_done { error } else { error.of_unsure_write() };
    merge(answers.into_iter().collect::<Result<_>>().map_err(told)?)
}

/// Puts the answers of a split request together again, in the order of the keys.
fn merge(answers: Vec<(Vec<usize>, Reply)>) -> Result<Reply> {
    let mut entries: BTreeMap<usize, _> = BTreeMap::new();
    let mut newest = 0;
    let mut served = None;
    for (places, reply) in answers {
        match reply.body {
            ReplyBody::Entries(some) => entries.extend(places.into_iter().zip(some)),
            ReplyBody::Written { revision, .. } => newest = newest.max(revision),
            _ => return Err(Error::internal("a split request got an answer of another kind")),
        }
        served = Some(reply.served);
    }
    let served = served.ok_or_else(|| Error::internal("a split request got no answer"))?;
    let body = match entries.is_empty() {
        true => ReplyBody::Written { revision: newest, previous: None },
        false => ReplyBody::Entries(entries.into_values().collect()),
    };
    Ok(Reply { body, served })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Served;

    fn written(revision: u64) -> Result<(Vec<usize>, Reply)> {
        let body = ReplyBody::Written { revision, previous: None };
        Ok((vec![0], Reply { body, served: Served::default() }))
    }

    fn ended(code: Code) -> Result<(Vec<usize>, Reply)> {
        Err(Error::new(code, "no"))
    }

    #[test]
    fn a_write_whose_part_may_have_run_is_not_called_refused() {
        let of = |parts: Vec<_>| of_the_whole(parts, false);
        let code = |parts: Vec<_>| of(parts).expect_err("not all were written").code;
        assert!(matches!(
            of(vec![written(3), written(5)]).expect("all were").body,
            ReplyBody::Written { revision: 5, previous: None }
        ));
        // Nothing was done anywhere: the refusal stands as it is.
        assert_eq!(code(vec![ended(Code::NoLeader), ended(Code::Overloaded)]), Code::NoLeader);
        for other in [written(3), ended(Code::OutcomeUnknown), ended(Code::DeadlineExceeded)] {
            let parts = vec![ended(Code::NoLeader), other];
            assert_eq!(code(parts), Code::OutcomeUnknown);
        }
        assert_eq!(code(vec![ended(Code::OutcomeUnknown), ended(Code::OutcomeUnknown)]), Code::OutcomeUnknown);
    }

    #[test]
    fn a_read_says_what_its_part_said() {
        let answer = of_the_whole(vec![written(1), ended(Code::NoLeader)], true);
        assert_eq!(answer.expect_err("one part is missing").code, Code::NoLeader);
    }
}
