//! What is wrong with each link, for each direction by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Who stands at an end of a link: the last byte of a loopback address.
pub type Place = u8;

/// What happens to what goes one way over a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing of a connection gets through, and none is made.
    pub cut_streams: bool,
    /// No datagram gets through.
    pub cut_datagrams: bool,
    /// Everything takes so long.
    pub delay: Duration,
    /// And up to so much longer; datagrams overtake each other by it.
    pub jitter: Duration,
    /// So many of 1000 datagrams are lost; so many pieces of a connection wait for their repetition.
    pub loss: u32,
}

impl Weather {
    /// Nothing gets through.
    pub const CUT: Weather = Weather { cut_streams: true, cut_datagrams: true, ..Weather::CLEAR };

    /// Everything gets through at once.
    pub const CLEAR: Weather =
        Weather { cut_streams: false, cut_datagrams: false, delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0 };
}

/// What is watched of a direction.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    weather: Weather,
    /// Connections end when this changes, with a reset.
    resets: u64,
}

/// All links, each with two directions. A link is clear until something is said about it.
#[derive(Debug, Default)]
pub struct Links {
    directions: Mutex<BTreeMap<(Place, Place), watch::Sender<State>>>,
    met: Arc<AtomicU64>,
}

impl Links {
    fn direction<T>(&self, from: Place, to: Place, look: impl FnOnce(&watch::Sender<State>) -> T) -> T {
        let mut directions = self.directions.lock().unwrap_or_else(PoisonError::into_inner);
        look(directions.entry((from, to)).or_default())
    }

    /// Something that was on its way met bad weather or a reset.
    pub(super) fn meets(&self) {
        self.met.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so: as long as it stays the same, nothing has come of what was set.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// Says what happens from now on to what goes this way.
    pub fn set(&self, from: Place, to: Place, weather: Weather) {
        self.direction(from, to, |direction| direction.send_modify(|state| state.weather = weather));
    }

    /// Ends the connections made this way, with a reset at both ends.
    pub fn reset(&self, from: Place, to: Place) {
        self.direction(from, to, |direction| direction.send_modify(|state| state.resets += 1));
    }

    /// Mends everything.
    pub fn mend(&self) {
        let directions = self.directions.lock().unwrap_or_else(PoisonError::into_inner);
        for direction in directions.values() {
            direction.send_modify(|state| state.weather = Weather::CLEAR);
        }
    }

    /// Ends all connections.
    pub(super) fn end(&self) {
        self.directions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What happens at present to what goes this way.
    pub fn weather(&self, from: Place, to: Place) -> Weather {
        self.direction(from, to, |direction| direction.borrow().weather)
    }

    /// The same, with what comes after.
    pub(super) fn follow(&self, from: Place, to: Place) -> Direction {
        self.direction(from, to, |direction| {
            let state = direction.subscribe();
            let resets = state.borrow().resets;
            Direction { state, resets, met: self.met.clone() }
        })
    }
}

/// One direction as a connection sees it.
#[derive(Clone)]
pub(super) struct Direction {
    state: watch::Receiver<State>,
    resets: u64,
    met: Arc<AtomicU64>,
}

impl Direction {
    pub(super) fn weather(&self) -> Weather {
        self.state.borrow().weather
    }

    /// Waits until connections get through.
    pub(super) async fn open(&mut self) {
        if self.weather().cut_streams {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        // Without a sender the proxy has ended, and `reset` says so.
        if self.state.wait_for(|state| !state.weather.cut_streams).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until connections made so far are to end.
    pub(super) async fn reset(&mut self) {
        let resets = self.resets;
        // An error says that the proxy has ended.
        if self.state.wait_for(|state| state.resets != resets).await.is_ok() {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
    }
}
