//! Brings loads within bounds by the fewest moves: along the shortest chain of moves that leads
//! from a node with too much (or enough to spare) to one with too little (or room).

use super::bounds::Bounds;
use std::collections::VecDeque;

/// Something of which nodes hold pieces, and which pieces may move.
pub(super) trait Moves {
    /// The best piece to move from one node to another, if one may.
    fn best(&self, from: usize, to: usize) -> Option<usize>;

    /// Moves a piece that [`Moves::best`] named.
    fn apply(&mut self, piece: usize, from: usize, to: usize);
}

/// Moves pieces until every load is within its bounds, no move helps, or `budget` chains have been made.
pub(super) fn balance(moves: &mut impl Moves, loads: &mut [usize], bounds: &[Bounds], budget: usize) {
    for _ in 0..budget {
        let over = by_load(loads, bounds, true, |i| loads[i] > bounds[i].most);
        let under = by_load(loads, bounds, false, |i| loads[i] < bounds[i].least);
        if over.is_empty() && under.is_empty() {
            return;
        }
        let room = by_load(loads, bounds, false, |i| loads[i] < bounds[i].most);
        let spare = by_load(loads, bounds, true, |i| loads[i] > bounds[i].least);
        let chain = shortest_chain(moves, loads.len(), &over, &under)
            .or_else(|| shortest_chain(moves, loads.len(), &over, &room))
            .or_else(|| shortest_chain(moves, loads.len(), &spare, &under));
        let Some(chain) = chain else { return };
        if !follow(moves, loads, &chain) {
            return;
        }
    }
}

/// The nodes that match, the most loaded relative to their share first (or last); ties by index.
fn by_load(loads: &[usize], bounds: &[Bounds], most_first: bool, matches: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut found: Vec<usize> = (0..loads.len()).filter(|i| matches(*i)).collect();
    found.sort_by(|&a, &b| {
        let (of_a, of_b) = (loads[a] as u128 * bounds[b].share, loads[b] as u128 * bounds[a].share);
        if most_first { of_b.cmp(&of_a) } else { of_a.cmp(&of_b) }
    });
    found
}

/// Breadth-first from the sources, in their order, to the first target that is reached.
fn shortest_chain(moves: &impl Moves, nodes: usize, sources: &[usize], targets: &[usize]) -> Option<Vec<usize>> {
    if sources.is_empty() || targets.is_empty() {
        return None;
    }
    let mut came_from: Vec<Option<usize>> = vec![None; nodes];
    let mut seen = vec![false; nodes];
    sources.iter().for_each(|source| seen[*source] = true);
    let mut queue: VecDeque<usize> = sources.iter().copied().collect();
    while let Some(from) = queue.pop_front() {
        for to in targets.iter().copied().chain((0..nodes).filter(|node| !targets.contains(node))) {
            if seen[to] || moves.best(from, to).is_none() {
                continue;
            }
            seen[to] = true;
            came_from[to] = Some(from);
            if targets.contains(&to) {
                let mut chain: Vec<usize> = std::iter::successors(Some(to), |node| came_from[*node]).collect();
                chain.reverse();
                return Some(chain);
            }
            queue.push_back(to);
        }
    }
    None
}

/// Makes the moves of a chain, last first. Whether any was made: an earlier move can forbid a later one.
fn follow(moves: &mut impl Moves, loads: &mut [usize], chain: &[usize]) -> bool {
    let mut moved = false;
    for link in chain.windows(2).rev() {
        let (from, to) = (link[0], link[1]);
        let Some(piece) = moves.best(from, to) else { return moved };
        moves.apply(piece, from, to);
        loads[from] -= 1;
        loads[to] += 1;
        moved = true;
    }
    moved
}
