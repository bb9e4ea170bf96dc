//! The short way: a stream's request that its partition's executor can take here and now. In: a
//! checked request. Out: whether it was taken; its answer goes to the stream. Never waits, never
//! asks another peer, and leaves whatever is unusual to the router.

use super::attempt::Route;
use super::{META_MAP, Router};
use crate::clock::Instant;
use crate::node::hosting::Hosted;
use crate::partition::executor::{Job, ReplyTo, StreamReply};
use crate::partition::{check_key, slot_in};
use crate::types::{GroupId, MapDescriptor, Op, ReadLevel, Request};
use std::sync::Arc;
use std::time::Duration;

impl Router {
    /// Hands a request that needs its partition's executor and nothing else to it, if that is here:
    /// an operation on one key of a map that is known here, which may be repeated. In order: what is
    /// handed over first is executed first. Names the partition's group.
    ///
    /// # Errors
    /// Gives both back if it is not of that kind: then [`Router::execute`] is to be asked.
    pub fn submit_here(
        &self,
        request: Request,
        reply: StreamReply,
    ) -> std::result::Result<GroupId, Box<(Request, StreamReply)>> {
        let Some((hosted, map)) = self.short_way(&request) else { return Err(Box::new((request, reply))) };
        let expires = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
        let job = Job { request, map: Some(map), hops: 0, expires, flown: false, reply: ReplyTo::Stream(reply) };
        // One that is refused answers so: its stream goes the long way.
        hosted.executor.submit_or_refuse(job);
        Ok(hosted.group.id())
    }

    fn short_way(&self, request: &Request) -> Option<(Arc<Hosted>, MapDescriptor)> {
        let (Op::Get { map, key }
        | Op::Put { map, key, .. }
        | Op::Touch { map, key, .. }
        | Op::Delete { map, key, .. }
        | Op::Increment { map, key, .. }) = &request.op
        else {
            return None;
        };
        let is_read = request.op.is_read();
        if map == META_MAP || (is_read && request.read == ReadLevel::Local) || (!is_read && request.stamp.is_none()) {
            return None;
        }
        let view = self.directory.view();
        let map = view.map(map).filter(|map| !map.options.replicated)?;
        check_key(map, key).ok()?;
        let group = view.partition_of(slot_in(request, key))?.group();
        match self.route(group, 0) {
            Route::Here(hosted) if self.no_room(group, request).is_none() => Some((hosted, map.clone())),
            _ => None,
        }
    }
}
