//! Text: comparisons, LIKE, substrings, cleaning and hashing, expanded in place for the pattern at hand.

use super::super::env::Env;
use super::super::value::{Range, Repr, Value};
use crate::lower::context::Cx;
use crate::lower::frame::{Slot, workers};
use crate::lower::tensor::target::Target;
use quearn_stage::graph::{Clean, CompareOp};
use quearn_stage::low::{BinOp, Builder, CastOp, Prim, Ty, UnOp, V};

/// A code as its text; text as it is.
pub fn as_text<'b>(cx: &Cx<'_>, env: &Env<'b>, value: Value<'b>) -> Value<'b> {
    match value.repr {
        Repr::Code { code, dict } => dict.text(cx, env.b, env.frame, code).with_valid(value.valid),
        _ => value,
    }
}

fn parts<'b>(text: Value<'b>) -> (V<'b>, V<'b>) {
    match text.repr {
        Repr::Text { ptr, len } => (ptr, len),
        Repr::Prim(_) | Repr::Code { .. } => unreachable!("as_text was called"),
    }
}

/// Compares bytes, as SQL's binary collation does.
pub fn compare<'b>(b: &'b Builder, op: CompareOp, x: Value<'b>, y: Value<'b>) -> V<'b> {
    let ((p, n), (q, m)) = (parts(x), parts(y));
    match op {
        CompareOp::Eq | CompareOp::Ne => {
            let same = b.if_else(n.eq(m), || vec![bytes_equal(b, p, q, n)], || vec![b.bool(false)])[0];
            if op == CompareOp::Eq { same } else { !same }
        }
        CompareOp::Lt => less(b, (p, n), (q, m)),
        CompareOp::Gt => less(b, (q, m), (p, n)),
        CompareOp::Le => !less(b, (q, m), (p, n)),
        CompareOp::Ge => !less(b, (p, n), (q, m)),
    }
}

/// The first four bytes of a text as they lie in memory, zeros where there are fewer: an `i32`. Nothing behind the text is
/// read.
pub fn prefix<'b>(b: &'b Builder, text: Value<'b>) -> V<'b> {
    let (ptr, len) = parts(text);
    let short = || vec![short_word(b, ptr, len).cast(CastOp::Trunc, Prim::I32)];
    b.if_else(len.ge(b.i64(4)), || vec![unaligned(b, ptr, 0, Prim::I32)], short)[0]
}

/// Is the first text less than the second one? Their prefixes are known, and differ most of the time.
pub fn less_by_prefix<'b>(b: &'b Builder, (x, p): (Value<'b>, V<'b>), (y, q): (Value<'b>, V<'b>)) -> V<'b> {
    let differing = p ^ q;
    let by_prefix = || {
        // The lowest byte that differs is the first one in memory.
        let at = differing.un(UnOp::Ctz) & 24;
        let byte = |prefix: V<'b>| prefix.bin(BinOp::LShr, at) & 0xff;
        vec![byte(p).lt(byte(q))]
    };
    b.if_else(differing.ne(b.i32(0)), by_prefix, || vec![compare(b, CompareOp::Lt, x, y)])[0]
}

/// Is the text this literal?
pub fn is<'b>(b: &'b Builder, text: Value<'b>, literal: &str) -> V<'b> {
    let (ptr, len) = parts(text);
    let same = || vec![bytes_are(b, ptr, literal.as_bytes())];
    b.if_else(len.eq(b.i64(literal.len() as i64)), same, || vec![b.bool(false)])[0]
}

/// Are `n` bytes at both places equal? Eight at a time, the last of which may overlap those before.
fn bytes_equal<'b>(b: &'b Builder, p: V<'b>, q: V<'b>, n: V<'b>) -> V<'b> {
    let word = |base: V<'b>, at: V<'b>| unaligned(b, base.index(at, 1), 0, Prim::I64);
    let long = || {
        let words = b.while_(
            &[b.i64(0), b.bool(true)],
            |c| c[1] & (c[0] + 8).lt(n),
            |c| vec![c[0] + 8, word(p, c[0]).eq(word(q, c[0]))],
        );
        vec![words[1] & word(p, n - 8).eq(word(q, n - 8))]
    };
    let short = || vec![short_word(b, p, n).eq(short_word(b, q, n))];
    b.if_else(n.ge(b.i64(8)), long, short)[0]
}

