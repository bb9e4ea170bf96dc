use super::*;
use keystead::net::{BoxIo, Network, TcpFrom};
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for what is to come.
const SOON: Duration = Duration::from_secs(20);
/// Long enough to believe that nothing comes.
const A_WHILE: Duration = Duration::from_millis(150);

const A: Place = 1;
const B: Place = 2;

/// Two peers without any program: their sockets.
struct Two {
    proxy: Proxy,
    listener: TcpListener,
    datagrams: [UdpSocket; 2],
    fronts: [SocketAddr; 2],
}

impl Two {
    async fn new() -> Two {
        let proxy = Proxy::new(7);
        let fronts = [proxy.open(A).await.expect("a front"), proxy.open(B).await.expect("a front")];
        let (_, of_a) = bind(proxy.address(A)).await.expect("a port");
        let (listener, of_b) = bind(proxy.address(B)).await.expect("a port");
        proxy.direct(A, of_a.local_addr().expect("bound"));
        proxy.direct(B, of_b.local_addr().expect("bound"));
        Two { proxy, listener, datagrams: [of_a, of_b], fronts }
    }

    /// A connects to B.
    async fn connected(&self) -> (BoxIo, TcpStream) {
        let near = self.connect().await;
        let far = clock::timeout(SOON, self.listener.accept()).await.expect("in time").expect("accepts").0;
        (near, far)
    }

    async fn connect(&self) -> BoxIo {
        let from = TcpFrom(self.proxy.address(A).into());
        from.connect(&self.fronts[1].to_string()).await.expect("the front accepts")
    }

    /// What B or A hears next, and from which front.
    async fn hears(&self, who: usize, at_most: Duration) -> Option<(u8, SocketAddr)> {
        let mut buffer = [0; 8];
        let heard = clock::timeout(at_most, self.datagrams[who].recv_from(&mut buffer)).await.ok()?;
        heard.ok().map(|(_, from)| (buffer[0], from))
    }

    async fn says(&self, who: usize, what: u8) {
        self.datagrams[who].send_to(&[what], self.fronts[1 - who]).await.expect("sends");
    }
}

async fn reads(from: &mut (impl AsyncReadExt + Unpin), at_most: Duration) -> Option<std::io::Result<u8>> {
    clock::timeout(at_most, from.read_u8()).await.ok()
}

async fn gets(from: &mut (impl AsyncReadExt + Unpin)) -> u8 {
    reads(from, SOON).await.expect("in time").expect("a byte")
}

#[tokio::test]
async fn an_answer_to_a_datagram_takes_the_way_back() {
    let two = Two::new().await;
    two.says(0, 7).await;
    let (what, from) = two.hears(1, SOON).await.expect("it arrives");
    assert_eq!((what, from), (7, two.fronts[0]), "it comes from the front of who sent it");
    two.datagrams[1].send_to(&[8], from).await.expect("answers");
    assert_eq!(two.hears(0, SOON).await, Some((8, two.fronts[1])));
}

#[tokio::test]
async fn a_one_way_cut_cuts_one_way() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    two.proxy.links().set(A, B, Weather::CUT);
    two.says(0, 1).await;
    near.write_u8(1).await.expect("writes");
    far.write_u8(2).await.expect("writes");
    two.says(1, 2).await;
    assert_eq!(gets(&mut near).await, 2, "the other way is open");
    assert_eq!(two.hears(0, SOON).await.map(|heard| heard.0), Some(2));
    assert!(reads(&mut far, A_WHILE).await.is_none());
    assert_eq!(two.hears(1, A_WHILE).await, None);

    two.proxy.links().mend();
    assert_eq!(gets(&mut far).await, 1, "held back, not lost");
    two.says(0, 3).await;
    assert_eq!(two.hears(1, SOON).await.map(|heard| heard.0), Some(3), "the datagram before is lost");
}

#[tokio::test]
async fn streams_and_datagrams_are_cut_apart() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    two.proxy.links().set(A, B, Weather { cut_datagrams: true, ..Weather::CLEAR });
    two.says(0, 1).await;
    near.write_u8(1).await.expect("writes");
    assert_eq!(gets(&mut far).await, 1);
    assert_eq!(two.hears(1, A_WHILE).await, None);
    two.proxy.links().set(A, B, Weather { cut_streams: true, ..Weather::CLEAR });
    two.says(0, 2).await;
    near.write_u8(2).await.expect("writes");
    assert_eq!(two.hears(1, SOON).await.map(|heard| heard.0), Some(2));
    assert!(reads(&mut far, A_WHILE).await.is_none());
}

