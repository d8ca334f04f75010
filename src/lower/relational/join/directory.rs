//! How keys find rows of the build side.
//!
//! Where a key is an integer of a limited range, the directory is an array and the key a position in it: no hash, no
//! comparison. A dense range is indexed by the key's offset. A sparse one has a bitmap of the keys that occur, with the
//! number of keys before each word of it, so that the key's *rank* is its position (a two-level perfect hash; compare
//! the bitmap trees of Lang et al., "Tree-Encoded Bitmaps", SIGMOD 2020); a key without a match is found out by one bit,
//! in a structure that is small enough for the second-level cache. Else it is a chained hash table whose chains are
//! linked by all threads at once (Leis et al., "Morsel-driven parallelism", SIGMOD 2014).
//!
//! Rows of equal position are brought together by a counting sort, as a chain through memory costs a cache miss a row.
//! A stored table whose key counts its rows up needs no directory: the key is the row.

use super::super::value::{Range, Value, widen};
use super::Join;
use crate::lower::context::{Cx, Fact};
use crate::lower::error::Result;
use crate::lower::frame::Slot;
use crate::lower::relational::{pipeline, scan};
use quearn_backends::abi::{self, JoinForm};
use quearn_stage::graph::{JoinKind, Node, Op};
use quearn_stage::low::{BinOp, Builder, CastOp, CmpOp, Prim, RmwOp, Ty, UnOp, V};

/// How a key becomes a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// By its distance from the least.
    Offset(Range),
    /// By the number of smaller keys that occur.
    Rank(Range),
}

/// What lies at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The address of the first row of a chain, or null.
    Chain,
    /// The position (`u32`) of the key's first row in an array of rows in order of their keys; its last row ends where
    /// the next position's begins.
    Grouped,
    /// The only row.
    Placed,
}

/// How keys find rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One byte a key value: does it occur? The row does not matter.
    Flags(Range),
    /// The same in one bit, for keys that are looked up in no order: it stays in cache eight times as long.
    Bits(Range),
    /// One of the keys is a position; the others are compared.
    Array {
        /// Which key.
        key: usize,
        /// How it becomes a position.
        index: Index,
        /// What lies there.
        rows: Rows,
    },
    /// A power of two of heads of chains, indexed by hash.
    Hashed,
    /// The key is the row of a stored table.
    Positional {
        /// The scan.
        scan: Node,
        /// Keys.
        range: Range,
    },
}

impl Access {
    /// The form in which the runtime arranges the rows, if there are any.
    pub fn form(self) -> Option<JoinForm> {
        Some(match self {
            Access::Flags(_) | Access::Bits(_) | Access::Positional { .. } => return None,
            Access::Hashed => JoinForm::Hashed,
            Access::Array { rows: Rows::Chain, .. } => JoinForm::Chains,
            Access::Array { rows: Rows::Placed, .. } => JoinForm::PlacedByRank,
            Access::Array { index: Index::Offset(_), .. } => JoinForm::Grouped,
            Access::Array { index: Index::Rank(_), .. } => JoinForm::GroupedByRank,
        })
    }
}

/// Where the parts of a directory are; state slots of the frame.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Offset of the block in the frame.
    pub block: i64,
    /// Address of the flags, heads or positions.
    pub heads: Slot,
    /// Size of a hashed directory minus 1.
    pub mask: Slot,
    /// Address of the rows that were brought together.
    pub rows: Slot,
    /// Address of the bitmap with counts.
    pub ranks: Slot,
}

impl Slots {
    /// New slots: parts of an `abi::JoinDirectory`.
    pub fn new(cx: &Cx<'_>) -> Slots {
        let block = cx.frame.block(abi::DIRECTORY_BYTES, 8);
        let slot = |offset: i64, ty| Slot { offset: block + offset, ty };
        Slots {
            block,
            heads: slot(abi::DIRECTORY_HEADS, Ty::PTR),
            mask: slot(abi::DIRECTORY_MASK, Ty::I64),
            rows: slot(abi::DIRECTORY_ROWS, Ty::PTR),
            ranks: slot(abi::DIRECTORY_RANKS, Ty::PTR),
        }
    }
}