/// Fewer than eight bytes as an `i64` that no other bytes of that number have. Nothing behind them is read.
fn short_word<'b>(b: &'b Builder, ptr: V<'b>, len: V<'b>) -> V<'b> {
    let halves = || {
        let low = unaligned(b, ptr, 0, Prim::I32).zext(Prim::I64);
        let high = unaligned(b, ptr.index(len, 1), -4, Prim::I32).zext(Prim::I64);
        vec![low | high.shl(32)]
    };
    // The first, the middle and the last byte are all there are; some of them may be the same one.
    let bytes = || {
        let at = |at: V<'b>| byte(b, ptr, at).zext(Prim::I64).bin(BinOp::Shl, at * 8);
        vec![at(b.i64(0)) | at(len.lshr(1)) | at(len - 1)]
    };
    let few = || b.if_else(len.gt(b.i64(0)), bytes, || vec![b.i64(0)]);
    b.if_else(len.ge(b.i64(4)), halves, few)[0]
}

/// Folds the bytes of a text in, eight at a time (the last eight may overlap those before), or all at once if there are fewer.
pub fn fold_words<'b>(b: &'b Builder, text: Value<'b>, init: V<'b>, step: impl Fn(V<'b>, V<'b>) -> V<'b>) -> V<'b> {
    let (ptr, len) = parts(text);
    let word = |at: V<'b>| unaligned(b, ptr.index(at, 1), 0, Prim::I64);
    let long = || {
        let all = b.while_(&[b.i64(0), init], |c| (c[0] + 8).lt(len), |c| vec![c[0] + 8, step(c[1], word(c[0]))]);
        vec![step(all[1], word(len - 8))]
    };
    b.if_else(len.ge(b.i64(8)), long, || vec![step(init, short_word(b, ptr, len))])[0]
}

fn less<'b>(b: &'b Builder, (p, n): (V<'b>, V<'b>), (q, m): (V<'b>, V<'b>)) -> V<'b> {
    let shorter = n.min(m);
    let same = b.while_(
        &[b.i64(0)],
        |c| b.if_else(c[0].lt(shorter), || vec![byte(b, p, c[0]).eq(byte(b, q, c[0]))], || vec![b.bool(false)])[0],
        |c| vec![c[0] + 1],
    )[0];
    b.if_else(same.lt(shorter), || vec![byte(b, p, same).ult(byte(b, q, same))], || vec![n.lt(m)])[0]
}

fn byte<'b>(b: &'b Builder, base: V<'b>, at: V<'b>) -> V<'b> {
    b.load_invariant(Ty::I8, base.index(at, 1), 0)
}

fn unaligned<'b>(b: &'b Builder, ptr: V<'b>, offset: i64, prim: Prim) -> V<'b> {
    let op = quearn_stage::low::Op::Load { ptr: ptr.id, offset, align: 1, invariant: true };
    b.emit(op, Ty::scalar(prim))
}

/// Are the bytes at `ptr` those of `literal`? Overlapping words instead of a loop; reads `literal.len()` bytes only.
fn bytes_are<'b>(b: &'b Builder, ptr: V<'b>, literal: &[u8]) -> V<'b> {
    let mut all = b.bool(true);
    let mut at = 0;
    while at < literal.len() {
        let left = literal.len() - at;
        let (size, from) = match left {
            8.. => (8, at),
            _ if literal.len() >= 8 => (8, literal.len() - 8),
            4.. => (4, at),
            2.. => (2, at),
            _ => (1, at),
        };
        let mut word = [0; 8];
        word[..size].copy_from_slice(&literal[from..from + size]);
        let prim = [Prim::I8, Prim::I16, Prim::I32, Prim::I64][size.trailing_zeros() as usize];
        let want = b.int(Ty::scalar(prim), i64::from_le_bytes(word).into());
        all = all & unaligned(b, ptr, from as i64, prim).eq(want);
        at = from + size;
    }
    all
}

/// A part of a LIKE pattern without `%`: literal bytes and single characters.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    AnyChar,
}

/// Splits a pattern at its `%`; `\` makes the next character literal.
fn segments(pattern: &str) -> Vec<Vec<Piece>> {
    let mut all = vec![vec![]];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let segment: &mut Vec<Piece> = all.last_mut().expect("there is always a segment");
        match c {
            '%' => all.push(vec![]),
            '_' => segment.push(Piece::AnyChar),
            _ => {
                let literal = if c == '\\' { chars.next().unwrap_or(c) } else { c };
                let mut buffer = [0; 4];
                let encoded = literal.encode_utf8(&mut buffer).as_bytes();
                match segment.last_mut() {
                    Some(Piece::Bytes(bytes)) => bytes.extend_from_slice(encoded),
                    _ => segment.push(Piece::Bytes(encoded.to_vec())),
                }
            }
        }
    }
    all
}

