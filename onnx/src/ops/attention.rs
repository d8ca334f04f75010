//! Attention and the embedding of positions that goes with it.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::tensor::{Number, scalar_of};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Dim, Node, Op, ReduceOp, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[("Attention", attention), ("RotaryEmbedding", rotary)];

/// `[batch, heads, sequence, width]`; heads side by side in the last of three axes are taken apart.
fn heads(e: &mut Emit, x: Node, count: i64) -> Fallible<Node> {
    match (&e.extents(x)?[..], u64::try_from(count)) {
        (&[batch, sequence, hidden], Ok(count)) if count > 0 && hidden.is_multiple_of(count) => {
            let apart = e.reshape_to(x, &[batch, sequence, count, hidden / count])?;
            e.transpose(apart, vec![0, 2, 1, 3])
        }
        (&[_, _, _], _) => Err("the number of heads is missing".into()),
        (&[_, _, _, _], _) => Ok(x),
        _ => Err("its inputs must have three or four axes".into()),
    }
}

fn attention(c: &mut Call) -> Fallible<Vec<Node>> {
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let (mask, past, lengths) = (c.optional(3)?, [c.optional(4)?, c.optional(5)?], c.optional(6)?);
    let (q_heads, kv_heads) = (c.int("q_num_heads", 0), c.int("kv_num_heads", 0));
    let (softcap, mode) = (c.float("softcap", 0.0), c.int("qk_matmul_output_mode", 0));
    let causal = c.int("is_causal", 0) != 0;
    // How far behind and ahead of its own place a query sees.
    let window = [c.int("left_window_size", -1), c.int("right_window_size", -1)];
    let precision = match c.int("softmax_precision", 0) {
        0 => None,
        precision => Some(scalar_of(precision as i32)?),
    };
    let scale = c.has_attribute("scale").then(|| c.float("scale", 1.0));
    let e = &mut *c.emit;
    let flat = e.rank(q) == 3;
    let (q, mut k, mut v) = (heads(e, q, q_heads)?, heads(e, k, kv_heads)?, heads(e, v, kv_heads)?);
    let before = past[0].map_or(Ok(0), |past| e.extent(past, 2))?;
    if let [Some(past_k), Some(past_v)] = past {
        (k, v) = (e.concat(&[past_k, k], 2)?, e.concat(&[past_v, v], 2)?);
    }
    let present = [k, v];
    let (extents, total) = (e.extents(q)?, e.extent(k, 2)?);
    let [batch, count, sequence, width] = extents[..] else { return Err("its query must have four axes".into()) };
    let (k, v) = (repeated(e, k, count)?, repeated(e, v, count)?);
    // Both sides get a part of the scale, so that the product stays small.
    let part = scale.unwrap_or(1.0 / (width as f64).sqrt()).sqrt();
    let (q, k) = (e.times(q, part)?, e.times(k, part)?);
    let columns = e.swap_last(k)?;
    let product = e.matmul(q, columns)?;
    let capped = if softcap > 0.0 {
        let small = e.times(product, 1.0 / softcap)?;
        let bent = e.unary(UnaryOp::Tanh, small)?;
        e.times(bent, softcap)?
    } else {
        product
    };
    let mut biased = capped;
    let lowest = e.like(capped, f64::NEG_INFINITY)?;
    if let Some(mask) = mask {
        let missing = total as i64 - e.extent(mask, e.rank(mask) - 1)? as i64;
        let truth = e.scalar(mask) == Scalar::Bool;
        let beyond = if truth { e.number(Scalar::Bool, &Number::Int(0))? } else { e.like(mask, f64::NEG_INFINITY)? };
        let mask = e.pad(mask, e.rank(mask) - 1, [0, missing], beyond)?;
        biased = if truth { e.select(mask, biased, lowest)? } else { e.add(biased, mask)? };
    }
    let columns = e.ints(&[1, total], 0..total)?;
    let lengths = match lengths {
        Some(lengths) => Some(e.reshape_to(lengths, &[batch, 1, 1, 1])?),
        None => None,
    };
    let ahead = if causal { 0 } else { window[1] };
    if ahead >= 0 || window[0] >= 0 {
        let rows = e.ints(&[sequence, 1], 0..sequence)?;
        let rows = match lengths {
            Some(lengths) if past[0].is_none() => {
                let first = e.plus(lengths, -(sequence as f64))?;
                e.add(rows, first)?
            }
            _ => e.plus(rows, before as f64)?,
        };
        let bounds = [(window[0], -1.0, CompareOp::Ge), (ahead, 1.0, CompareOp::Le)];
        for (reach, side, op) in bounds.into_iter().filter(|(reach, ..)| *reach >= 0) {
            let bound = e.plus(rows, side * reach as f64)?;
            let seen = e.compare(op, columns, bound)?;
            biased = e.select(seen, biased, lowest)?;
        }
    }
    if let Some(lengths) = lengths {
        let there = e.compare(CompareOp::Lt, columns, lengths)?;
        biased = e.select(there, biased, lowest)?;
    }
    let wide = e.cast(biased, precision.unwrap_or(e.scalar(biased)))?;
    let weights = softmax(e, wide)?;
    let weights = e.cast(weights, e.scalar(v))?;
    let mut y = e.matmul(weights, v)?;
    if flat {
        let width = e.extent(y, 3)?;
        let turned = e.transpose(y, vec![0, 2, 1, 3])?;
        y = e.reshape_to(turned, &[batch, sequence, count * width])?;
    }
    let shown = match mode {
        0 => product,
        1 => capped,
        2 => biased,
        _ => weights,
    };
    Ok(vec![y, present[0], present[1], shown])
}