/// A range that is not worth a thought, in keys.
const SMALL_RANGE: f64 = 65536.0;
/// Keys of a range for each row that is built or looked up, at most: a bitmap with counts has a quarter of a byte to clear
/// and to sum up for each key, flags a byte to clear.
const KEYS_A_ROW: f64 = 64.0;
/// Flags that fit the second-level cache beside everything else.
const LARGE_FLAGS: u64 = 1 << 18;
/// Rows that are compared for a match, where one of several keys is a position.
const COMPARED: f64 = 8.0;

impl Index {
    /// The keys.
    pub fn range(self) -> Range {
        match self {
            Index::Offset(range) | Index::Rank(range) => range,
        }
    }

    /// Number of words of the bitmap.
    pub fn words(self) -> i64 {
        self.range().count().unwrap_or(0) as i64 / 64 + 1
    }

    /// Notes that a key occurs.
    pub fn mark<'b>(self, ranks: V<'b>, key: Value<'b>) {
        if let Index::Rank(range) = self {
            let b = ranks.builder();
            let at = offset(key, range);
            let bit = b.i64(1).bin(BinOp::Shl, at & 63);
            b.atomic(RmwOp::Or, ranks.index(at.lshr(6), abi::RANK_BYTES), bit);
        }
    }
}

/// Notes a key in a bitmap. It is mostly there already where keys repeat, and an atomic access takes 20 cycles.
pub fn mark_bit<'b>(bits: V<'b>, key: Value<'b>, range: Range) {
    let b = bits.builder();
    let at = offset(key, range);
    let (word, bit) = (bits.index(at.lshr(6), 8), b.i64(1).bin(BinOp::Shl, at & 63));
    let fresh = (b.load(Ty::I64, word, 0) & bit).eq(b.i64(0));
    b.if_(fresh, || {
        b.atomic(RmwOp::Or, word, bit);
    });
}

/// Is a key in a bitmap?
pub fn test_bit<'b>(bits: V<'b>, key: Value<'b>, range: Range) -> V<'b> {
    let b = bits.builder();
    let at = offset(key, range);
    let word = b.load_invariant(Ty::I64, bits.index(at.lshr(6), 8), 0);
    word.bin(BinOp::LShr, at & 63).cast(CastOp::Trunc, Prim::Bool)
}

/// A place in a bitmap with counts.
pub struct Ranked<'b> {
    entry: V<'b>,
    bits: V<'b>,
    shift: V<'b>,
}

impl<'b> Ranked<'b> {
    /// The place of an offset.
    pub fn find(ranks: V<'b>, offset: V<'b>) -> Ranked<'b> {
        let b = ranks.builder();
        let entry = ranks.index(offset.lshr(6), abi::RANK_BYTES);
        Ranked { entry, bits: b.load_invariant(Ty::I64, entry, 0), shift: offset & 63 }
    }

    /// Does the key occur?
    pub fn occurs(&self) -> V<'b> {
        self.bits.bin(BinOp::LShr, self.shift).cast(CastOp::Trunc, Prim::Bool)
    }

    /// Number of keys before it.
    pub fn rank(&self) -> V<'b> {
        let b = self.bits.builder();
        let below = b.i64(1).bin(BinOp::Shl, self.shift) - 1;
        b.load_invariant(Ty::I64, self.entry, abi::RANK_BEFORE) + (self.bits & below).un(UnOp::Popcnt)
    }
}

/// Distance of a key from the least.
pub fn offset<'b>(key: Value<'b>, range: Range) -> V<'b> {
    let v = key.scalar();
    if v.ty().prim == Prim::I128 {
        return (v - v.builder().int(Ty::I128, range.min)).sext(Prim::I64);
    }
    widen(v, Prim::I64) - range.min as i64
}