/// Bytes of a literal that a search compares by vectors, at most.
const ANCHORS: usize = 4;

/// Positions that a search looks at together: a vector register of bytes, or two small ones.
fn search_lanes() -> u16 {
    Target::host().vector_bytes.max(32)
}

/// The bytes of a literal that are compared by vectors: the first, the last, and some between them.
fn anchors(literal: &[u8]) -> Vec<usize> {
    let n = literal.len().min(ANCHORS);
    (0..n).map(|i| i * (literal.len() - 1) / (n - 1).max(1)).collect()
}

struct Subject<'b> {
    b: &'b Builder,
    ptr: V<'b>,
    len: V<'b>,
}

/// SQL LIKE. Segments between `%` are found from left to right, the leftmost match first, which is complete.
pub fn like<'b>(b: &'b Builder, pattern: &str, text: Value<'b>) -> V<'b> {
    let (ptr, len) = parts(text);
    let subject = Subject { b, ptr, len };
    let segments = segments(pattern);
    let (first, rest) = segments.split_first().expect("a pattern has at least one segment");
    let (mut ok, mut at) = subject.match_at(first, b.i64(0), b.bool(true));
    let Some((last, middle)) = rest.split_last() else { return ok & at.eq(len) };
    for segment in middle {
        (ok, at) = subject.search(segment, at, ok);
    }
    if last.is_empty() { ok } else { subject.match_end(last, at, ok) }
}

impl<'b> Subject<'b> {
    /// Matches a segment at a position, if `ok` so far; whether it does, and where it ends.
    fn match_at(&self, segment: &[Piece], at: V<'b>, ok: V<'b>) -> (V<'b>, V<'b>) {
        let (mut ok, mut at) = (ok, at);
        for piece in segment {
            (ok, at) = match piece {
                Piece::Bytes(bytes) => {
                    let end = at + bytes.len() as i64;
                    let inside = ok & end.le(self.len);
                    let here = self.ptr.index(at, 1);
                    let same =
                        self.b.if_else(inside, || vec![bytes_are(self.b, here, bytes)], || vec![self.b.bool(false)]);
                    (same[0], end)
                }
                Piece::AnyChar => (ok & at.lt(self.len), self.next_char(at)),
            };
        }
        (ok, at)
    }

    /// Position after the UTF-8 character at `at`.
    fn next_char(&self, at: V<'b>) -> V<'b> {
        next_char(self.b, self.ptr, self.len, at)
    }

    /// Finds the leftmost match at or after `from`.
    fn search(&self, segment: &[Piece], from: V<'b>, ok: V<'b>) -> (V<'b>, V<'b>) {
        match segment {
            [] => return (ok, from),
            [Piece::Bytes(bytes)] => return self.find(bytes, from, ok),
            _ => {}
        }
        let b = self.b;
        let found = b.while_(
            &[from, b.bool(false), from],
            |c| ok & !c[1] & c[0].lt(self.len),
            |c| {
                let (hit, end) = self.match_at(segment, c[0], b.bool(true));
                vec![c[0] + 1, hit, end]
            },
        );
        (found[1], found[2])
    }

    /// Finds the leftmost occurrence of literal bytes at or after `from`: positions where some bytes agree, the first and the
    /// last among them, are found by vectors of text, then compared (Mula, "SIMD-friendly algorithms for substring
    /// searching"). With more than two bytes nearly every candidate is a match, so that the branch to compare it is foreseen.
    fn find(&self, literal: &[u8], from: V<'b>, ok: V<'b>) -> (V<'b>, V<'b>) {
        let b = self.b;
        let n = literal.len() as i64;
        let anchors = anchors(literal);
        // Positions before this one leave room for the literal.
        let bound = self.len - (n - 1);
        let found = b.while_(
            &[from, b.bool(false), from],
            |c| ok & !c[1] & c[0].lt(bound),
            |c| {
                let candidates = self.candidates(literal, &anchors, c[0], bound - c[0]);
                let place = |bits: V<'b>| c[0] + bits.un(UnOp::Ctz);
                let hit = if anchors.len() == literal.len() {
                    vec![candidates, candidates.ne(b.i64(0)), place(candidates) + n]
                } else {
                    b.while_(
                        &[candidates, b.bool(false), c[0]],
                        |h| !h[1] & h[0].ne(b.i64(0)),
                        |h| {
                            let same = bytes_are(b, self.ptr.index(place(h[0]), 1), literal);
                            vec![h[0] & (h[0] - 1), same, place(h[0]) + n]
                        },
                    )
                };
                vec![c[0] + i64::from(search_lanes()), hit[1], hit[2]]
            },
        );
        (found[1], found[2])
    }

    /// One bit for each of the positions from `at` on, of which `room` are inside, where the anchors of the literal stand.
    fn candidates(&self, literal: &[u8], anchors: &[usize], at: V<'b>, room: V<'b>) -> V<'b> {
        let b = self.b;
        let n = search_lanes();
        let lanes = Ty::vector(Prim::I8, n);
        let room = room.min(b.i64(n.into())).cast(CastOp::Trunc, Prim::I8).splat(n);
        let inside = b.iota(lanes).lt(room);
        let agree = |offset: &usize| {
            let text = b.masked_load(lanes, self.ptr.index(at, 1).at(*offset as i64), inside, true);
            text.eq(b.int(lanes, literal[*offset].into()))
        };
        let bits = anchors.iter().fold(inside, |all, anchor| all & agree(anchor));
        bits.bitcast(Ty::scalar(if n == 64 { Prim::I64 } else { Prim::I32 })).zext(Prim::I64)
    }

