//! Sort and limit. Keys are written as order-preserving unsigned words (normalised keys, as in System R and DuckDB), so
//! that the runtime sorts rows of any type by comparing words. Keys of known ranges that follow one another share a word.

use super::env::Env;
use super::expr::{elem_of, eval};
use super::layout::{RowLayout, TEXT_LEN};
use super::materialise::{self, Collect, Form, Lists, Spans};
use super::pipeline::{self, Sink};
use super::value::{Range, Repr, Value, widen};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, run_handle, workers};
use quearn_backends::abi;
use quearn_stage::graph::{Elem, Node, Op, Scalar, SortKey};
use quearn_stage::low::{BinOp, Builder, CmpOp, Prim, Ty, V};
use std::rc::Rc;

/// How keys are written: for each whether it is NULL, if it can be, then its value.
struct Words {
    /// Words of all keys, most significant first.
    count: usize,
    /// Text keys: place of the text and of the word that takes its rank, and whether the rank is to be complemented.
    texts: Vec<(i64, i64, bool)>,
}

/// Bits of a word.
const WORD_BITS: u32 = 64;

struct Sorted {
    keys: Vec<(Node, SortKey)>,
    collect: Collect,
    words: Words,
    text_at: Vec<i64>,
    top: Option<Top>,
    operator: String,
}

/// Only so many first rows are needed: the others are dropped while rows are produced.
#[derive(Clone, Copy)]
struct Top {
    wanted: i64,
    /// Slot with the address of a word for each worker: the complement of the largest first key word that is still needed.
    bounds: Slot,
}

/// Rows that are kept back while others are produced, at most.
const MOST_WANTED: u64 = 1 << 16;
/// Bytes from one worker's bound to the next: a cache line.
const BOUND_BYTES: i64 = 64;

/// A word of a key: at hand, with the number of low bits in which words differ, or the rank of a text, which is known when all
/// rows are.
enum Word<'b> {
    Known(V<'b>, u32),
    Rank,
}

impl Sink for Sorted {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let values = self.keys.iter().map(|(node, _)| eval(cx, env, *node)).collect::<Result<Vec<_>>>()?;
        let b = env.b;
        let of =
            |(at, value): (usize, &Value<'b>)| words(b, value, self.keys[at].1).into_iter().map(move |word| (at, word));
        let words = packed(values.iter().enumerate().flat_map(of));
        let ranks = words.iter().any(|(_, word)| matches!(word, Word::Rank));
        match (self.top, &words[0].1) {
            (Some(top), &Word::Known(first, _)) if !ranks => {
                let bound = top.bounds.get(b, env.frame).index(env.worker, BOUND_BYTES);
                let needed = first.cmp(CmpOp::Ule, !b.load(Ty::I64, bound, 0));
                pipeline::when(b, needed, || self.write(cx, &env.branch(), &values, &words, Some((top, bound))))
            }
            _ => self.write(cx, env, &values, &words, None),
        }
    }

    fn describe(&self) -> String {
        let first = self.top.map_or(String::new(), |top| format!(", the first {}", top.wanted));
        format!("{}, of which {} bytes of keys{first}", self.collect.describe(), 8 * self.words.count)
    }
}

