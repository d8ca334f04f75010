//! Matrix products.

use super::Write;
use super::bytes::{Quantised, byte_matmul, zero_points};
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{Dim, Node, Op, ReduceOp, Scalar};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("Einsum", einsum),
    ("Gemm", gemm),
    ("MatMul", |c| {
        let (a, b) = (c.x(0)?, c.x(1)?);
        Ok(vec![matmul(c.emit, a, b)?])
    }),
    ("MatMulInteger", matmul_integer),
];

/// NumPy's: vectors are rows on the left and columns on the right.
pub(super) fn matmul(e: &mut Emit, a: Node, b: Node) -> Fallible<Node> {
    let (row, column) = (e.rank(a) == 1, e.rank(b) == 1);
    let a = if row { e.insert_axis(a, 0)? } else { a };
    let b = if column { e.insert_axis(b, 1)? } else { b };
    let mut product = e.matmul(a, b)?;
    if column {
        product = e.remove_axis(product, e.rank(product) - 1)?;
    }
    if row {
        product = e.remove_axis(product, e.rank(product) - 1 - usize::from(!column))?;
    }
    Ok(product)
}

fn gemm(c: &mut Call) -> Fallible<Vec<Node>> {
    let (mut a, mut b) = (c.x(0)?, c.x(1)?);
    if c.int("transA", 0) != 0 {
        a = c.emit.swap_last(a)?;
    }
    if c.int("transB", 0) != 0 {
        b = c.emit.swap_last(b)?;
    }
    let mut product = c.emit.matmul(a, b)?;
    let (alpha, beta) = (c.float("alpha", 1.0), c.float("beta", 1.0));
    if alpha != 1.0 {
        product = c.emit.times(product, alpha)?;
    }
    if let Some(mut bias) = c.optional(2)? {
        if beta != 1.0 {
            bias = c.emit.times(bias, beta)?;
        }
        product = c.emit.add(product, bias)?;
    }
    Ok(vec![product])
}

/// `x - zero` in a type that holds the products; a zero point of one a row or column stands along `axis`.
pub(super) fn centred(e: &mut Emit, x: Node, zero: Option<Node>, axis: usize) -> Fallible<Node> {
    let wide = e.cast(x, Scalar::F64)?;
    let Some(zero) = zero else { return Ok(wide) };
    let mut zero = e.cast(zero, Scalar::F64)?;
    if let ([extent], rank) = (&e.shape(zero)[..], e.rank(x)) {
        let mut shape = vec![Dim::Const(1); rank];
        shape[axis] = extent.clone();
        zero = e.reshape(zero, shape)?;
    }
    e.sub(wide, zero)
}

fn matmul_integer(c: &mut Call) -> Fallible<Vec<Node>> {
    let (a, b, a_zero, b_zero) = (c.x(0)?, c.x(1)?, zero_points(c, 2)?, zero_points(c, 3)?);
    let e = &mut *c.emit;
    let operands = [(a, a_zero), (b, b_zero)].map(|(bytes, zero)| Quantised { bytes, zero });
    if let Some(sums) = byte_matmul(e, operands[0], operands[1])? {
        return Ok(vec![sums]);
    }
    let row = e.rank(a).saturating_sub(2);
    let column = e.rank(b).saturating_sub(1);
    let (a, b) = (centred(e, a, a_zero, row)?, centred(e, b, b_zero, column)?);
    let product = matmul(e, a, b)?;
    Ok(vec![e.cast(product, Scalar::I32)?])
}

/// The labels of a term; an ellipsis stands for `open` axes, labelled by numbers.
fn labels(term: &str, rank: usize) -> Fallible<Vec<char>> {
    let term: String = term.chars().filter(|c| !c.is_whitespace()).collect();
    let named = term.replace("...", "").chars().count();
    let open = rank.checked_sub(named).ok_or_else(|| format!("{term:?} does not fit rank {rank}"))?;
    let stretch: String = (0..open).rev().map(|i| char::from(b'0' + i as u8)).collect();
    if open > 9 || open > 0 && !term.contains("...") {
        return Err(format!("{term:?} does not fit rank {rank}"));
    }
    Ok(term.replace("...", &stretch).chars().collect())
}

/// An operand with its labels.
type Term = (Node, Vec<char>);