/// Is the key a value that the directory has a place for?
pub fn inside<'b>(b: &'b Builder, key: Value<'b>, range: Range, valid: Option<V<'b>>) -> V<'b> {
    let known = key.range.is_some_and(|r| range.contains(r));
    let v = widen(key.scalar(), Range::prim(range));
    let within = || {
        let ty = v.ty();
        v.cmp(CmpOp::Ge, b.int(ty, range.min)) & v.cmp(CmpOp::Le, b.int(ty, range.max))
    };
    let within = if known { b.bool(true) } else { within() };
    valid.map_or(within, |valid| valid & within)
}

/// Picks the structure for a build side whose keys have these values.
pub fn choose(cx: &Cx<'_>, join: &Join, keys: &[Value<'_>], unique: bool) -> Access {
    let built = cx.estimate.rows(join.right);
    let work = built + cx.estimate.rows(join.left);
    let limited = |key: &Value<'_>| {
        let keys = key.range?.count()?;
        let few = keys as f64 <= KEYS_A_ROW * work + SMALL_RANGE;
        (few && Range::I64.contains(key.range?)).then_some((key.range?, keys))
    };
    if let [key] = keys {
        return match limited(key) {
            Some((range, count)) if join.existence() => {
                let sorted = cx.estimate.column(join.keys[0].0).is_some_and(|column| column.stats.sorted);
                let bits = !sorted && count > LARGE_FLAGS && cx.estimate.rows(join.left) > 2.0 * built;
                if bits { Access::Bits(range) } else { Access::Flags(range) }
            }
            Some((range, count)) => array(0, range, count, built, unique),
            None => Access::Hashed,
        };
    }
    let rows_a_key = |i: usize| built / cx.estimate.distinct(join.keys[i].1);
    let candidates = (0..keys.len()).filter_map(|i| limited(&keys[i]).map(|found| (i, found)));
    let best = candidates.min_by(|a, b| rows_a_key(a.0).total_cmp(&rows_a_key(b.0)));
    match best {
        Some((i, (range, count))) if rows_a_key(i) <= COMPARED => array(i, range, count, built, false),
        _ => Access::Hashed,
    }
}

fn array(key: usize, range: Range, count: u64, built: f64, unique: bool) -> Access {
    let dense = count as f64 <= (2.0 * built).max(4096.0);
    let (index, rows) = match (dense, unique) {
        (true, false) => (Index::Offset(range), Rows::Grouped),
        (true, true) => (Index::Offset(range), Rows::Chain),
        (false, true) => (Index::Rank(range), Rows::Placed),
        (false, false) => (Index::Rank(range), Rows::Grouped),
    };
    Access::Array { key, index, rows }
}

/// The access to a build side that is a stored table as it is, whose key counts the rows up. What a model makes of its
/// rows is not computed again wherever one is met.
pub fn positional(cx: &Cx<'_>, join: &Join) -> Result<Option<Access>> {
    let plain = (join.kind == JoinKind::Inner || join.existence()) && !pipeline::is_batched(cx, join.right);
    let [(_, key)] = join.keys[..] else { return Ok(None) };
    let Some((scan, name)) = passed_on(cx, key, join.right).filter(|_| plain) else { return Ok(None) };
    scan::check(cx, scan)?;
    let table = scan::stored_table(cx, scan)?;
    let Some(column) = table.column(&name).ok().filter(|c| c.counts_up()) else { return Ok(None) };
    let (Some(min), Some(max)) = (column.stats.min, column.stats.max) else { return Ok(None) };
    cx.rely_on(Fact::CountsUp { table: table.name().to_owned(), column: name, min, max });
    Ok(Some(Access::Positional { scan, range: Range::new(min, max) }))
}

/// The scan and its column behind a key, if nothing between the scan and `table` takes rows away.
fn passed_on(cx: &Cx<'_>, key: Node, table: Node) -> Option<(Node, String)> {
    let Op::Column(name) = cx.graph.op(key) else { return None };
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        Op::Scan { .. } => Some((table, name.clone())),
        Op::Project { names } => passed_on(cx, inputs[1 + names.iter().position(|n| n == name)?], inputs[0]),
        _ => None,
    }
}