impl Sorted {
    fn write<'b>(
        &mut self,
        cx: &Cx<'_>,
        env: &Env<'b>,
        values: &[Value<'b>],
        words: &[(usize, Word<'b>)],
        top: Option<(Top, V<'b>)>,
    ) -> Result<()> {
        let b = env.b;
        let count = words.len() as i64;
        let operator = self.operator.clone();
        let row = match top {
            Some((top, bound)) => {
                let grow = |list: V<'b>, width: i64| {
                    let operator = b.i64(cx.operator(&operator));
                    let numbers = [width, count, top.wanted].map(|n| b.i64(n));
                    let args = [run_handle(b, env.frame), list, numbers[0], numbers[1], numbers[2], bound, operator];
                    b.check(b.call("qn_rows_top", Ty::I32, &args));
                };
                self.collect.append_or(cx, env, Some(&grow))?
            }
            None => self.collect.append(cx, env)?,
        };
        self.words = Words { count: words.len(), texts: vec![] };
        for (place, (at, word)) in (0..).step_by(8).zip(words) {
            match *word {
                Word::Known(word, _) => b.store(row, place, word),
                Word::Rank => self.write_text(b, row, *at, &values[*at], place),
            }
        }
        Ok(())
    }

    /// Writes the text that gets a rank later.
    fn write_text<'b>(&mut self, b: &'b Builder, row: V<'b>, at: usize, value: &Value<'b>, word: i64) {
        let Repr::Text { ptr, len } = value.repr else { unreachable!("a rank is of a text") };
        let text = self.text_at[at];
        let null = value.valid.map_or(ptr, |valid| valid.select(ptr, b.null()));
        b.store(row, text, null);
        b.store(row, text + TEXT_LEN, len.sext(Prim::I32));
        self.words.texts.push((text, word, self.keys[at].1.descending));
        b.store(row, word, b.i64(0));
    }
}

/// The words of a key.
fn words<'b>(b: &'b Builder, value: &Value<'b>, key: SortKey) -> Vec<Word<'b>> {
    let flip = |word: V<'b>| if key.descending { !word } else { word };
    // All NULLs compare equal.
    let same =
        |word: V<'b>, bits: u32| Word::Known(value.valid.map_or(word, |valid| valid.select(word, b.i64(0))), bits);
    let whole = |word: V<'b>| same(flip(word), WORD_BITS);
    let null = value.valid.map(|valid| {
        let null_first = if key.nulls_first { valid } else { !valid };
        Word::Known(null_first.zext(Prim::I64), 1)
    });
    let own = match value.repr {
        Repr::Text { .. } => vec![Word::Rank],
        Repr::Code { code: v, .. } | Repr::Prim(v) => match (narrow(value), v.ty().prim) {
            (_, Prim::Bool) => vec![same(if key.descending { !v } else { v }.zext(Prim::I64), 1)],
            (Some((range, bits)), Prim::I32 | Prim::I64) => {
                let v = widen(v, Prim::I64);
                vec![same(if key.descending { v.same(range.max as i64) - v } else { v - range.min as i64 }, bits)]
            }
            (_, Prim::I128) => vec![whole(ordered(v.lshr(64).sext(Prim::I64))), whole(v.sext(Prim::I64))],
            _ => vec![whole(ordered_prim(b, v))],
        },
    };
    null.into_iter().chain(own).collect()
}

/// The range of an integer, and the bits of its distance from an end, if they are fewer than a word has.
fn narrow(value: &Value<'_>) -> Option<(Range, u32)> {
    let range = value.range.filter(|&range| Range::I64.contains(range))?;
    let bits = u128::BITS - range.max.abs_diff(range.min).leading_zeros();
    (bits < WORD_BITS).then_some((range, bits.max(1)))
}

/// Words, each with its key, of which those that follow one another share one as far as they fit.
fn packed<'b>(words: impl Iterator<Item = (usize, Word<'b>)>) -> Vec<(usize, Word<'b>)> {
    let mut packed: Vec<(usize, Word<'b>)> = vec![];
    for (key, word) in words {
        match (packed.last_mut(), &word) {
            (Some((_, Word::Known(high, taken))), &Word::Known(low, bits)) if *taken + bits <= WORD_BITS => {
                *high = high.shl(bits.into()) | low;
                *taken += bits;
            }
            _ => packed.push((key, word)),
        }
    }
    packed
}

/// Words that a key of a type needs at most, whatever is known of its values.
fn most_words(elem: Elem) -> i64 {
    1 + i64::from(elem.nullable) + i64::from(matches!(elem.scalar, Scalar::Decimal { .. }))
}

/// A signed word as an unsigned one of the same order.
fn ordered(word: V<'_>) -> V<'_> {
    word ^ i64::MIN
}

fn ordered_prim<'b>(b: &'b Builder, v: V<'b>) -> V<'b> {
    match v.ty().prim {
        Prim::F32 => ordered_float(b, v.cast(quearn_stage::low::CastOp::FpExt, Prim::F64)),
        Prim::F64 => ordered_float(b, v),
        _ => ordered(widen(v, Prim::I64)),
    }
}

/// IEEE 754 order as unsigned order: negative numbers are complemented, -0.0 counts as 0.0, NaN comes last.
fn ordered_float<'b>(b: &'b Builder, v: V<'b>) -> V<'b> {
    let bits = (v + b.f64(0.0)).bitcast(Ty::I64);
    let number = bits.lt(b.i64(0)).select(!bits, ordered(bits));
    v.cmp(CmpOp::Ne, v).select(b.i64(-1), number)
}

/// Emits the pipeline that collects the rows of a sort's input, and the step that sorts them; of the sorted rows only
/// the first `limit` are needed, if it is given.
pub fn lower(cx: &Cx<'_>, table: Node, limit: Option<(u64, u64)>) -> Result<Spans> {
    let Op::Sort(keys) = cx.graph.op(table) else { unreachable!("a sort") };
    let inputs = cx.graph.inputs(table);
    let operator = cx.describe(table);
    let keys: Vec<(Node, SortKey)> = inputs[1..].iter().copied().zip(keys.iter().copied()).collect();
    let elems = keys.iter().map(|(node, _)| elem_of(cx, *node)).collect::<Result<Vec<_>>>()?;
    let mut layout = RowLayout::default();
    // The words stand at the start of the row, but how many there are is known with the first row: room for the most.
    layout.reserve(8 * elems.iter().map(|&elem| most_words(elem)).sum::<i64>(), 8);
    let text_at = elems.iter().map(|e| if e.scalar == Scalar::String { layout.reserve(16, 8) } else { 0 }).collect();
    let lists = Lists::new(cx, &operator);
    let collect = Collect::new(cx, inputs[0], lists, &operator, layout);
    let wanted = limit.map(|(offset, count)| offset.saturating_add(count)).filter(|&n| n <= MOST_WANTED && n > 0);
    let top = wanted.map(|wanted| Top { wanted: wanted as i64, bounds: cx.frame.slot(Ty::PTR) });
    if let Some(top) = top {
        let operator = operator.clone();
        cx.step(move |cx, b, frame| {
            let bytes = workers(b, frame) * BOUND_BYTES;
            top.bounds.set(b, frame, cx.alloc(b, frame, bytes, &operator));
        });
    }
    let words = Words { count: 0, texts: vec![] };
    let mut sink = Sorted { keys, collect, words, text_at, top, operator: operator.clone() };
    pipeline::run(cx, "sort", inputs[0], &mut sink)?;
    let width = sink.collect.layout.width();
    let (address, count) = materialise::concat(cx, lists, width, &operator);
    rank_texts(cx, &sink.words, address, count, width);
    let words = sink.words.count as i64;
    cx.step(move |_, b, frame| {
        let first = limit.map_or(-1, |(offset, count)| offset.saturating_add(count).min(i64::MAX as u64) as i64);
        let rows = [run_handle(b, frame), address.read(b, frame), count.read(b, frame)];
        let args = [rows[0], rows[1], rows[2], b.i64(width), b.i64(words), b.i64(first)];
        b.check(b.call("qn_sort", Ty::I32, &args));
    });
    Ok(one_span(cx, address, count, limit, sink.collect.layout))
}

/// Replaces texts by their ranks, complemented where the order is descending.
fn rank_texts(cx: &Cx<'_>, words: &Words, address: Slot, count: Slot, width: i64) {
    for &(text, word, descending) in &words.texts {
        cx.step(move |_, b, frame| {
            let (rows, n) = (address.read(b, frame), count.read(b, frame));
            let args = [run_handle(b, frame), rows, n, b.i64(width), b.i64(text), b.i64(word)];
            b.check(b.call("qn_rank_strings", Ty::I32, &args));
            if descending {
                b.for_(b.i64(0), n, |i| {
                    let row = rows.index(i, width);
                    b.store(row, word, b.load(Ty::I64, row, word).bin(BinOp::Xor, b.i64(-1)));
                });
            }
        });
    }
}

/// Rows of one array, of which a limit may keep a part, as an ordered source.
fn one_span(cx: &Cx<'_>, address: Slot, rows: Slot, limit: Option<(u64, u64)>, layout: RowLayout) -> Spans {
    let span = cx.frame.block(abi::SPAN_BYTES, 8);
    let (at, count) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
    let width = layout.width();
    cx.step(move |_, b, frame| {
        let n = rows.read(b, frame);
        let (offset, most) = limit.unwrap_or((0, u64::MAX));
        let clamp = |x: u64| b.i64(x.min(i64::MAX as u64) as i64);
        let skipped = n.min(clamp(offset));
        b.store(frame, span, address.read(b, frame).index(skipped, width));
        b.store(frame, span + 8, (n - skipped).min(clamp(most)));
        at.set(b, frame, frame.at(span));
        count.set(b, frame, b.i64(1));
    });
    Spans { address: at, count, width, ordered: true, form: Form::Row(Rc::new(layout)) }
}

/// A limit: the sort below it does only what is needed; without one, any rows are kept.
pub fn limit(cx: &Cx<'_>, table: Node) -> Result<Spans> {
    let Op::Limit { offset, count } = *cx.graph.op(table) else { unreachable!("a limit") };
    let input = cx.graph.inputs(table)[0];
    if matches!(cx.graph.op(input), Op::Sort(_)) {
        return lower(cx, input, Some((offset, count)));
    }
    let operator = cx.describe(table);
    let lists = Lists::new(cx, &operator);
    let mut sink = Collect::new(cx, input, lists, &operator, RowLayout::default());
    pipeline::run(cx, "limit", input, &mut sink)?;
    let (address, rows) = materialise::concat(cx, lists, sink.layout.width(), &operator);
    Ok(one_span(cx, address, rows, Some((offset, count)), sink.layout))
}
