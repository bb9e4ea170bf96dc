//! Pulls: one question to one node for what comes behind some positions, answered when there is
//! something, or when the time is over. In: positions. Out: events and positions, at most a
//! message's worth.

use crate::clock::{self, Instant, ThreadKind, run_on};
use crate::error::Result;
use crate::node::hosting::{Hosted, Hosting};
use crate::partition::{Followed, Step};
use crate::types::{MapId, PartitionId, Position, Slot, WatchEvent, WatchKeys};
use futures::future::{BoxFuture, select_all};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// After changes that nobody here asked for, a pull looks again only so much later: under load it
/// looks at many at once.
const QUIET: Duration = Duration::from_millis(2);

/// A question for what comes behind some positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The map.
    pub map: MapId,
    /// Which of its keys.
    pub keys: WatchKeys,
    /// The slot of the keys, if it is one.
    pub slot: Option<Slot>,
    /// From where on.
    pub positions: Vec<(PartitionId, Position)>,
    /// Bytes of events at which the answer is full.
    pub max_bytes: u32,
    /// How long to wait for something, in milliseconds.
    pub wait_ms: u32,
}

/// What came of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulled {
    /// Events, perhaps none, and the position behind them.
    On(Vec<WatchEvent>, Position),
    /// The node no longer has what comes behind the position: only what is above this revision.
    Compacted(u64),
    /// The node holds no replica that can serve.
    Unable,
}

/// Answers pulls from the replicas that this node holds.
pub struct Pulls {
    hosting: Arc<Hosting>,
}

/// What one look gave.
struct Look {
    parts: Vec<(PartitionId, Pulled)>,
    /// There is something to tell.
    telling: bool,
}

impl Pulls {
    /// Answers from what `hosting` holds.
    pub fn new(hosting: Arc<Hosting>) -> Self {
        Pulls { hosting }
    }

    /// Looks until there is something to tell, or the time is over. Partitions for which there was
    /// no room are not in the answer.
    ///
    /// # Errors
    /// `CorruptRow`.
    pub async fn pull(&self, mut pull: Pull) -> Result<Vec<(PartitionId, Pulled)>> {
        let until = Instant::now() + Duration::from_millis(u64::from(pull.wait_ms));
        loop {
            let look = self.look(&pull).await?;
            if look.telling || Instant::now() >= until {
                return Ok(look.parts);
            }
            pull.positions = look
                .parts
                .into_iter()
                .filter_map(|(partition, pulled)| match pulled {
                    Pulled::On(_, position) => Some((partition, position)),
                    Pulled::Compacted(_) | Pulled::Unable => None,
                })
                .collect();
            self.wait(&pull.positions, until).await;
            clock::sleep(QUIET).await;
        }
    }

    async fn look(&self, pull: &Pull) -> Result<Look> {
        let followed = Followed { map: pull.map, keys: pull.keys.clone(), slot: pull.slot };
        let mut look = Look { parts: Vec::with_capacity(pull.positions.len()), telling: false };
        let mut room = pull.max_bytes as usize;
        for (partition, position) in &pull.positions {
            if room == 0 {
                break;
            }
            let pulled = match self.hosting.get(partition.group()) {
                Some(hosted) => follow(&self.hosting, &hosted, *partition, &followed, position, room).await?,
                None => Step::Unable,
            };
            let pulled = match pulled {
                Step::On { events, position: behind, more } => {
                    room = room.saturating_sub(events.iter().map(size_of_event).sum());
                    look.telling |= more || !events.is_empty() || *position == Position::Now;
                    Pulled::On(events, behind)
                }
                Step::Compacted(floor) => {
                    look.telling = true;
                    Pulled::Compacted(floor)
                }
                Step::Unable => {
                    look.telling = true;
                    Pulled::Unable
                }
            };
            look.parts.push((*partition, pulled));
        }
        Ok(look)
    }