#[tokio::test]
async fn no_connection_is_made_over_a_cut_link() {
    let two = Two::new().await;
    // Already the answer to the first packet is lost.
    two.proxy.links().set(B, A, Weather::CUT);
    let mut near = two.connect().await;
    near.write_u8(5).await.expect("writes");
    assert!(clock::timeout(A_WHILE, two.listener.accept()).await.is_err(), "nobody hears of it");
    two.proxy.links().mend();
    let (mut far, caller) = clock::timeout(SOON, two.listener.accept()).await.expect("in time").expect("accepts");
    assert_eq!((gets(&mut far).await, caller.ip()), (5, two.proxy.address(A).into()));
}

#[tokio::test]
async fn a_delay_delays_and_keeps_the_order_of_a_stream() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    let delay = Duration::from_millis(120);
    two.proxy.links().set(A, B, Weather { delay, jitter: delay, ..Weather::CLEAR });
    let begun = clock::Instant::now();
    two.says(0, 9).await;
    for what in 0..20 {
        near.write_u8(what).await.expect("writes");
        tokio::task::yield_now().await;
    }
    for what in 0..20 {
        assert_eq!(gets(&mut far).await, what);
    }
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!(two.hears(1, SOON).await.map(|heard| heard.0), Some(9));
    // The other way takes no time: it is there before one delay has passed.
    let begun = clock::Instant::now();
    far.write_u8(1).await.expect("writes");
    gets(&mut near).await;
    assert!(begun.elapsed() < delay, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_loss_is_one_of_datagrams_and_a_stall_of_streams() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    two.proxy.links().set(A, B, Weather { loss: 1000, ..Weather::CLEAR });
    let begun = clock::Instant::now();
    two.says(0, 1).await;
    near.write_u8(1).await.expect("writes");
    assert_eq!(gets(&mut far).await, 1);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(two.hears(1, A_WHILE).await, None);
}

#[tokio::test]
async fn a_reset_is_felt_at_both_ends() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    let (_other, mut untouched) = two.connected().await;
    two.proxy.links().reset(B, A);
    for felt in [reads(&mut near, SOON).await, reads(&mut far, SOON).await] {
        let error = felt.expect("in time").expect_err("nothing was sent");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let felt = reads(&mut untouched, SOON).await.expect("in time");
    assert!(felt.is_err(), "all connections over the link end");
    let (mut near, mut far) = two.connected().await;
    near.write_u8(1).await.expect("a new one works");
    assert_eq!(gets(&mut far).await, 1);
}

#[tokio::test]
async fn the_end_of_a_connection_arrives_behind_what_was_sent() {
    let two = Two::new().await;
    let (mut near, mut far) = two.connected().await;
    let delay = Duration::from_millis(30);
    two.proxy.links().set(A, B, Weather { delay, ..Weather::CLEAR });
    let sent = vec![3; 300_000];
    let write = async {
        near.write_all(&sent).await.expect("writes");
        near.shutdown().await.expect("ends");
    };
    let mut got = Vec::new();
    let read = async { far.read_to_end(&mut got).await.expect("an end, no reset") };
    clock::timeout(SOON, async { tokio::join!(write, read) }).await.expect("in time");
    assert_eq!(got.len(), sent.len());
    far.write_u8(4).await.expect("the other way is still open");
    assert_eq!(gets(&mut near).await, 4);
}

#[tokio::test]
async fn a_peer_that_does_not_run_refuses() {
    let two = Two::new().await;
    drop(two.listener);
    let from = TcpFrom(two.proxy.address(A).into());
    let mut near = from.connect(&two.fronts[1].to_string()).await.expect("the front accepts");
    let felt = reads(&mut near, SOON).await.expect("in time");
    assert!(felt.is_err(), "{felt:?}");
}

#[tokio::test]
async fn a_stranger_is_not_carried() {
    let two = Two::new().await;
    let mut stranger = TcpStream::connect(two.fronts[1]).await.expect("the front accepts");
    let felt = reads(&mut stranger, SOON).await.expect("in time");
    assert!(felt.is_err(), "{felt:?}");
}