    /// Is there a match at or after `from` that ends with the text?
    fn match_end(&self, segment: &[Piece], from: V<'b>, ok: V<'b>) -> V<'b> {
        let b = self.b;
        if let [Piece::Bytes(bytes)] = segment {
            let at = self.len - bytes.len() as i64;
            return self.match_at(segment, at, ok & at.ge(from)).0;
        }
        let found = b.while_(
            &[from, b.bool(false)],
            |c| ok & !c[1] & c[0].lt(self.len),
            |c| {
                let (hit, end) = self.match_at(segment, c[0], b.bool(true));
                vec![c[0] + 1, hit & end.eq(self.len)]
            },
        );
        found[1]
    }
}

fn next_char<'b>(b: &'b Builder, ptr: V<'b>, len: V<'b>, at: V<'b>) -> V<'b> {
    b.while_(
        &[at + 1],
        |c| {
            let continues = |at: V<'b>| {
                let masked = byte(b, ptr, at) & 0xC0;
                masked.eq(b.int(Ty::I8, 0x80))
            };
            b.if_else(c[0].lt(len), || vec![continues(c[0])], || vec![b.bool(false)])[0]
        },
        |c| vec![c[0] + 1],
    )[0]
}

/// `len` characters from the 1-based character `start` on.
pub fn substring<'b>(b: &'b Builder, text: Value<'b>, start: u32, len: u32) -> Value<'b> {
    let (ptr, bytes) = parts(text);
    let skip = |from: V<'b>, chars: u32| {
        let moved = b.while_(
            &[from, b.i64(0)],
            |c| c[0].lt(bytes) & c[1].lt(b.i64(chars.into())),
            |c| vec![next_char(b, ptr, bytes, c[0]), c[1] + 1],
        );
        moved[0]
    };
    let from = skip(b.i64(0), start.saturating_sub(1));
    let to = skip(from, len);
    Value::text(ptr.index(from, 1), to - from).with_valid(text.valid)
}

/// The address of texts that an expression makes: one block for each worker, a new one where it is full. Texts stay for the run.
pub struct Room<'b> {
    b: &'b Builder,
    /// Address of the block's rest, and how many bytes that has.
    cell: V<'b>,
    /// Where the next text begins; there are as many bytes as was asked for.
    pub ptr: V<'b>,
}

/// Bytes of a block, at least.
const BLOCK: i64 = 64 << 10;
/// A cache line for each worker.
const CELL: i64 = 64;

