//! Memory planning: buffers that are never needed at the same time share a place.

use super::spec::BufferId;
use std::collections::HashMap;

/// Every place starts on a cache line.
const ALIGN: u64 = 64;

/// A buffer while it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Buffer.
    pub buffer: BufferId,
    /// Size.
    pub bytes: u64,
    /// First stage that touches it.
    pub first: usize,
    /// Last stage that touches it.
    pub last: usize,
}

/// Offsets of buffers, and the size of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Offset of each buffer.
    pub offsets: HashMap<BufferId, u64>,
    /// Size.
    pub bytes: u64,
}

/// Places the buffers, largest first, each into the smallest gap that is free while it lives.
pub fn place(mut live: Vec<Live>) -> Layout {
    live.sort_by_key(|l| (std::cmp::Reverse(l.bytes), l.buffer));
    let mut layout = Layout::default();
    let mut placed: Vec<(u64, Live)> = vec![];
    for item in live {
        let bytes = item.bytes.next_multiple_of(ALIGN);
        let mut busy: Vec<(u64, u64)> = placed
            .iter()
            .filter(|(_, other)| other.first <= item.last && item.first <= other.last)
            .map(|(at, other)| (*at, at + other.bytes.next_multiple_of(ALIGN)))
            .collect();
        busy.sort_unstable();
        let at = best_gap(&busy, bytes);
        layout.bytes = layout.bytes.max(at + bytes);
        layout.offsets.insert(item.buffer, at);
        placed.push((at, item));
    }
    layout
}

/// Start of the smallest gap between busy ranges that has room; else the end of the last one.
fn best_gap(busy: &[(u64, u64)], bytes: u64) -> u64 {
    let (mut end, mut best) = (0, None);
    for &(from, to) in busy {
        if from >= end + bytes && best.is_none_or(|(size, _)| from - end < size) {
            best = Some((from - end, end));
        }
        end = end.max(to);
    }
    best.map_or(end, |(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(buffer: u32, bytes: u64, first: usize, last: usize) -> Live {
        Live { buffer: BufferId(buffer), bytes, first, last }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let layout = place(vec![live(0, 640, 0, 1), live(1, 1280, 1, 2), live(2, 640, 2, 3), live(3, 64, 3, 4)]);
        assert_eq!(layout.bytes, 1280 + 640);
        assert_eq!(layout.offsets[&BufferId(0)], layout.offsets[&BufferId(2)]);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let all: Vec<Live> =
            (0..40).map(|i| live(i, u64::from(i * 37 % 11) * 100 + 1, i as usize / 3, i as usize / 2 + 2)).collect();
        let layout = place(all.clone());
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                let (x, y) = (layout.offsets[&a.buffer], layout.offsets[&b.buffer]);
                let together = a.first <= b.last && b.first <= a.last;
                assert!(!together || x + a.bytes <= y || y + b.bytes <= x);
            }
        }
    }
}
