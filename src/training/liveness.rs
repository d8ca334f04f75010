//! How much of what a step computes is live at once: an estimate.
//!
//! A value has a place from where it is computed to where it is read last. One that a single other is computed from, element by
//! element, has none: it is computed where it is read. A view has the place of what it is a view of.

use quearn_stage::graph::Node;

/// Why something is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Made {
    /// For the loss.
    Forward,
    /// For gradients and updates.
    Backward,
    /// A value of the forward pass once more.
    Again,
    /// A value that is kept, as an operand of what is computed again.
    Wrapped,
}

/// Something that a step computes.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The node that has its operator.
    pub(super) node: Node,
    /// Why.
    pub(super) made: Made,
    /// Entries that it is computed from.
    pub(super) inputs: Vec<usize>,
    /// Bytes that count.
    pub(super) bytes: u64,
    /// It has the place of its first input.
    pub(super) view: bool,
    /// It always has a place, if it is no view.
    pub(super) heavy: bool,
}

/// What an entry is a view of.
fn viewed(entries: &[Entry], mut at: usize) -> usize {
    while entries[at].view {
        at = entries[at].inputs[0];
    }
    at
}

/// For each entry that has a place: where it is read last.
pub(super) fn lives(entries: &[Entry]) -> Vec<Option<usize>> {
    let mut users = vec![0usize; entries.len()];
    for entry in entries.iter().filter(|entry| !entry.view) {
        entry.inputs.iter().for_each(|input| users[viewed(entries, *input)] += 1);
    }
    let mut last: Vec<Option<usize>> = vec![None; entries.len()];
    // The places that are read where an entry is.
    let mut places: Vec<Vec<usize>> = vec![];
    for (i, entry) in entries.iter().enumerate() {
        let mut read: Vec<usize> = entry.inputs.iter().flat_map(|input| places[*input].iter().copied()).collect();
        if !entry.view && (entry.heavy || users[i] != 1) {
            read.iter().for_each(|place| last[*place] = Some(i));
            last[i] = Some(i);
            read = vec![i];
        }
        read.sort_unstable();
        read.dedup();
        places.push(read);
    }
    last
}

/// Bytes that count and are live at once, at most.
pub(super) fn peak(entries: &[Entry]) -> u64 {
    let mut change = vec![0i128; entries.len() + 1];
    for (i, (entry, last)) in entries.iter().zip(lives(entries)).enumerate() {
        let Some(last) = last else { continue };
        change[i] += i128::from(entry.bytes);
        change[last + 1] -= i128::from(entry.bytes);
    }
    let (mut live, mut most) = (0, 0);
    for change in change {
        live += change;
        most = most.max(live);
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inputs: &[usize], bytes: u64, heavy: bool) -> Entry {
        Entry { node: Node(0), made: Made::Forward, inputs: inputs.to_vec(), bytes, view: false, heavy }
    }

    #[test]
    fn values_live_until_they_are_read_last() {
        // a, b of a, c of b; then one of c and a.
        let chain = [entry(&[], 100, true), entry(&[0], 10, true), entry(&[1], 1, true), entry(&[2, 0], 1000, true)];
        assert_eq!(peak(&chain), 1101);
        // Without the last reader, a is gone when c is made.
        assert_eq!(peak(&chain[..3]), 110);
    }

    #[test]
    fn what_is_computed_where_it_is_read_has_no_place() {
        let fused = [entry(&[], 8, true), entry(&[0], 8, false), entry(&[1], 8, true)];
        assert_eq!(peak(&fused), 16);
        let shared = [entry(&[], 8, true), entry(&[0], 8, false), entry(&[1], 8, true), entry(&[1, 2], 8, true)];
        assert_eq!(peak(&shared), 24);
        let view = [
            entry(&[], 8, true),
            Entry { view: true, ..entry(&[0], 0, false) },
            entry(&[1], 8, true),
            entry(&[1, 2], 8, true),
        ];
        assert_eq!(peak(&view), 24);
    }
}
