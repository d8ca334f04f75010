//! The memory layouts that generated code and the runtime share.
//!
//! Generated code addresses the fields by the `*_OFFSET` constants; a test checks them against the structs.
//! Functions that run on a frame have the signature `(ptr frame, i64 worker, i64 lo, i64 hi) -> i32`.

use crate::runtime::Run;

/// Start of every frame; the generator's own slots follow at [`FRAME_SLOTS`].
#[repr(C, align(64))]
pub struct FrameHeader {
    /// Handle that runtime calls take as their first argument.
    pub run: *const Run,
    /// Number of workers, at least 1; worker numbers are below it.
    pub workers: i64,
}

/// Offset of [`FrameHeader::run`].
pub const FRAME_RUN: i64 = 0;
/// Offset of [`FrameHeader::workers`].
pub const FRAME_WORKERS: i64 = 8;
/// First byte of a frame that belongs to the generator.
pub const FRAME_SLOTS: i64 = 64;

/// A growing list of rows of one width, owned by one worker; all zero is the empty list.
///
/// Generated code appends inline: when `cur == end` it calls `qn_rows_grow(run, list, width, operator)`, then writes
/// the row at `cur` and advances `cur` by the width. Rows never move.
#[repr(C, align(64))]
pub struct RowList {
    /// Where the next row goes.
    pub cur: *mut u8,
    /// End of the last chunk: a multiple of the row width from its start.
    pub end: *mut u8,
    /// First chunk.
    pub first: *mut RowChunk,
    /// Last chunk.
    pub last: *mut RowChunk,
    /// Bytes a row; set by the first growth.
    pub width: i64,
}

/// Offset of [`RowList::cur`].
pub const ROWS_CUR: i64 = 0;
/// Offset of [`RowList::end`].
pub const ROWS_END: i64 = 8;
/// Size of a [`RowList`].
pub const ROWS_BYTES: i64 = 64;

/// A piece of a [`RowList`]; its rows start at [`CHUNK_ROWS`] (16-byte aligned).
#[repr(C, align(16))]
pub struct RowChunk {
    /// Next chunk of the list.
    pub next: *mut RowChunk,
    /// End of the rows written; valid once the list has moved on to another chunk.
    pub end: *mut u8,
}

/// Offset of the first row in a chunk.
pub const CHUNK_ROWS: i64 = 16;

/// A run of consecutive rows in memory: what loops over materialised rows iterate over, see `qn_rows_spans`.
#[repr(C)]
pub struct RowSpan {
    /// First row.
    pub rows: *mut u8,
    /// Number of rows.
    pub count: i64,
}

/// Size of a [`RowSpan`].
pub const SPAN_BYTES: i64 = 16;

/// An operand or the result of a function of another library.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// First element.
    pub first: *mut u8,
    /// Number of elements.
    pub len: i64,
}

/// Size of a [`Slice`]; its length stands at 8.
pub const SLICE_BYTES: i64 = 16;

/// A chained hash table of groups, owned by one worker; all zero is the empty table.
///
/// An entry starts with [`Entry`]; generated code looks up `dir[hash & mask]` and follows `next`. It inserts inline
/// (append to `rows`, link, `count += 1`) and calls `qn_groups_grow(run, table, entries, operator)` when `count == limit` before
/// it inserts, which enlarges the directory (also the first one) and links all entries anew.
#[repr(C, align(64))]
pub struct GroupTable {
    /// `mask + 1` heads of chains.
    pub dir: *mut *mut Entry,
    /// Size of the directory minus 1.
    pub mask: i64,
    /// Entries.
    pub count: i64,
    /// Entries at which the directory has to grow.
    pub limit: i64,
    /// Padding, so that the list starts on a cache line of its own.
    pub reserved: [i64; 4],
    /// The entries.
    pub rows: RowList,
}

/// Offset of [`GroupTable::dir`].
pub const GROUPS_DIR: i64 = 0;
/// Offset of [`GroupTable::mask`].
pub const GROUPS_MASK: i64 = 8;
/// Offset of [`GroupTable::count`].
pub const GROUPS_COUNT: i64 = 16;
/// Offset of [`GroupTable::limit`].
pub const GROUPS_LIMIT: i64 = 24;
/// Offset of [`GroupTable::rows`].
pub const GROUPS_ROWS: i64 = 64;
/// Size of a [`GroupTable`].
pub const GROUPS_BYTES: i64 = 128;

/// Head of a hash-table entry (join or group table); keys and payload follow.
#[repr(C, align(16))]
pub struct Entry {
    /// Next entry of the chain, or null.
    pub next: *mut Entry,
    /// Full hash of the key.
    pub hash: u64,
}

/// Offset of [`Entry::next`].
pub const ENTRY_NEXT: i64 = 0;
/// Offset of [`Entry::hash`].
pub const ENTRY_HASH: i64 = 8;
/// Offset of the first key.
pub const ENTRY_KEYS: i64 = 16;

/// How the rows of a join's build side are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum JoinForm {
    /// Chains of rows by hash: `heads` has `mask + 1` first rows.
    Hashed = 0,
    /// Chains of rows by key: `heads` has a first row for each value from `min` on.
    Chains = 1,
    /// Rows of one key side by side: those of key `k` are `rows[heads[k - min] .. heads[k - min + 1]]`, `heads` of `i32`.
    Grouped = 2,
    /// As `Grouped`, with the key's rank in place of its offset.
    GroupedByRank = 3,
    /// The row of a key at its rank. Keys are unique.
    PlacedByRank = 4,
}