/// A softmax along the last axis in which a line of nothing but minus infinity becomes zeros.
fn softmax(e: &mut Emit, x: Node) -> Fallible<Node> {
    let axis = e.rank(x) - 1;
    let top = e.reduce_keep(ReduceOp::Max, x, &[axis])?;
    let (empty, zero) = (e.test(CompareOp::Eq, top, f64::NEG_INFINITY)?, e.like(x, 0.0)?);
    let whole = e.op(Op::Softmax { axis }, &[x])?;
    e.select(empty, zero, whole)
}

/// Each head as often as queries share it.
fn repeated(e: &mut Emit, x: Node, count: u64) -> Fallible<Node> {
    let extents = e.extents(x)?;
    if extents[1] == count || !count.is_multiple_of(extents[1]) {
        return Ok(x);
    }
    let apart = e.insert_axis(x, 2)?;
    let mut wide: Vec<Dim> = e.shape(apart);
    wide[2] = Dim::Const(count / extents[1]);
    let wide = e.broadcast(apart, wide)?;
    e.reshape_to(wide, &[extents[0], count, extents[2], extents[3]])
}

fn rotary(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, mut cos, mut sin, at) = (c.x(0)?, c.x(1)?, c.x(2)?, c.optional(3)?);
    let (interleaved, part) = (c.int("interleaved", 0) != 0, c.int("rotary_embedding_dim", 0).max(0) as u64);
    let count = c.int("num_heads", 0);
    let e = &mut *c.emit;
    let shape = e.shape(x);
    let four = heads(e, x, count)?;
    let width = e.extent(four, 3)?;
    let part = if part == 0 { width } else { part };
    for cache in [&mut cos, &mut sin] {
        if let Some(at) = at {
            *cache = e.op(Op::Gather, &[*cache, at])?;
        }
        *cache = e.insert_axis(*cache, 1)?;
    }
    let turned = e.slice(four, 3, 0, 1, part)?;
    let half = part / 2;
    let (a, b) = match interleaved {
        true => (e.slice(turned, 3, 0, 2, half)?, e.slice(turned, 3, 1, 2, half)?),
        false => (e.slice(turned, 3, 0, 1, half)?, e.slice(turned, 3, half, 1, half)?),
    };
    let (ac, bs, asin, bc) = (e.mul(cos, a)?, e.mul(sin, b)?, e.mul(sin, a)?, e.mul(cos, b)?);
    let (real, imaginary) = (e.sub(ac, bs)?, e.add(asin, bc)?);
    let rotated = if interleaved {
        let pair = e.op(Op::Stack, &[real, imaginary])?;
        e.reshape(pair, e.shape(turned))?
    } else {
        e.concat(&[real, imaginary], 3)?
    };
    let mut y = rotated;
    if part < width {
        let rest = e.slice(four, 3, part, 1, width - part)?;
        y = e.concat(&[rotated, rest], 3)?;
    }
    if shape.len() == 3 {
        y = e.transpose(y, vec![0, 2, 1, 3])?;
    }
    Ok(vec![e.reshape(y, shape)?])
}
