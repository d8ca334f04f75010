//! Sort and limit. Keys are written as order-preserving unsigned words (normalised keys, as in System R and DuckDB), so
//! that the runtime sorts rows of any type by comparing words.

use super::env::Env;
use super::expr::eval;
use super::layout::{RowLayout, TEXT_LEN};
use super::materialise::{self, Collect, Form, Lists, Spans};
use super::pipeline::{self, Sink};
use super::value::{Repr, Value, widen};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, run_handle};
use quearn_backends::abi;
use quearn_stage::graph::{Node, Op, SortKey};
use quearn_stage::low::{BinOp, Builder, CmpOp, Prim, Ty, V};
use std::rc::Rc;

/// How a key is written: one word for NULLs if there are any, then the words of the value.
struct Words {
    /// Words of all keys, most significant first.
    count: usize,
    /// Text keys: place of the text and of the word that takes its rank, and whether the rank is to be complemented.
    texts: Vec<(i64, i64, bool)>,
}

/// Keys need their words at the start of the row, but how many there are is known with the first row: room for the most.
const WORDS_A_KEY: usize = 3;

struct Sorted {
    keys: Vec<(Node, SortKey)>,
    collect: Collect,
    words: Words,
    text_at: Vec<i64>,
}

impl Sink for Sorted {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let keys = self.keys.iter().map(|(node, _)| eval(cx, env, *node)).collect::<Result<Vec<_>>>()?;
        let row = self.collect.append(cx, env)?;
        let b = env.b;
        self.words = Words { count: 0, texts: vec![] };
        for (i, value) in keys.iter().enumerate() {
            self.write_key(b, row, i, value);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("{}, of which {} bytes of keys", self.collect.describe(), 8 * self.words.count)
    }
}

impl Sorted {
    fn write_key<'b>(&mut self, b: &'b Builder, row: V<'b>, at: usize, value: &Value<'b>) {
        let key = self.keys[at].1;
        let flip = |word: V<'b>| if key.descending { !word } else { word };
        if let Some(valid) = value.valid {
            let null_first = if key.nulls_first { valid } else { !valid };
            self.word(b, row, null_first.zext(Prim::I64));
        }
        // All NULLs compare equal.
        let same = |word: V<'b>| value.valid.map_or(word, |valid| valid.select(word, b.i64(0)));
        match value.repr {
            Repr::Text { ptr, len } => {
                let text = self.text_at[at];
                let null = value.valid.map_or(ptr, |valid| valid.select(ptr, b.null()));
                b.store(row, text, null);
                b.store(row, text + TEXT_LEN, len.sext(Prim::I32));
                let word = 8 * self.words.count as i64;
                self.words.texts.push((text, word, key.descending));
                self.word(b, row, b.i64(0));
            }
            Repr::Code { code, .. } => self.word(b, row, same(flip(ordered(code.sext(Prim::I64))))),
            Repr::Prim(v) if v.ty().prim == Prim::I128 => {
                let high = v.lshr(64).sext(Prim::I64);
                self.word(b, row, same(flip(ordered(high))));
                self.word(b, row, same(flip(v.sext(Prim::I64))));
            }
            Repr::Prim(v) => self.word(b, row, same(flip(ordered_prim(b, v)))),
        }
    }

    fn word<'b>(&mut self, b: &'b Builder, row: V<'b>, word: V<'b>) {
        b.store(row, 8 * self.words.count as i64, word);
        self.words.count += 1;
    }
}

/// A signed word as an unsigned one of the same order.
fn ordered(word: V<'_>) -> V<'_> {
    word ^ i64::MIN
}

fn ordered_prim<'b>(b: &'b Builder, v: V<'b>) -> V<'b> {
    match v.ty().prim {
        Prim::Bool => v.zext(Prim::I64),
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
    let mut layout = RowLayout::default();
    layout.reserve(8 * (WORDS_A_KEY * keys.len()) as i64, 8);
    let is_text = |node: Node| {
        matches!(cx.graph.ty(node), quearn_stage::graph::Ty::Tensor { elem, .. }
            if elem.scalar == quearn_stage::graph::Scalar::String)
    };
    let text_at = keys.iter().map(|(node, _)| if is_text(*node) { layout.reserve(16, 8) } else { 0 }).collect();
    let lists = Lists::new(cx, &operator);
    let collect = Collect::new(cx, inputs[0], lists, &operator, layout);
    let mut sink = Sorted { keys, collect, words: Words { count: 0, texts: vec![] }, text_at };
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
