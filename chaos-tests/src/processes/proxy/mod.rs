//! What stands between the processes: a user-space proxy for every link and direction, TCP and UDP.
//!
//! Every peer advertises its *front* here, one port for both protocols. A peer has a loopback address of
//! its own (`127.x.y.N`), listens there, and its connections and datagrams come from there (`keystead
//! start --connect-from`; gossip sends from the socket on which it listens). So a front knows by the
//! source address who speaks, and with that the link: [`Links`] say what is wrong with it, for each
//! direction by itself. A datagram that comes to B's front from A leaves by A's front, so that B's answer
//! to it takes the link from B to A.
//!
//! In: faults per link. Out: what arrives at the peers, late, in part or not at all. Bytes of a
//! connection are never lost or put out of order, which TCP would not do either: a loss is a stall there,
//! a cut holds them back until it is mended, and only a reset takes them away.

mod links;
mod streams;
#[cfg(test)]
mod tests;

pub use links::{Links, Place, Weather};

use crate::dice::Dice;
use keystead::clock::{self, JoinHandle};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// The largest datagram.
const DATAGRAM: usize = 64 << 10;
/// Datagrams on their way at once; further ones are lost, as in any router.
const DATAGRAMS: usize = 4096;
/// Attempts to find a port that is free for both protocols.
const PORT_ATTEMPTS: usize = 64;

/// One peer's side of the proxy.
struct Front {
    datagrams: Arc<UdpSocket>,
    /// Where the peer listens at present.
    peer: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks share.
struct Shared {
    net: [u8; 3],
    links: Links,
    fronts: Mutex<BTreeMap<Place, Front>>,
    dice: Mutex<Dice>,
    under_way: Arc<tokio::sync::Semaphore>,
}

impl Shared {
    fn front<T>(&self, place: Place, look: impl FnOnce(&mut Front) -> T) -> Option<T> {
        self.fronts.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&place).map(look)
    }

    /// Where the peer listens at present.
    fn peer(&self, place: Place) -> Option<SocketAddr> {
        self.front(place, |front| front.peer).flatten()
    }

    /// Who has this address.
    fn place(&self, address: IpAddr) -> Option<Place> {
        match address {
            IpAddr::V4(address) if address.octets()[..3] == self.net => Some(address.octets()[3]),
            _ => None,
        }
    }

    /// The delay of one piece, and whether it gets lost.
    fn draw(&self, weather: Weather) -> (Duration, bool) {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let jitter = dice.below(weather.jitter.as_micros() as u64 + 1);
        let (delay, lost) = (weather.delay + Duration::from_micros(jitter), dice.per_mille(weather.loss));
        if !delay.is_zero() || lost {
            self.links.meets();
        }
        (delay, lost)
    }
}

/// The proxy. Dropped, it ends every connection.
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut fronts = self.shared.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        fronts.values().flat_map(|front| &front.tasks).for_each(JoinHandle::abort);
        fronts.clear();
        self.shared.links.end();
    }
}

impl Proxy {
    /// A proxy without fronts. The seed decides which pieces are lost, and two bytes of the addresses.
    pub fn new(seed: u64) -> Proxy {
        let mut dice = Dice::new(seed ^ u64::from(std::process::id()), "addresses");
        // Not 127.0: other programs' addresses. Runs beside each other seldom meet, and their ports never do.
        let net = [127, dice.between(1, 254) as u8, dice.between(1, 254) as u8];
        let shared = Shared {
            net,
            links: Links::default(),
            fronts: Mutex::default(),
            dice: Mutex::new(Dice::new(seed, "proxy")),
            under_way: Arc::new(tokio::sync::Semaphore::new(DATAGRAMS)),
        };
        Proxy { shared: Arc::new(shared) }
    }

    /// The address of whoever has this place.
    pub fn address(&self, place: Place) -> Ipv4Addr {
        let [a, b, c] = self.shared.net;
        Ipv4Addr::new(a, b, c, place)
    }

    /// The links.
    pub fn links(&self) -> &Links {
        &self.shared.links
    }

    /// Opens a peer's front; what others are told as its address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn open(&self, place: Place) -> std::io::Result<SocketAddr> {
        let (listener, datagrams) = bind(Ipv4Addr::LOCALHOST).await?;
        let (address, datagrams) = (listener.local_addr()?, Arc::new(datagrams));
        let tasks = vec![
            clock::spawn(accept(self.shared.clone(), place, listener)),
            clock::spawn(relay(self.shared.clone(), place, datagrams.clone())),
        ];
        let front = Front { datagrams, peer: None, tasks };
        let before = self.shared.fronts.lock().unwrap_or_else(PoisonError::into_inner).insert(place, front);
        before.iter().flat_map(|front| &front.tasks).for_each(JoinHandle::abort);
        Ok(address)
    }

    /// A port on the peer's own address that is free for both protocols, and that nobody will have taken
    /// a moment later, as a rule.
    ///
    /// # Errors
    /// What the system says.
    pub async fn free_port(&self, place: Place) -> std::io::Result<SocketAddr> {
        bind(self.address(place)).await?.0.local_addr()
    }

    /// What comes to the front goes there from now on.
    pub fn direct(&self, place: Place, peer: SocketAddr) {
        self.shared.front(place, |front| front.peer = Some(peer));
    }
}

/// Listens on a port that is free for both protocols.
async fn bind(address: Ipv4Addr) -> std::io::Result<(TcpListener, UdpSocket)> {
    let mut last = std::io::Error::other("no attempt was made");
    for _ in 0..PORT_ATTEMPTS {
        let listener = TcpListener::bind((address, 0)).await?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(datagrams) => return Ok((listener, datagrams)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn accept(shared: Arc<Shared>, to: Place, listener: TcpListener) {
    loop {
        let Ok((stream, caller)) = listener.accept().await else {
            // Too many open files, most likely.
            clock::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let Some(from) = shared.place(caller.ip()) {
            clock::spawn(streams::carry(shared.clone(), (from, to), stream));
        }
    }
}

/// Passes on the datagrams that come to a front.
async fn relay(shared: Arc<Shared>, to: Place, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error tells of an earlier datagram that nobody took.
        let Ok((length, caller)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(from) = shared.place(caller.ip()) else { continue };
        let weather = shared.links.weather(from, to);
        let (delay, lost) = shared.draw(weather);
        if weather.cut_datagrams {
            shared.links.meets();
            continue;
        }
        if lost {
            continue;
        }
        let Some(by) = shared.front(from, |front| front.datagrams.clone()) else { continue };
        let (datagram, shared) = (buffer[..length].to_vec(), shared.clone());
        if delay.is_zero() {
            deliver(&shared, &by, to, &datagram).await;
            continue;
        }
        let Ok(place) = shared.under_way.clone().try_acquire_owned() else { continue };
        clock::spawn(async move {
            clock::sleep(delay).await;
            deliver(&shared, &by, to, &datagram).await;
            drop(place);
        });
    }
}

async fn deliver(shared: &Shared, by: &UdpSocket, to: Place, datagram: &[u8]) {
    if let Some(peer) = shared.peer(to) {
        // Lost when the peer does not run, as datagrams are.
        let _ = by.send_to(datagram, peer).await;
    }
}
