//! Memory planning: buffers that are never needed at the same time share a place.
//!
//! The order in which buffers are placed decides how much is lost in gaps, and no order is best for all programs: some are
//! tried, and improved, until one loses next to nothing.

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

impl Live {
    /// Bytes of its place.
    fn room(&self) -> u64 {
        self.bytes.next_multiple_of(ALIGN)
    }

    /// Stages that it is needed in.
    fn stages(&self) -> u64 {
        (self.last - self.first) as u64 + 1
    }
}

/// Offsets of buffers, and the size of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Offset of each buffer.
    pub offsets: HashMap<BufferId, u64>,
    /// Size.
    pub bytes: u64,
    /// Bytes that are needed in each stage; no layout is smaller than the most of them.
    pub needed: Vec<u64>,
}

/// Rounds of improvement, at most, and how many buffers they may place altogether.
const ROUNDS: usize = 40;
const PATIENCE: usize = 100_000;

/// What a layout may lose before it is improved: a 64th.
const LOSS: u64 = 64;

/// Places the buffers, each into the smallest gap that is free while it lives, in several orders. What ends up too high in
/// one is placed first in the next round. Gives the smallest layout.
pub fn place(live: &[Live]) -> Layout {
    let needed = needed(live);
    let least = needed.iter().copied().max().unwrap_or(0);
    // Large ones first; large ones that stay long; those that stay long; those that are needed first.
    type Order = fn(&Live) -> (u64, u64);
    const ORDERS: [Order; 4] = [
        |l| (!l.room(), !l.stages()),
        |l| (!l.room().saturating_mul(l.stages()), !l.room()),
        |l| (!l.stages(), !l.room()),
        |l| (l.first as u64, !l.room()),
    ];
    let mut orders = ORDERS.map(|order| {
        let mut live = live.to_vec();
        live.sort_by_key(|l| (order(l), l.buffer));
        live
    });
    let mut layout = Layout { offsets: HashMap::new(), bytes: u64::MAX, needed };
    for _ in 0..(PATIENCE / live.len().max(1)).clamp(1, ROUNDS) {
        for order in &mut orders {
            let placed = Placed::new(order, layout.needed.len());
            let too_high = order.iter().zip(&placed.offsets).position(|(l, at)| at + l.room() > least);
            if placed.bytes < layout.bytes {
                layout.bytes = placed.bytes;
                layout.offsets = order.iter().zip(&placed.offsets).map(|(l, at)| (l.buffer, *at)).collect();
            }
            if layout.bytes <= least + least / LOSS {
                return layout;
            }
            if let Some(position) = too_high {
                order[..=position].rotate_right(1);
            }
        }
    }
    layout
}

/// Bytes that are needed in each stage.
fn needed(live: &[Live]) -> Vec<u64> {
    let stages = live.iter().map(|l| l.last + 1).max().unwrap_or(0);
    let mut needed = vec![0; stages];
    for item in live {
        needed[item.first..=item.last].iter_mut().for_each(|bytes| *bytes += item.room());
    }
    needed
}

/// Offsets of buffers in the order in which they were placed.
struct Placed {
    bytes: u64,
    offsets: Vec<u64>,
}

impl Placed {
    /// Places the buffers of a program of so many stages in the order given.
    fn new(live: &[Live], stages: usize) -> Placed {
        let mut placed = Placed { bytes: 0, offsets: Vec::with_capacity(live.len()) };
        // The buffers that are needed in each stage, and those that are needed from there on: whatever meets a buffer is
        // needed in its first stage, or starts later and before its end.
        let (mut needed, mut starting) = (vec![vec![]; stages], vec![vec![]; stages]);
        let mut busy = vec![];
        for item in live {
            busy.clear();
            busy.extend(&needed[item.first]);
            starting[item.first + 1..=item.last].iter().for_each(|ranges| busy.extend(ranges));
            busy.sort_unstable();
            let at = best_gap(&busy, item.room());
            let range = (at, at + item.room());
            needed[item.first..=item.last].iter_mut().for_each(|ranges| ranges.push(range));
            starting[item.first].push(range);
            placed.bytes = placed.bytes.max(range.1);
            placed.offsets.push(at);
        }
        placed
    }
}

/// Start of the smallest gap between busy ranges, in order, that has room; else the end of the last one.
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
    use proptest::prelude::*;

    fn live(buffer: u32, bytes: u64, first: usize, last: usize) -> Live {
        Live { buffer: BufferId(buffer), bytes, first, last }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let layout = place(&[live(0, 640, 0, 1), live(1, 1280, 1, 2), live(2, 640, 2, 3), live(3, 64, 3, 4)]);
        assert_eq!(layout.bytes, 1280 + 640);
        assert_eq!(layout.needed, [640, 1920, 1920, 704, 64]);
        assert_eq!(layout.offsets[&BufferId(0)], layout.offsets[&BufferId(2)]);
    }

    /// The attention of a transformer, for which every order by itself loses a sixth.
    #[test]
    fn orders_are_improved() {
        let buffers = [(64, 0, 4), (64, 1, 3), (64, 2, 6), (64, 3, 4), (128, 4, 5), (128, 5, 6)];
        let all: Vec<Live> = (0..).zip(buffers).map(|(i, (bytes, first, last))| live(i, bytes, first, last)).collect();
        let layout = place(&all);
        let least = layout.needed.iter().max().unwrap();
        assert!(layout.bytes <= least + least / LOSS, "{} of {least}", layout.bytes);
    }

    fn buffers() -> impl Strategy<Value = Vec<Live>> {
        let buffer = (0..5000u64, 0..60usize, 0..12usize);
        prop::collection::vec(buffer, 0..80).prop_map(|all| {
            (0..).zip(all).map(|(i, (bytes, first, more))| live(i, bytes, first, first + more)).collect()
        })
    }

    proptest! {
        #[test]
        fn buffers_that_meet_do_not_overlap(all in buffers()) {
            let layout = place(&all);
            let meet = |a: &Live, b: &Live| b.first <= a.last && a.first <= b.last;
            for (i, a) in all.iter().enumerate() {
                let at = layout.offsets[&a.buffer];
                prop_assert!(at.is_multiple_of(ALIGN) && at + a.bytes <= layout.bytes);
                for b in all[..i].iter().filter(|b| meet(a, b)) {
                    let other = layout.offsets[&b.buffer];
                    prop_assert!(at + a.room() <= other || other + b.room() <= at, "{a:?} and {b:?}");
                }
            }
            prop_assert_eq!(layout.offsets.len(), all.len());
        }

        #[test]
        fn no_layout_is_smaller_than_what_is_needed(all in buffers()) {
            let layout = place(&all);
            let stages = 0..all.iter().map(|l| l.last + 1).max().unwrap_or(0);
            let live = |stage: usize| all.iter().filter(move |l| (l.first..=l.last).contains(&stage));
            prop_assert_eq!(&layout.needed, &stages.map(|s| live(s).map(Live::room).sum()).collect::<Vec<u64>>());
            prop_assert!(layout.bytes >= layout.needed.iter().copied().max().unwrap_or(0));
            prop_assert!(layout.bytes <= all.iter().map(Live::room).sum());
        }

        #[test]
        fn the_same_buffers_have_the_same_places(all in buffers()) {
            let reversed: Vec<Live> = all.iter().rev().copied().collect();
            prop_assert_eq!(place(&all), place(&reversed));
        }
    }
}