impl JoinForm {
    /// The form of a number.
    pub fn of(number: i64) -> Option<JoinForm> {
        use JoinForm::*;
        [Hashed, Chains, Grouped, GroupedByRank, PlacedByRank].into_iter().find(|form| *form as i64 == number)
    }
}

/// 64 values of a bitmap of keys, with what it takes to know a key's rank.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RankWord {
    /// Which of them occur.
    pub bits: u64,
    /// How many keys before them occur.
    pub before: u64,
}

/// Offset of [`RankWord::before`].
pub const RANK_BEFORE: i64 = 8;
/// Size of a [`RankWord`].
pub const RANK_BYTES: i64 = 16;

/// Bits of a head of a hashed directory that are the address of the chain's first entry: user space ends below.
pub const HEAD_ADDRESS: i64 = (1 << HEAD_TAGS) - 1;
/// First of the 16 bits above them, one of which is set for each entry of the chain: that of its hash's highest 4 bits. A look-up
/// whose bit is not set has no match (Leis et al., "Morsel-driven parallelism", SIGMOD 2014).
pub const HEAD_TAGS: i64 = 48;

/// What `qn_join_directory` gets and gives: a block of the frame.
#[repr(C)]
pub struct JoinDirectory {
    /// First of the lists of rows.
    pub lists: *mut u8,
    /// Number of lists.
    pub workers: i64,
    /// Bytes from one list to the next.
    pub stride: i64,
    /// Bytes a row, a multiple of 16. A row starts with an [`Entry`], whose hash is filled in for `Hashed`.
    pub width: i64,
    /// A [`JoinForm`].
    pub form: i64,
    /// Offset of the key in a row.
    pub key: i64,
    /// Bytes of the key, a signed integer: 4, 8 or 16.
    pub key_bytes: i64,
    /// Least key.
    pub min: i64,
    /// Number of values that the key can have.
    pub values: i64,
    /// Must rows of one key stay in order?
    pub in_order: i64,
    /// For forms by rank: `values / 64 + 1` words, in which the keys that occur are marked.
    pub ranks: *mut RankWord,
    /// Given: heads of chains (for `Hashed` with tags, see [`HEAD_TAGS`]), or positions.
    pub heads: *mut u8,
    /// Given: number of hashed heads minus 1.
    pub mask: i64,
    /// Given: rows in order.
    pub rows: *mut u8,
}

/// Offset of [`JoinDirectory::ranks`].
pub const DIRECTORY_RANKS: i64 = 80;
/// Offset of [`JoinDirectory::heads`].
pub const DIRECTORY_HEADS: i64 = 88;
/// Offset of [`JoinDirectory::mask`].
pub const DIRECTORY_MASK: i64 = 96;
/// Offset of [`JoinDirectory::rows`].
pub const DIRECTORY_ROWS: i64 = 104;
/// Size of a [`JoinDirectory`].
pub const DIRECTORY_BYTES: i64 = 112;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn offsets_are_those_of_the_structs() {
        let pairs = [
            (FRAME_RUN, offset_of!(FrameHeader, run)),
            (FRAME_WORKERS, offset_of!(FrameHeader, workers)),
            (FRAME_SLOTS, size_of::<FrameHeader>()),
            (ROWS_CUR, offset_of!(RowList, cur)),
            (ROWS_END, offset_of!(RowList, end)),
            (ROWS_BYTES, size_of::<RowList>()),
            (CHUNK_ROWS, size_of::<RowChunk>()),
            (SPAN_BYTES, size_of::<RowSpan>()),
            (GROUPS_DIR, offset_of!(GroupTable, dir)),
            (GROUPS_MASK, offset_of!(GroupTable, mask)),
            (GROUPS_COUNT, offset_of!(GroupTable, count)),
            (GROUPS_LIMIT, offset_of!(GroupTable, limit)),
            (GROUPS_ROWS, offset_of!(GroupTable, rows)),
            (GROUPS_BYTES, size_of::<GroupTable>()),
            (ENTRY_NEXT, offset_of!(Entry, next)),
            (ENTRY_HASH, offset_of!(Entry, hash)),
            (ENTRY_KEYS, size_of::<Entry>()),
            (RANK_BEFORE, offset_of!(RankWord, before)),
            (RANK_BYTES, size_of::<RankWord>()),
            (DIRECTORY_RANKS, offset_of!(JoinDirectory, ranks)),
            (DIRECTORY_HEADS, offset_of!(JoinDirectory, heads)),
            (DIRECTORY_MASK, offset_of!(JoinDirectory, mask)),
            (DIRECTORY_ROWS, offset_of!(JoinDirectory, rows)),
            (DIRECTORY_BYTES, size_of::<JoinDirectory>()),
        ];
        for (i, (constant, actual)) in pairs.into_iter().enumerate() {
            assert_eq!(constant, actual as i64, "pair {i}");
        }
        assert_eq!((offset_of!(RowSpan, rows), offset_of!(RowSpan, count)), (0, 8));
    }
}
