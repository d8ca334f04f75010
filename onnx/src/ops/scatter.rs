//! Operators that put elements at places: one choice an update, in the order of the updates.

use super::Write;
use super::index::{from_front, places_along};
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{BinaryOp, CompareOp, Node};

pub(super) const ROWS: &[(&str, Write)] = &[("Scatter", elements), ("ScatterElements", elements), ("ScatterND", slabs)];

/// Every update is looked at for every element, so that more of them would take too long.
const MOST_UPDATES: u64 = 512;

/// `x [places, inner]` with `updates [n, inner]` put (or folded) at `at [n]`.
fn put(e: &mut Emit, x: Node, at: Node, updates: Node, fold: Option<BinaryOp>) -> Fallible<Node> {
    let (places, count) = (e.extent(x, 0)?, e.extent(at, 0)?);
    if count > MOST_UPDATES {
        return Err(format!("{count} updates, at most {MOST_UPDATES}"));
    }
    let here = e.ints(&[places, 1], 0..places)?;
    let mut x = x;
    for i in 0..count {
        let (place, update) = (e.pick(at, 0, i)?, e.slice(updates, 0, i, 1, 1)?);
        let hit = e.compare(CompareOp::Eq, here, place)?;
        let new = match fold {
            Some(fold) => e.binary(fold, x, update)?,
            None => update,
        };
        x = e.select(hit, new, x)?;
    }
    Ok(x)
}

fn fold(c: &Call) -> Fallible<Option<BinaryOp>> {
    Ok(Some(match c.text("reduction", "none").as_str() {
        "none" => return Ok(None),
        "add" => BinaryOp::Add,
        "mul" => BinaryOp::Mul,
        "min" => BinaryOp::Min,
        "max" => BinaryOp::Max,
        other => return Err(format!("the reduction {other:?} is not known")),
    }))
}

fn elements(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, at, updates, fold) = (c.x(0)?, c.x(1)?, c.x(2)?, fold(c)?);
    let axis = c.axis(c.int("axis", 0), c.emit.rank(x))?;
    let e = &mut *c.emit;
    let (extents, place) = (e.extents(x)?, places_along(e, x, at, axis)?);
    let (places, count) = (extents.iter().product(), e.extents(at)?.iter().product());
    let flat = e.reshape_to(x, &[places, 1])?;
    let place = e.reshape_to(place, &[count])?;
    let updates = e.reshape_to(updates, &[count, 1])?;
    let result = put(e, flat, place, updates, fold)?;
    Ok(vec![e.reshape_to(result, &extents)?])
}

fn slabs(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, at, updates, fold) = (c.x(0)?, c.x(1)?, c.x(2)?, fold(c)?);
    let e = &mut *c.emit;
    let (extents, wanted) = (e.extents(x)?, e.extents(at)?);
    let Some((&depth, outer)) = wanted.split_last() else { return Err("its indices need an axis".into()) };
    let depth = depth as usize;
    if depth > extents.len() || depth == 0 {
        return Err("its indices do not fit its data".into());
    }
    let (places, inner): (u64, u64) = (extents[..depth].iter().product(), extents[depth..].iter().product());
    let count = outer.iter().product();
    let mut place: Option<Node> = None;
    for i in 0..depth {
        let part = e.pick(at, wanted.len() - 1, i as u64)?;
        let part = from_front(e, part, extents[i])?;
        let part = e.times(part, extents[i + 1..depth].iter().product::<u64>() as f64)?;
        place = Some(match place {
            Some(place) => e.add(place, part)?,
            None => part,
        });
    }
    let place = place.ok_or("its indices are empty")?;
    let place = e.reshape_to(place, &[count])?;
    let flat = e.reshape_to(x, &[places, inner])?;
    let updates = e.reshape_to(updates, &[count, inner])?;
    let result = put(e, flat, place, updates, fold)?;
    Ok(vec![e.reshape_to(result, &extents)?])
}
