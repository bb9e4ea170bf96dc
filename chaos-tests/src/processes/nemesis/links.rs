//! Faults of links: cut, cut one way, late, lossy, reset.

use super::{Until, some};
use crate::dice::Dice;
use crate::processes::clients::FIRST_PLACE;
use crate::processes::fleet::Fleet;
use crate::processes::namespace;
use crate::processes::proxy::{Links, Place, Weather};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Isolate,
    IsolateWithClients,
    Halves,
    Ring,
    OneWay,
    Unheard,
    Deaf,
    StreamsOnly,
    DatagramsOnly,
    Flap,
    Swizzle,
    Delay,
    SlowPeer,
    Loss,
    Resets,
    ClientsCut,
    AnswersLost,
    Netem,
}

pub(super) const KINDS: &[Kind] = &[
    Kind::Isolate,
    Kind::IsolateWithClients,
    Kind::Halves,
    Kind::Ring,
    Kind::OneWay,
    Kind::Unheard,
    Kind::Deaf,
    Kind::StreamsOnly,
    Kind::DatagramsOnly,
    Kind::Flap,
    Kind::Swizzle,
    Kind::Delay,
    Kind::SlowPeer,
    Kind::Loss,
    Kind::Resets,
    Kind::ClientsCut,
    Kind::AnswersLost,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Isolate => "one peer cut off",
            Kind::IsolateWithClients => "one peer cut off with clients",
            Kind::Halves => "halves",
            Kind::Ring => "ring",
            Kind::OneWay => "link cut one way",
            Kind::Unheard => "peer not heard",
            Kind::Deaf => "peer hears nothing",
            Kind::StreamsOnly => "gossip cut, streams live",
            Kind::DatagramsOnly => "streams cut, gossip lives",
            Kind::Flap => "flapping",
            Kind::Swizzle => "swizzle",
            Kind::Delay => "delay everywhere",
            Kind::SlowPeer => "slow peer",
            Kind::Loss => "loss",
            Kind::Resets => "connection resets",
            Kind::ClientsCut => "clients cut from a peer",
            Kind::AnswersLost => "answers to clients cut",
            Kind::Netem => "netem: delay, loss, reorder",
        }
    }
}

/// Directions of links: from whom, to whom.
type Directions = Vec<(Place, Place)>;

/// Both directions of every link between two groups.
fn between(one: &[Place], other: &[Place]) -> Directions {
    let pairs = one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).flat_map(|(from, to)| [(from, to), (to, from)]).collect()
}

/// From everyone of a group to everyone of another.
fn from_to(one: &[Place], other: &[Place]) -> Directions {
    let pairs = one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect()
}

/// Links that a ring in this order does not have.
fn across(ring: &[Place]) -> Directions {
    let mut cut = between(ring, ring);
    let neighbours = |(from, to): &(Place, Place)| {
        ring.iter().zip(ring.iter().cycle().skip(1)).any(|(a, b)| (a, b) == (from, to) || (b, a) == (from, to))
    };
    cut.retain(|direction| !neighbours(direction));
    cut
}

/// Breaks some links and mends them again; counted where anything met it.
pub(super) async fn break_some(kind: Kind, fleet: &Arc<Mutex<Fleet>>, dice: &mut Dice, until: Until) {
    let (peers, proxy, timeline) = {
        let fleet = fleet.lock().await;
        (some(&fleet.places(), usize::MAX, dice), fleet.proxy.clone(), fleet.timeline.clone())
    };
    timeline.note(format_args!("{} begins: {peers:?}", kind.name()));
    let before = proxy.links().met();
    let shaped = break_these(kind, &peers, proxy.links(), dice, until).await;
    // The kernel's own weather is met by everything, if it is there at all.
    let struck = shaped.unwrap_or_else(|| proxy.links().met() > before);
    timeline.came_of(kind.name(), struck, format_args!("over, {peers:?}"));
}