    /// Waits until one of the partitions has something behind its position, or the time is over.
    async fn wait(&self, positions: &[(PartitionId, Position)], until: Instant) {
        let mut heads: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(positions.len());
        for (partition, position) in positions {
            let revision = match *position {
                Position::Live { revision } => revision,
                // The replica may be behind where the scan stands.
                Position::Scan { revision, .. } => revision.saturating_sub(1),
                Position::Now | Position::Begin => return,
            };
            let Some(hosted) = self.hosting.get(partition.group()) else { return };
            let Some(mut head) = hosted.state.feed().map(|feed| feed.head()) else { return };
            heads.push(Box::pin(async move {
                // An end of the feed is something to look at, too.
                let _ = head.wait_for(|head| *head > revision).await;
            }));
        }
        if !heads.is_empty() {
            let _ = clock::timeout_at(until, select_all(heads)).await;
        }
    }
}

async fn follow(
    hosting: &Hosting,
    hosted: &Arc<Hosted>,
    partition: PartitionId,
    followed: &Followed,
    position: &Position,
    room: usize,
) -> Result<Step> {
    let scans = matches!(position, Position::Begin | Position::Scan { .. });
    if !scans || !hosted.state.may_block() {
        return hosted.state.follow(partition, followed, position, room);
    }
    let (hosted, followed, position) = (hosted.clone(), followed.clone(), position.clone());
    let load = move || hosted.state.follow(partition, &followed, &position, room);
    run_on(&hosting.parts.ports.threads, ThreadKind::Backend, load).await?
}

/// About the bytes that an event takes in a message.
pub(super) fn size_of_event(event: &WatchEvent) -> usize {
    use crate::types::WatchKind;
    let value = match &event.kind {
        WatchKind::Entry(value) | WatchKind::Put(value) => value.data.len(),
        WatchKind::Removed(_) | WatchKind::Reset => 0,
    };
    32 + event.key.len() + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::wire;
    use crate::types::{RemovalCause, Value, WatchKind};
    use bytes::Bytes;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn pulls_and_their_answers_have_golden_bytes() {
        let pull = Pull {
            map: MapId(1),
            keys: WatchKeys::Prefix(Bytes::from_static(b"p")),
            slot: Some(Slot(2)),
            positions: vec![(PartitionId(3), Position::Live { revision: 4 })],
            max_bytes: 5,
            wait_ms: 6,
        };
        let bytes = wire::encode(&pull).expect("encodes");
        assert_eq!(hex(&bytes), GOLDEN_PULL);
        assert_eq!(wire::decode::<Pull>(&bytes).expect("decodes"), pull);
        let event = |kind| WatchEvent { partition: PartitionId(3), key: "k".into(), revision: 5, time_ms: 6, kind };
        let events = vec![event(WatchKind::Put(Value::utf8("v"))), event(WatchKind::Removed(RemovalCause::Expired))];
        let scan = Position::Scan { revision: 7, after: Bytes::from_static(b"r") };
        let answer = vec![
            (PartitionId(3), Pulled::On(events, scan)),
            (PartitionId(4), Pulled::Compacted(8)),
            (PartitionId(5), Pulled::Unable),
        ];
        let bytes = wire::encode(&answer).expect("encodes");
        assert_eq!(hex(&bytes), GOLDEN_ANSWER);
        assert_eq!(wire::decode::<Vec<(PartitionId, Pulled)>>(&bytes).expect("decodes"), answer);
    }

    const GOLDEN_PULL: &str = "0186a36d617001a46b65797381a6507265666978c40170a4736c6f7402a9706f736974696f6e7391920381a44c69766581a8\
        7265766973696f6e04a96d61785f627974657305a7776169745f6d7306";
    const GOLDEN_ANSWER: &str = "0193920381a24f6e929285a9706172746974696f6e03a36b6579c4016ba87265766973696f6e05a774696d655f6d7306a46b\
        696e6481a350757483a5636f646563a475746638a6736368656d6100a464617461c4017685a9706172746974696f6e03a36b\
        6579c4016ba87265766973696f6e05a774696d655f6d7306a46b696e6481a752656d6f766564a76578706972656481a45363\
        616e82a87265766973696f6e07a56166746572c40172920481a9436f6d706163746564089205a6556e61626c65";
}
