//! Packing: frames that wait together travel in one gRPC message, because a message costs far more
//! than a frame.

use futures::{Stream, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::UnboundedReceiver;

/// A frame in a queue, with whatever is to be given back when it leaves the queue.
pub(super) struct Queued<F, G> {
    pub(super) frame: F,
    pub(super) bytes: usize,
    /// Dropped when the frame is packed, or with the queue.
    pub(super) _held: G,
}

/// Bytes counted against a limit until dropped.
pub(super) struct HeldBytes {
    count: Arc<AtomicUsize>,
    bytes: usize,
}

impl HeldBytes {
    /// Counts bytes; `None` when the limit would be passed. One frame always fits when nothing
    /// else is held.
    pub(super) fn take(count: &Arc<AtomicUsize>, bytes: usize, limit: usize) -> Option<HeldBytes> {
        let fits = |held: usize| (held == 0 || held + bytes <= limit).then_some(held + bytes);
        count.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(HeldBytes { count: count.clone(), bytes })
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Relaxed);
    }
}

/// Batches of the frames in a queue: as many as are ready, up to about `limit` bytes.
pub(super) fn packed<F, G>(queue: UnboundedReceiver<Queued<F, G>>, limit: usize) -> impl Stream<Item = Vec<F>>
where
    F: Send,
    G: Send,
{
    stream::unfold(queue, move |mut queue| async move {
        let first = queue.recv().await?;
        let mut bytes = first.bytes;
        let mut frames = vec![first.frame];
        while bytes < limit {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.bytes;
            frames.push(next.frame);
        }
        Some((frames, queue))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn ready_frames_travel_together_up_to_the_limit() {
        let (sender, queue) = mpsc::unbounded_channel();
        for frame in 0..5 {
            assert!(sender.send(Queued { frame, bytes: 40, _held: () }).is_ok());
        }
        drop(sender);
        let batches: Vec<Vec<i32>> = packed(queue, 100).collect().await;
        assert_eq!(batches, [vec![0, 1, 2], vec![3, 4]]);
    }

    #[test]
    fn held_bytes_are_bounded_and_given_back() {
        let count = Arc::new(AtomicUsize::new(0));
        let large = HeldBytes::take(&count, 200, 100);
        assert!(large.is_some(), "a single frame passes");
        assert!(HeldBytes::take(&count, 1, 100).is_none());
        drop(large);
        assert!(HeldBytes::take(&count, 60, 100).is_some());
        assert_eq!(count.load(Relaxed), 0);
    }
}