/// Breaks some of the links between these peers, and theirs to the clients, and mends them again. For the
/// kernel's faults: whether it allowed them.
async fn break_these(kind: Kind, peers: &[Place], links: &Links, dice: &mut Dice, until: Until) -> Option<bool> {
    let (one, others) = peers.split_first()?;
    let one = std::slice::from_ref(one);
    let clients: Vec<Place> = (FIRST_PLACE..=Place::MAX).collect();
    let lasts = dice.between(800, 7000);
    let cut = |directions: Directions, weather: Weather| {
        directions.into_iter().for_each(|(from, to)| links.set(from, to, weather));
    };
    match kind {
        Kind::Isolate => cut(between(one, others), Weather::CUT),
        Kind::IsolateWithClients => {
            // Some clients are on its side, and see nobody else.
            let (near, far): (Vec<Place>, Vec<Place>) = clients.iter().partition(|client| *client % 3 == 0);
            cut([between(one, others), between(one, &far), between(others, &near)].concat(), Weather::CUT);
        }
        Kind::Halves => {
            let (left, right) = peers.split_at(peers.len() / 2);
            cut(between(left, right), Weather::CUT);
        }
        Kind::Ring => cut(across(peers), Weather::CUT),
        Kind::OneWay => cut(from_to(one, &some(others, 1, dice)), Weather::CUT),
        Kind::Unheard => cut(from_to(one, others), Weather::CUT),
        Kind::Deaf => cut(from_to(others, one), Weather::CUT),
        Kind::StreamsOnly => cut(between(one, others), Weather { cut_datagrams: true, ..Weather::CLEAR }),
        Kind::DatagramsOnly => cut(between(one, others), Weather { cut_streams: true, ..Weather::CLEAR }),
        Kind::Flap => {
            flap(links, &between(one, others), dice, until).await;
            return None;
        }
        Kind::Swizzle => {
            swizzle(links, peers, dice, until).await;
            return None;
        }
        Kind::Delay => cut(between(peers, peers), late(dice.between(2, 60))),
        Kind::SlowPeer => cut(between(one, &[others, clients.as_slice()].concat()), late(dice.between(60, 400))),
        Kind::Loss => {
            let weather = Weather { loss: dice.between(20, 300) as u32, ..late(2) };
            cut([between(peers, peers), between(peers, &clients)].concat(), weather);
        }
        Kind::Resets => {
            let all = [from_to(peers, peers), from_to(&clients, peers)].concat();
            reset(links, &all, dice, until).await;
            return None;
        }
        Kind::ClientsCut => cut(between(one, &clients), Weather::CUT),
        Kind::AnswersLost => cut(from_to(one, &clients), Weather::CUT),
        Kind::Netem => {
            let shaped = namespace::shape(Some((dice.between(1, 20), dice.between(1, 10)))).await;
            until.wait(lasts).await;
            namespace::shape(None).await;
            return Some(shaped);
        }
    }
    until.wait(lasts).await;
    links.mend();
    None
}

fn late(milliseconds: u64) -> Weather {
    let delay = Duration::from_millis(milliseconds);
    Weather { delay, jitter: delay / 2, ..Weather::CLEAR }
}

/// A peer comes and goes.
async fn flap(links: &Links, directions: &Directions, dice: &mut Dice, until: Until) {
    for _ in 0..dice.between(4, 12) {
        directions.iter().for_each(|(from, to)| links.set(*from, *to, Weather::CUT));
        until.wait(dice.between(100, 900)).await;
        links.mend();
        until.wait(dice.between(50, 700)).await;
    }
}

/// Peers are cut off one after the other, and come back in another order.
async fn swizzle(links: &Links, peers: &[Place], dice: &mut Dice, until: Until) {
    let mut cut = peers.to_vec();
    cut.truncate(peers.len().div_ceil(2) + 1);
    for one in &cut {
        between(&[*one], peers).iter().for_each(|(from, to)| links.set(*from, *to, Weather::CUT));
        until.wait(dice.between(100, 800)).await;
    }
    for one in some(&cut, usize::MAX, dice) {
        between(&[one], peers).iter().for_each(|(from, to)| links.set(*from, *to, Weather::CLEAR));
        until.wait(dice.between(100, 800)).await;
    }
    links.mend();
}

/// Connections end again and again.
async fn reset(links: &Links, directions: &Directions, dice: &mut Dice, until: Until) {
    for _ in 0..dice.between(2, 10) {
        let share = *dice.pick(&[200, 1000]);
        directions.iter().filter(|_| dice.per_mille(share)).for_each(|(from, to)| links.reset(*from, *to));
        until.wait(dice.between(100, 1200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_those_that_are_named() {
        assert_eq!(between(&[1], &[1, 2]), [(1, 2), (2, 1)]);
        assert_eq!(from_to(&[1], &[1, 2, 3]), [(1, 2), (1, 3)]);
        assert!(across(&[1, 2, 3]).is_empty(), "three in a ring all see each other");
        let mut cut = across(&[1, 3, 2, 4]);
        cut.sort_unstable();
        cut.dedup();
        assert_eq!(cut, [(1, 2), (2, 1), (3, 4), (4, 3)]);
    }
}
