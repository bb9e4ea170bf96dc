//! What a look looks like on a terminal. Pure.

use super::command::HELP;
use super::look::Look;

/// Clears the screen; the cursor goes to its first line.
pub(super) const CLEAR: &str = "\x1b[2J\x1b[H";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const KEEP_CURSOR: &str = "\x1b7";
const CURSOR_BACK: &str = "\x1b8";
/// Partitions in one line of the ring.
const RING_WIDTH: usize = 64;

/// The table of the peers.
pub(super) fn table(look: &Look) -> String {
    let mut text = format!(
        "{:<6} {:<16} {:<9} {:>8} {:>9} {:>10} {:>11} {:>12}\n",
        "PEER", "ADDRESS", "STATE", "LEADERS", "REPLICAS", "ROWS", "COMMANDS/s", "LOG ENTRIES/s"
    );
    for peer in &look.peers {
        text += &format!(
            "{:<6} {:<16} {:<9} {:>8} {:>9} {:>10} {:>11.0} {:>12.0}\n",
            peer.name,
            peer.address,
            peer.state,
            peer.leaders,
            peer.replicas,
            peer.rows,
            peer.commands_per_second,
            peer.entries_per_second
        );
    }
    text += &format!(
        "{} partitions, {} moving, {} without a leader, {} with too few living replicas; load {}/s\n",
        look.leaders.len(),
        look.moving,
        look.leaderless,
        look.under_replicated,
        look.load
    );
    text
}

/// What of a look is worth telling again when it changes: no rates.
pub(super) fn standing(look: &Look) -> String {
    let peers: Vec<String> = look
        .peers
        .iter()
        .map(|peer| format!("{} {} {} {}", peer.name, peer.state, peer.leaders, peer.replicas))
        .collect();
    format!("{peers:?} {} {} {}", look.moving, look.leaderless, look.under_replicated)
}

/// The ring: for each partition the number of the peer that leads it, `.` for none.
fn ring(look: &Look) -> String {
    let sign = |leader: &String| {
        let at = look.peers.iter().position(|peer| peer.name == *leader);
        at.and_then(|at| char::from_digit(at as u32 + 1, 36)).unwrap_or('.')
    };
    let signs: Vec<char> = look.leaders.iter().map(sign).collect();
    signs.chunks(RING_WIDTH).map(|signs| signs.iter().collect::<String>() + "\n").collect()
}

/// The whole screen, drawn over the last one. The last line is where commands are typed: the cursor
/// stays in the column that the typing has reached.
pub(super) fn screen(look: &Look, happenings: &[&str]) -> String {
    let mut text = format!("{}\nwho leads each partition:\n{}\n", table(look), ring(look));
    text += &format!("commands: {HELP}\n\n");
    for what in happenings {
        text += &format!("  {what}\n");
    }
    let lines: String = text.lines().map(|line| format!("{line}{REST_OF_LINE}\r\n")).collect();
    let row = text.lines().count() + 2;
    format!("{KEEP_CURSOR}{HOME}{lines}{CURSOR_BACK}\x1b[{row}d")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::dev::look::PeerLook;

    fn look() -> Look {
        let peer =
            |name: &str, leaders| PeerLook { name: name.to_owned(), state: "serving", leaders, ..PeerLook::default() };
        let leaders = ["n1", "n2", "", "n1"].map(str::to_owned).to_vec();
        Look { peers: vec![peer("n1", 2), peer("n2", 1)], leaders, leaderless: 1, load: 5, ..Look::default() }
    }

    #[test]
    fn the_ring_shows_who_leads() {
        assert_eq!(ring(&look()), "12.1\n");
        let text = table(&look());
        assert!(text.contains("n2") && text.contains("4 partitions, 0 moving, 1 without a leader"), "{text}");
    }

    #[test]
    fn rates_are_no_standing_change() {
        let (before, mut now) = (look(), look());
        now.peers[0].commands_per_second = 9.0;
        assert_eq!(standing(&before), standing(&now));
        now.peers[0].leaders = 3;
        assert_ne!(standing(&before), standing(&now));
    }
}
