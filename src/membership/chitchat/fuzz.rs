//! Fuzz target: datagrams that anybody may send to the gossip port. Whatever comes, gossip goes on
//! answering.

use super::*;
use crate::clock::timeout;
use crate::fuzzing::Fuzz;
use tokio::net::UdpSocket;

/// UDP that answers the test alone: what a made-up digest names is not greeted.
struct Home(Vec<SocketAddr>);

struct HomeSocket {
    socket: Box<dyn Socket>,
    known: Vec<SocketAddr>,
}

#[async_trait::async_trait]
impl Transport for Home {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(HomeSocket { socket: UdpTransport.open(listen).await?, known: self.0.clone() }))
    }
}

#[async_trait::async_trait]
impl Socket for HomeSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        match self.known.contains(&to) {
            true => self.socket.send(to, envelope).await,
            false => Ok(SendOutcome { num_bytes_sent: 0 }),
        }
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.socket.recv().await
    }
}

async fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

async fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    let received = timeout(Duration::from_secs(60), socket.recv_from(&mut bytes)).await;
    let (length, _) = received.expect("gossip is silent").expect("received");
    bytes.truncate(length);
    bytes
}

struct World {
    gossip: Arc<ChitchatGossip>,
    probe: UdpSocket,
    stranger: UdpSocket,
    /// What gossip sends: a greeting, its answer, and the answer to that.
    messages: [Vec<u8>; 3],
}

impl World {
    async fn begin() -> World {
        let ((seed, seed_at), (probe, probe_at), (stranger, at)) = (socket().await, socket().await, socket().await);
        let options = ChitchatOptions { interval: Duration::from_millis(50), ..ChitchatOptions::default() };
        let membership = ChitchatMembership::new(Arc::new(Home(vec![seed_at, probe_at, at])), options);
        let me = PeerGossip {
            node: NodeId(1),
            incarnation: Incarnation(1),
            name: "n1".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            zone: Some("z".to_owned()),
            grid: None,
            placement_version: 3,
        };
        let address = "127.0.0.1:0".to_owned();
        let seeds = vec![seed_at.to_string()];
        let config = GossipConfig { me, listen: address.clone(), advertise: address, seeds };
        let gossip = membership.launch(config).await.expect("gossips");
        let greeting = heard(&seed).await;
        let ask = async |bytes: &[u8]| {
            probe.send_to(bytes, gossip.advertised()).await.expect("sent");
            heard(&probe).await
        };
        let answer = ask(&greeting).await;
        let thanks = ask(&answer).await;
        World { messages: [greeting, answer, thanks], gossip, probe, stranger }
    }

    async fn case(&self, input: &[u8]) {
        let to = self.gossip.advertised();
        // What is too long for a datagram cannot be sent.
        let input = &input[..input.len().min(60_000)];
        self.stranger.send_to(input, to).await.expect("sent");
        self.probe.send_to(&self.messages[0], to).await.expect("sent");
        heard(&self.probe).await;
        let mut rest = [0; 65_536];
        while self.stranger.try_recv_from(&mut rest).is_ok() {}
        assert!(self.gossip.live().borrow().contains_key(&NodeId(1)));
    }
}

#[test]
fn gossip_datagram() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = runtime.block_on(World::begin());
    let fuzz = Fuzz::new("gossip_datagram", world.messages.clone()).slow(10);
    fuzz.words(&["name", "leaving", "grid", "placement", "0000000000000001"]).run(|input| {
        runtime.block_on(world.case(input));
        String::new()
    });
}