fn einsum(c: &mut Call) -> Fallible<Vec<Node>> {
    let (equation, operands) = (c.text("equation", ""), c.all()?);
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_owned(), Some(right.to_owned())),
        None => (equation.clone(), None),
    };
    let mut terms: Vec<Term> = vec![];
    for (term, &x) in left.split(',').zip(&operands) {
        terms.push((x, labels(term, c.emit.rank(x))?));
    }
    if terms.is_empty() || terms.len() != left.split(',').count() {
        return Err(format!("{equation:?} does not fit {} operands", operands.len()));
    }
    let all: Vec<char> = terms.iter().flat_map(|(_, l)| l.clone()).collect();
    let result = match right {
        Some(right) => {
            let named = right.chars().filter(|c| c.is_alphabetic()).count();
            let open = all.iter().filter(|c| c.is_ascii_digit()).collect::<std::collections::BTreeSet<_>>().len();
            labels(&right, named + if right.contains("...") { open } else { 0 })?
        }
        None => {
            let mut once: Vec<char> = all
                .iter()
                .copied()
                .filter(|l| l.is_ascii_digit() || all.iter().filter(|m| *m == l).count() == 1)
                .collect();
            once.sort_unstable_by_key(|l| {
                (!l.is_ascii_digit(), if l.is_ascii_digit() { 255 - *l as u32 } else { *l as u32 })
            });
            once.dedup();
            once
        }
    };
    let e = &mut *c.emit;
    let mut terms = terms.into_iter();
    let (x, labels) = terms.next().ok_or("it has no operand")?;
    let mut product = diagonal(e, x, labels)?;
    let rest: Vec<Term> = terms.collect();
    for (i, (y, labels)) in rest.iter().enumerate() {
        let next = diagonal(e, *y, labels.clone())?;
        let later: Vec<char> = rest[i + 1..].iter().flat_map(|(_, l)| l.clone()).chain(result.clone()).collect();
        product = contract(e, product, next, &later)?;
    }
    let (x, labels) = summed(e, product, &result)?;
    let perm = result.iter().map(|l| labels.iter().position(|m| m == l).ok_or("an output label is in no operand"));
    let perm = perm.collect::<Result<Vec<usize>, _>>()?;
    Ok(vec![e.transpose(x, perm)?])
}

/// A label that stands twice picks the diagonal.
fn diagonal(e: &mut Emit, x: Node, labels: Vec<char>) -> Fallible<Term> {
    let twice =
        (0..labels.len()).find_map(|i| Some((i, i + 1 + labels[i + 1..].iter().position(|l| *l == labels[i])?)));
    let Some((i, j)) = twice else { return Ok((x, labels)) };
    let rank = labels.len();
    let perm: Vec<usize> = [i, j].into_iter().chain((0..rank).filter(|k| ![i, j].contains(k))).collect();
    let moved = e.transpose(x, perm)?;
    let extents = e.extents(moved)?;
    let flat: Vec<u64> = std::iter::once(extents[0] * extents[1]).chain(extents[2..].iter().copied()).collect();
    let lines = e.reshape_to(moved, &flat)?;
    let picked = e.slice(lines, 0, 0, extents[1] as i64 + 1, extents[0])?;
    let mut left = vec![labels[i]];
    left.extend((0..rank).filter(|k| ![i, j].contains(k)).map(|k| labels[k]));
    diagonal(e, picked, left)
}

/// Sums over the labels that nobody needs.
fn summed(e: &mut Emit, (x, labels): Term, needed: &[char]) -> Fallible<Term> {
    let gone: Vec<usize> = (0..labels.len()).filter(|&i| !needed.contains(&labels[i])).collect();
    if gone.is_empty() {
        return Ok((x, labels));
    }
    let scalar = e.scalar(x);
    let sum = e.op(Op::Reduce { op: ReduceOp::Sum, axes: gone, keep: false }, &[x])?;
    Ok((e.cast(sum, scalar)?, labels.into_iter().filter(|l| needed.contains(l)).collect()))
}

/// Two operands as one matrix product: labels of both that stay are its batch, those that go its inner dimension.
fn contract(e: &mut Emit, a: Term, b: Term, needed: &[char]) -> Fallible<Term> {
    let wanted = |own: &Term| needed.iter().chain(&own.1).copied().collect::<Vec<char>>();
    let (for_b, for_a) = (wanted(&a), wanted(&b));
    let (a, b) = (summed(e, a, &for_a)?, summed(e, b, &for_b)?);
    let shared = |l: &&char| b.1.contains(l);
    let batch: Vec<char> = a.1.iter().filter(shared).filter(|l| needed.contains(l)).copied().collect();
    let inner: Vec<char> = a.1.iter().filter(shared).filter(|l| !needed.contains(l)).copied().collect();
    let rows: Vec<char> = a.1.iter().filter(|l| !b.1.contains(l)).copied().collect();
    let columns: Vec<char> = b.1.iter().filter(|l| !a.1.contains(l)).copied().collect();
    let mut sides = vec![];
    for (term, order) in [(&a, [&batch, &rows, &inner]), (&b, [&batch, &inner, &columns])] {
        let places = order.iter().flat_map(|part| part.iter());
        let perm: Vec<usize> = places.filter_map(|l| term.1.iter().position(|m| m == l)).collect();
        let moved = e.transpose(term.0, perm)?;
        let extents = e.extents(moved)?;
        let (first, last) = (order[0].len(), order[0].len() + order[1].len());
        let flat =
            [extents[..first].to_vec(), vec![extents[first..last].iter().product(), extents[last..].iter().product()]];
        sides.push((e.reshape_to(moved, &flat.concat())?, extents));
    }
    let product = e.matmul(sides[0].0, sides[1].0)?;
    // An extent of 1 stretches along that of the other operand.
    let mut shape = e.extents(product)?;
    shape.truncate(batch.len());
    shape.extend(&sides[0].1[batch.len()..batch.len() + rows.len()]);
    shape.extend(&sides[1].1[batch.len() + inner.len()..]);
    let labels = [batch, rows, columns].concat();
    Ok((e.reshape_to(product, &shape)?, labels))
}
