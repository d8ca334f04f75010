//! Operators that hold graphs: the branch that is known to be taken, and loops, which are written out.

use crate::emit::Fallible;
use crate::import::{Fault, Import};
use crate::proto::{GraphProto, NodeProto};
use crate::scope::Scope;
use crate::tensor::Number;
use crate::value::{Call, Known, Value};
use quearn_stage::graph::Scalar;
use std::rc::Rc;

type Values = Vec<Rc<Value>>;

/// The results of a node that holds a graph; `None` if it does not.
pub(crate) fn run(
    import: &mut Import,
    node: &NodeProto,
    inputs: &[Option<Rc<Value>>],
    scope: &Scope,
) -> Result<Option<Values>, Fault> {
    let write = match node.op_type() {
        "If" => branch,
        "Loop" => repeat,
        "Scan" => scan,
        "SequenceMap" => each,
        _ => return Ok(None),
    };
    write(import, node, inputs, scope).map(Some)
}

fn graph<'a>(node: &'a NodeProto, name: &str) -> Fallible<&'a GraphProto> {
    let graph = node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.as_ref());
    graph.ok_or_else(|| format!("it has no {name}"))
}

/// The names that a graph inside another starts with.
fn inside<'a>(import: &Import, graph: &GraphProto, scope: &'a Scope<'a>) -> Result<Scope<'a>, Fault> {
    let mut inner = Scope::inside(scope);
    import.initializers(graph, &mut inner).map_err(|e| Fault::Inside(Box::new(e)))?;
    Ok(inner)
}

/// The results of a graph for these inputs.
fn results(import: &mut Import, graph: &GraphProto, inputs: Values, scope: &Scope) -> Result<Values, Fault> {
    if inputs.len() != graph.input.len() {
        let (found, wanted) = (inputs.len(), graph.input.len());
        return Err(Fault::Here(format!("its graph {:?} takes {wanted} inputs, found {found}", graph.name())));
    }
    let mut inner = Scope::inside(scope);
    for (port, value) in graph.input.iter().zip(inputs) {
        inner.insert(port.name(), value);
    }
    import.nodes(&graph.node, &mut inner).map_err(|e| Fault::Inside(Box::new(e)))?;
    let made = |name: &str| {
        let missing = || Fault::Here(format!("no node of {:?} makes the output {name:?}", graph.name()));
        inner.get(name).cloned().ok_or_else(missing)
    };
    graph.output.iter().map(|port| made(port.name())).collect()
}

fn named(values: Values, node: &NodeProto) -> Values {
    values.iter().zip(&node.output).map(|(value, name)| value.named(name)).collect()
}

fn branch(import: &mut Import, node: &NodeProto, inputs: &[Option<Rc<Value>>], scope: &Scope) -> Result<Values, Fault> {
    let chosen = import.call(node, inputs).known_ints(0)? == [1];
    let graph = graph(node, if chosen { "then_branch" } else { "else_branch" })?;
    let inner = inside(import, graph, scope)?;
    Ok(named(results(import, graph, vec![], &inner)?, node))
}

/// `trips, condition, carried...`; its graph takes `round, condition, carried...` and gives `condition, carried...,
/// collected...`.
fn repeat(import: &mut Import, node: &NodeProto, inputs: &[Option<Rc<Value>>], scope: &Scope) -> Result<Values, Fault> {
    let body = graph(node, "body")?;
    let call = import.call(node, inputs);
    let trips = if call.has(0) { call.known_number(0)? } else { f64::INFINITY };
    let asks = call.has(1);
    let mut goes = !asks || call.known_ints(1)? == [1];
    let mut carried = (2..inputs.len()).map(|i| call.value(i).cloned()).collect::<Fallible<Values>>()?;
    let collected = body.output.len().checked_sub(1 + carried.len());
    let mut collected = vec![vec![]; collected.ok_or_else(|| "its graph gives too few results".to_owned())?];
    let around = inside(import, body, scope)?;
    let mut round = 0;
    while goes && (round as f64) < trips {
        import.step()?;
        let given = [scalar(Scalar::I64, round), scalar(Scalar::Bool, 1)];
        let count = carried.len();
        let mut made = results(import, body, given.into_iter().chain(carried).collect(), &around)?.into_iter();
        let again = made.next();
        carried = made.by_ref().take(count).collect();
        collected.iter_mut().zip(made).for_each(|(list, value)| list.push(value));
        if asks {
            let call = import.call(node, &[again]);
            goes = call.known_ints(0).map_err(|_| "whether it goes on must be known at import".to_owned())? == [1];
        }
        round += 1;
    }
    for list in collected {
        carried.push(stacked(import, list, 0)?);
    }
    Ok(named(carried, node))
}

fn scalar(scalar: Scalar, value: i64) -> Rc<Value> {
    Value::known("", Known::new(scalar, vec![], vec![Number::Int(value)]), None)
}

