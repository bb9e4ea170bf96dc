//! Connections through the proxy: each direction late, held back or ended, never out of order.

use super::links::Direction;
use super::{Place, Shared};
use keystead::clock::{self, Instant};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// The largest piece that goes at once.
const PIECE: usize = 16 << 10;
/// Pieces on their way in one direction; then the sender's window is full.
const PIECES: usize = 64;
/// How long a lost piece waits for its repetition.
const REPEATED_AFTER: Duration = Duration::from_millis(220);

/// One end of a connection. Dropped before its time, it tells its owner by a reset.
struct End {
    stream: TcpStream,
    in_order: bool,
}

impl End {
    fn new(stream: TcpStream) -> End {
        // Where an option cannot be had, the connection works all the same.
        let _ = stream.set_nodelay(true);
        End { stream, in_order: false }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.in_order {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// What goes in one direction.
enum Piece {
    Bytes(Vec<u8>),
    /// The sender will send no more.
    End,
    /// The sender is gone.
    Reset,
}

/// Carries a connection that was made to a front, for as long as it lives.
pub(super) async fn carry(shared: std::sync::Arc<Shared>, (from, to): (Place, Place), near: TcpStream) {
    let near = End::new(near);
    let (mut there, mut back) = (shared.links.follow(from, to), shared.links.follow(to, from));
    let (mut ends_there, mut ends_back) = (there.clone(), back.clone());
    let carried = async {
        // The first packets need both ways.
        there.open().await;
        back.open().await;
        clock::sleep(there.weather().delay + back.weather().delay).await;
        if let Ok(far) = reach(&shared, from, to).await {
            both(&shared, near, End::new(far), there, back).await;
        }
    };
    // Whichever way it ends, what is left of it is dropped.
    tokio::select! {
        () = ends_there.reset() => {}
        () = ends_back.reset() => {}
        () = carried => {}
    }
}

/// Connects to the peer, from the caller's address.
async fn reach(shared: &Shared, from: Place, to: Place) -> io::Result<TcpStream> {
    let peer = shared.peer(to).ok_or(io::ErrorKind::ConnectionRefused)?;
    let socket = TcpSocket::new_v4()?;
    let [a, b, c] = shared.net;
    socket.bind(([a, b, c, from], 0).into())?;
    socket.connect(peer).await
}

/// Both directions.
async fn both(shared: &Shared, mut near: End, mut far: End, there: Direction, back: Direction) {
    let ended = {
        let ((near_reads, near_writes), (far_reads, far_writes)) = (near.stream.split(), far.stream.split());
        let one = direction(shared, near_reads, far_writes, there.clone(), back.clone());
        let other = direction(shared, far_reads, near_writes, back, there);
        // An error is a reset that has arrived: it ends both.
        tokio::try_join!(one, other)
    };
    (near.in_order, far.in_order) = (ended.is_ok(), ended.is_ok());
}

/// One direction, until its end or a reset has arrived.
async fn direction(
    shared: &Shared,
    reads: ReadHalf<'_>,
    writes: WriteHalf<'_>,
    weather: Direction,
    back: Direction,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let taken = take(shared, reads, sender, weather.clone());
    let given = give(receiver, writes, weather, back);
    tokio::pin!(given);
    tokio::select! {
        given = &mut given => given,
        () = taken => given.await,
    }
}

/// Takes what the sender sends, and says when it is to arrive.
async fn take(shared: &Shared, mut reads: ReadHalf<'_>, sender: mpsc::Sender<(Instant, Piece)>, weather: Direction) {
    let mut buffer = vec![0; PIECE];
    let mut last = Instant::now();
    loop {
        let piece = match reads.read(&mut buffer).await {
            Ok(0) => Piece::End,
            Ok(length) => Piece::Bytes(buffer[..length].to_vec()),
            Err(_) => Piece::Reset,
        };
        let (delay, lost) = shared.draw(weather.weather());
        let late = if lost { REPEATED_AFTER } else { Duration::ZERO };
        last = last.max(Instant::now() + delay + late);
        let is_last = !matches!(piece, Piece::Bytes(_));
        if sender.send((last, piece)).await.is_err() || is_last {
            return;
        }
    }
}

/// Gives the receiver what is due, unless the direction is cut.
async fn give(
    mut receiver: mpsc::Receiver<(Instant, Piece)>,
    mut writes: WriteHalf<'_>,
    mut weather: Direction,
    mut back: Direction,
) -> io::Result<()> {
    while let Some((due, piece)) = receiver.recv().await {
        clock::sleep_until(due).await;
        weather.open().await;
        let given = match piece {
            Piece::Bytes(bytes) => writes.write_all(&bytes).await,
            Piece::End => return writes.shutdown().await,
            Piece::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        if given.is_err() {
            // The receiver is gone, which the sender hears when something may come back to it.
            back.open().await;
            return given;
        }
    }
    Ok(())
}