impl<'b> Room<'b> {
    /// Room for so many bytes.
    pub fn of(cx: &Cx<'_>, env: &Env<'b>, bytes: V<'b>, operator: &str) -> Room<'b> {
        let b = env.b;
        let cell = rooms(cx, operator).get(b, env.frame).index(env.worker, CELL);
        b.if_(b.load(Ty::I64, cell, 8).lt(bytes), || {
            let size = bytes.max(b.i64(BLOCK));
            b.store(cell, 0, cx.alloc(b, env.frame, size, operator));
            b.store(cell, 8, size);
        });
        Room { b, cell, ptr: b.load(Ty::PTR, cell, 0) }
    }

    /// Takes the first bytes for a text.
    pub fn take(&self, bytes: V<'b>) -> Value<'b> {
        self.b.store(self.cell, 0, self.ptr.index(bytes, 1));
        self.b.store(self.cell, 8, self.b.load(Ty::I64, self.cell, 8) - bytes);
        Value::text(self.ptr, bytes)
    }
}

/// The cells of all workers; those of the function that prepares are others, since its texts stay longer.
fn rooms(cx: &Cx<'_>, operator: &str) -> Slot {
    let prepares = cx.prepares();
    if let Some(slot) = cx.rooms.get(&prepares, prepares) {
        return slot;
    }
    let slot = cx.frame.slot(Ty::PTR);
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| {
        slot.set(b, frame, cx.alloc(b, frame, workers(b, frame) * CELL, &operator));
    });
    cx.rooms.insert(prepares, prepares, slot);
    slot
}

/// A text without what is not wanted, in room of its own.
pub fn clean<'b>(cx: &Cx<'_>, env: &Env<'b>, text: Value<'b>, how: Clean, operator: &str) -> Value<'b> {
    let b = env.b;
    let (ptr, len) = parts(text);
    // What NULL has in its place is not looked at.
    let len = text.valid.map_or(len, |valid| valid.select(len, b.i64(0)));
    let room = Room::of(cx, env, len, operator);
    room.take(cleaned(b, Value::text(ptr, len), room.ptr, how)).with_valid(text.valid)
}

/// Writes a clean text to `to`, which has room for all of it; gives its length.
pub fn cleaned<'b>(b: &'b Builder, text: Value<'b>, to: V<'b>, how: Clean) -> V<'b> {
    let (ptr, len) = parts(text);
    let constant = |byte: u8| b.int(Ty::I8, byte.into());
    let between = |c: V<'b>, first: u8, last: u8| !c.ult(constant(first)) & !constant(last).ult(c);
    let any = |c: V<'b>, ranges: &[(u8, u8)]| {
        ranges.iter().fold(b.bool(false), |any, &(first, last)| any | between(c, first, last))
    };
    // Where the next byte is read, where it is written, and whether a space is due before it.
    let done = b.while_(
        &[b.i64(0), b.i64(0), b.bool(false)],
        |s| s[0].lt(len),
        |s| {
            let c = byte(b, ptr, s[0]);
            let c = if how.lower { between(c, b'A', b'Z').select(c + constant(b'a' - b'A'), c) } else { c };
            let is_mark = if how.punctuation { any(c, &MARKS) } else { b.bool(false) };
            let is_space = if how.spaces { any(c, &SPACES) } else { b.bool(false) };
            let stays = !is_mark & !is_space;
            let due = s[2] & stays;
            b.if_(due, || b.store(to.index(s[1], 1), 0, constant(b' ')));
            let at = s[1] + due.zext(Prim::I64);
            b.if_(stays, || b.store(to.index(at, 1), 0, c));
            // None is due before the first byte.
            let waits = (s[2] | is_space & s[1].ne(b.i64(0))) & !stays;
            vec![s[0] + 1, at + stays.zext(Prim::I64), waits]
        },
    );
    done[1]
}

/// Punctuation marks and spaces of ASCII.
const MARKS: [(u8, u8); 4] = [(b'!', b'/'), (b':', b'@'), (b'[', b'`'), (b'{', b'~')];
const SPACES: [(u8, u8); 2] = [(b'\t', b'\r'), (b' ', b' ')];

/// FNV-1a in 64 bits, without the highest bit.
pub fn hash<'b>(b: &'b Builder, text: Value<'b>) -> Value<'b> {
    let (ptr, len) = parts(text);
    let len = text.valid.map_or(len, |valid| valid.select(len, b.i64(0)));
    let [basis, prime] = [0xCBF2_9CE4_8422_2325u64, 0x0000_0100_0000_01B3].map(|word| b.i64(word as i64));
    let hashed = b.while_(
        &[b.i64(0), basis],
        |s| s[0].lt(len),
        |s| vec![s[0] + 1, (s[1] ^ byte(b, ptr, s[0]).zext(Prim::I64)) * prime],
    );
    Value::int(hashed[1] & i64::MAX, Range::new(0, i64::MAX.into())).with_valid(text.valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_split_at_percent_signs() {
        let bytes = |s: &str| Piece::Bytes(s.as_bytes().to_vec());
        assert_eq!(segments("a%b_"), vec![vec![bytes("a")], vec![bytes("b"), Piece::AnyChar]]);
        assert_eq!(segments("%x\\%y"), vec![vec![], vec![bytes("x%y")]]);
        assert_eq!(segments(""), vec![vec![]]);
    }
}