/// Tensors of one shape side by side in a new axis.
fn stacked(import: &mut Import, parts: Values, axis: usize) -> Fallible<Rc<Value>> {
    let Some(first) = parts.first() else { return Err("a loop without a round collects nothing".into()) };
    let known = parts.iter().map(|part| part.elements().filter(|k| k.given.is_empty())).collect::<Option<Vec<_>>>();
    let known = known.filter(|known| axis == 0 && known.iter().all(|k| k.shape == known[0].shape));
    if let (Some(known), Some(first)) = (known, first.elements()) {
        let shape = [&[known.len() as u64], &first.shape[..]].concat();
        let items = known.into_iter().flat_map(|k| k.items).collect();
        return Ok(Value::known("", Known::new(first.scalar, shape, items), None));
    }
    let emit = &mut import.emit;
    let mut nodes = vec![];
    for part in parts {
        let node = part.in_graph(emit)?;
        if axis > emit.rank(node) {
            return Err(format!("no axis {axis} in its results"));
        }
        nodes.push(emit.insert_axis(node, axis)?);
    }
    Ok(Value::node("", emit.concat(&nodes, axis)?, None))
}

/// How a scan walks along one of its inputs or outputs.
fn walk(call: &Call, what: &str, i: usize) -> (i64, bool) {
    let item = |name: &str| call.ints(&format!("scan_{what}_{name}")).and_then(|list| list.get(i).copied());
    (item("axes").unwrap_or(0), item("directions").unwrap_or(0) == 1)
}

/// `carried..., walked...`; its graph takes `carried..., one of walked...` and gives `carried..., collected...`.
fn scan(import: &mut Import, node: &NodeProto, inputs: &[Option<Rc<Value>>], scope: &Scope) -> Result<Values, Fault> {
    let body = graph(node, "body")?;
    let mut call = import.call(node, inputs);
    if call.opset < 9 {
        return Err(Fault::Here("before version 9 it has a batch, which is not supported".into()));
    }
    let walked = usize::try_from(call.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
    let count = inputs.len().checked_sub(walked).ok_or_else(|| "it has fewer inputs than it walks along".to_owned())?;
    let mut carried = (0..count).map(|i| call.value(i).cloned()).collect::<Fallible<Values>>()?;
    let collected = body.output.len().checked_sub(count);
    let mut collected = vec![vec![]; collected.ok_or_else(|| "its graph gives too few results".to_owned())?];
    let (mut lines, mut rounds) = (vec![], None);
    for i in 0..walked {
        let x = call.x(count + i)?;
        let (axis, back) = walk(&call, "input", i);
        let axis = call.axis(axis, call.emit.rank(x))?;
        let extent = call.emit.extent(x, axis)?;
        if *rounds.get_or_insert(extent) != extent {
            return Err(Fault::Here("the inputs that it walks along differ in length".into()));
        }
        lines.push((x, axis, back));
    }
    let outputs: Vec<(i64, bool)> = (0..collected.len()).map(|i| walk(&call, "output", i)).collect();
    let around = inside(import, body, scope)?;
    let rounds = rounds.unwrap_or(0);
    for round in 0..rounds {
        import.step()?;
        let mut given = carried;
        for &(x, axis, back) in &lines {
            let at = if back { rounds - 1 - round } else { round };
            given.push(Value::node("", import.emit.pick(x, axis, at)?, None));
        }
        let mut made = results(import, body, given, &around)?.into_iter();
        carried = made.by_ref().take(count).collect();
        collected.iter_mut().zip(made).for_each(|(list, value)| list.push(value));
    }
    for (mut list, (axis, back)) in collected.into_iter().zip(outputs) {
        if back {
            list.reverse();
        }
        let rank = list.first().and_then(|v| v.shape(&import.emit)).map_or(0, |shape| shape.len());
        let axis = import.call(node, inputs).axis(axis, rank + 1)?;
        carried.push(stacked(import, list, axis)?);
    }
    Ok(named(carried, node))
}

/// A graph for each element of a sequence, and of those beside it; each result is a sequence.
fn each(import: &mut Import, node: &NodeProto, inputs: &[Option<Rc<Value>>], scope: &Scope) -> Result<Values, Fault> {
    let body = graph(node, "body")?;
    let inputs =
        (0..inputs.len()).map(|i| import.call(node, inputs).value(i).cloned()).collect::<Fallible<Values>>()?;
    let first = inputs.first().ok_or_else(|| "it has no input".to_owned())?;
    let around = inside(import, body, scope)?;
    let mut lists = vec![vec![]; body.output.len()];
    for i in 0..first.parts()?.len() {
        import.step()?;
        let part = |value: &Rc<Value>| match value.is_list() {
            true => value.parts()?.get(i).cloned().ok_or_else(|| "its sequences differ in length".to_owned()),
            false => Ok(Rc::clone(value)),
        };
        let given = inputs.iter().map(part).collect::<Fallible<Values>>()?;
        let made = results(import, body, given, &around)?;
        lists.iter_mut().zip(made).for_each(|(list, value)| list.push(value));
    }
    Ok(lists.into_iter().zip(&node.output).map(|(list, name)| Value::list(name, list)).collect())
}
