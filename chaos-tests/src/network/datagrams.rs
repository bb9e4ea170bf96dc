//! Gossip datagrams: chitchat's transport over turmoil's UDP.
//!
//! chitchat keeps the codec of its envelopes to itself, so an envelope is parked in a table of
//! the simulation's thread and its number travels; a datagram that is lost leaves its envelope
//! there until it is too old to arrive.

use super::streams::any_address;
use crate::dice::Dice;
use crate::ports::gated;
use crate::trace;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport};
use keystead::clock::Gate;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use turmoil::net::UdpSocket;

/// An envelope under way for longer than this is lost.
const TOO_OLD: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Parked {
    last: u64,
    envelopes: BTreeMap<u64, (Duration, ChitchatEnvelope)>,
}

thread_local! {
    static PARKED: RefCell<Parked> = RefCell::default();
}

fn park(envelope: ChitchatEnvelope) -> u64 {
    let now = trace::now();
    PARKED.with(|parked| {
        let parked = &mut *parked.borrow_mut();
        while parked.envelopes.first_entry().is_some_and(|oldest| now > oldest.get().0 + TOO_OLD) {
            parked.envelopes.pop_first();
        }
        parked.last += 1;
        parked.envelopes.insert(parked.last, (now, envelope));
        parked.last
    })
}

fn take(number: u64) -> Option<ChitchatEnvelope> {
    PARKED.with(|parked| parked.borrow_mut().envelopes.remove(&number).map(|(_, envelope)| envelope))
}

/// How many of 1000 datagrams are lost now, in the whole simulation.
#[derive(Clone, Debug, Default)]
pub struct DatagramLoss {
    per_mille: Arc<AtomicU32>,
}

impl DatagramLoss {
    /// Sets the share.
    pub fn set(&self, per_mille: u32) {
        self.per_mille.store(per_mille, Ordering::Relaxed);
    }

    /// The share.
    pub fn get(&self) -> u32 {
        self.per_mille.load(Ordering::Relaxed)
    }
}

/// A node's gossip transport.
pub struct SimTransport {
    host: Arc<str>,
    gate: Arc<Gate>,
    loss: DatagramLoss,
    dice: Arc<Mutex<Dice>>,
}

impl SimTransport {
    /// The transport of one host, behind its gate. The dice decide which datagrams are lost.
    pub fn new(host: &str, gate: Arc<Gate>, loss: DatagramLoss, dice: Dice) -> Self {
        SimTransport { host: host.into(), gate, loss, dice: Arc::new(Mutex::new(dice)) }
    }
}

#[async_trait::async_trait]
impl Transport for SimTransport {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpSocket::bind(any_address(&listen.to_string())?).await?;
        let address = SocketAddr::new(turmoil::lookup(&*self.host), socket.local_addr()?.port());
        Ok(Box::new(SimSocket {
            socket,
            address,
            host: self.host.clone(),
            gate: self.gate.clone(),
            loss: self.loss.clone(),
            dice: self.dice.clone(),
        }))
    }
}

struct SimSocket {
    socket: UdpSocket,
    address: SocketAddr,
    host: Arc<str>,
    gate: Arc<Gate>,
    loss: DatagramLoss,
    dice: Arc<Mutex<Dice>>,
}

impl SimSocket {
    fn is_lost(&self) -> bool {
        let share = self.loss.get();
        share > 0 && self.dice.lock().unwrap_or_else(PoisonError::into_inner).per_mille(share)
    }
}

#[async_trait::async_trait]
impl Socket for SimSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.gate.opened().await;
        let outcome = SendOutcome { num_bytes_sent: size_of::<u64>() };
        if self.is_lost() {
            trace::detail(&self.host, "datagram lost", 0);
            return Ok(outcome);
        }
        let number = park(envelope);
        trace::detail(&self.host, "datagram", number);
        // A datagram to a host that is not there is lost, not an error.
        let _ = self.socket.send_to(&number.to_le_bytes(), to).await;
        Ok(outcome)
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let mut bytes = [0; size_of::<u64>()];
            let (num_bytes_received, from_addr) = gated(&self.gate, self.socket.recv_from(&mut bytes)).await?;
            if let Some(envelope) = take(u64::from_le_bytes(bytes)) {
                return Ok(RecvOutcome { from_addr, envelope, num_bytes_received });
            }
        }
    }
}
