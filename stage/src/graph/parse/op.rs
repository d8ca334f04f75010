//! Operations with their attributes.

use super::cursor::Cursor;
use super::ty;
use crate::graph::foreign::{Part, Signature};
use crate::graph::forest::{Bits, TreeWriter};
use crate::graph::{
    Aggregate, AggregateOp, BinaryOp, Clean, CompareOp, Conv2d, Forest, JoinKind, Node, Op, Pool2d, PoolKind, ReduceOp,
    Region, SortKey, Split, Step, Steps, Tree, Ty, UnaryOp,
};
use std::collections::HashMap;
use std::sync::Arc;

/// The operation called `name`; what its type tells is not written twice.
pub(super) fn op(name: &str, ty: &Ty, cursor: &mut Cursor, nodes: &HashMap<u32, Node>) -> Result<Op, String> {
    let (family, short) = name.split_once('.').unwrap_or((name, ""));
    let found = match family {
        "scalar" => scalar(short, cursor)?,
        "rel" => table(short, ty, cursor)?,
        "tensor" => tensor(short, ty, cursor, nodes)?,
        "bridge" => bridge(short, cursor)?,
        "control" => control(short, ty, cursor)?,
        _ => None,
    };
    found.ok_or_else(|| format!("expected an operation, found `{name}`"))
}

/// The kind of that name.
fn kind<K: Copy>(all: &[K], name_of: impl Fn(K) -> &'static str, name: &str) -> Option<K> {
    all.iter().copied().find(|k| name_of(*k) == name)
}

fn scalar(name: &str, cursor: &mut Cursor) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "const" => Op::Const(ty::literal(cursor)?),
        "select" => Op::Select,
        "cast" => {
            cursor.expect_word("to")?;
            Op::Cast(ty::scalar(cursor)?)
        }
        "random" => {
            cursor.expect_word("to")?;
            Op::Random(ty::scalar(cursor)?)
        }
        "like" => Op::Like(cursor.string()?),
        "hash" => Op::Hash,
        "clean" => Op::Clean(Clean {
            lower: switch(cursor, "lower")?,
            punctuation: switch(cursor, "punctuation")?,
            spaces: switch(cursor, "spaces")?,
        }),
        "substring" => Op::Substring { start: named(cursor, "from")?, len: named(cursor, "len")? },
        _ => {
            let unary = kind(UnaryOp::ALL, UnaryOp::name, name).map(Op::Unary);
            let binary = || kind(BinaryOp::ALL, BinaryOp::name, name).map(Op::Binary);
            return Ok(unary.or_else(binary).or_else(|| kind(CompareOp::ALL, CompareOp::name, name).map(Op::Compare)));
        }
    }))
}

/// A word, and 1 or 0 behind it.
fn switch(cursor: &mut Cursor, word: &str) -> Result<bool, String> {
    match named::<u8>(cursor, word)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("expected 0 or 1, found {other}")),
    }
}

/// A word and the number behind it.
fn named<T: std::str::FromStr>(cursor: &mut Cursor, word: &str) -> Result<T, String> {
    cursor.expect_word(word)?;
    cursor.number()
}

/// A word and the list of numbers behind it.
fn numbers<T: std::str::FromStr>(cursor: &mut Cursor, word: &str) -> Result<Vec<T>, String> {
    cursor.expect_word(word)?;
    cursor.list(Cursor::number)
}

/// A word and the two numbers behind it.
fn pair(cursor: &mut Cursor, word: &str) -> Result<[u64; 2], String> {
    let numbers: Vec<u64> = numbers(cursor, word)?;
    numbers.try_into().map_err(|_| format!("expected two numbers after `{word}`"))
}

fn table(name: &str, ty: &Ty, cursor: &mut Cursor) -> Result<Option<Op>, String> {
    if let Some(kind) = name.strip_prefix("join_") {
        return join(kind, cursor);
    }
    Ok(Some(match name {
        "scan" => match ty {
            Ty::Table { fields, .. } => Op::Scan { table: cursor.string()?, fields: fields.clone() },
            _ => return Err(format!("expected the type of a table for rel.scan, found {ty}")),
        },
        "filter" => Op::Filter,
        "project" => {
            cursor.expect_word("as")?;
            Op::Project { names: cursor.list(Cursor::string)? }
        }
        "product" => Op::Product,
        "union" => {
            cursor.expect_word("of")?;
            Op::Union { names: cursor.list(Cursor::string)? }
        }
        "aggregate" => {
            cursor.expect_word("keys")?;
            let keys = cursor.list(Cursor::string)?;
            cursor.expect_word("compute")?;
            Op::Aggregate { keys, aggregates: cursor.list(aggregate)? }
        }
        "sort" => {
            cursor.expect_word("by")?;
            Op::Sort(cursor.list(sort_key)?)
        }
        "limit" => Op::Limit { offset: named(cursor, "offset")?, count: named(cursor, "count")? },
        _ => return Ok(None),
    }))
}

fn join(name: &str, cursor: &mut Cursor) -> Result<Option<Op>, String> {
    if let Some(kind) = JoinKind::UNNAMED.iter().find(|kind| kind.name() == name) {
        return Ok(Some(Op::Join { kind: kind.clone(), keys: named(cursor, "keys")? }));
    }
    if name != "mark" {
        return Ok(None);
    }
    let keys = named(cursor, "keys")?;
    cursor.expect_word("as")?;
    Ok(Some(Op::Join { kind: JoinKind::Mark(cursor.string()?), keys }))
}

fn aggregate(cursor: &mut Cursor) -> Result<Aggregate, String> {
    let name = cursor.string()?;
    let op = cursor.word()?;
    match kind(AggregateOp::ALL, AggregateOp::name, op) {
        Some(op) => Ok(Aggregate { name, op }),
        None => Err(format!("expected an aggregate such as sum, found `{op}`")),
    }
}

fn sort_key(cursor: &mut Cursor) -> Result<SortKey, String> {
    let descending = cursor.eat_word("desc");
    if !descending {
        cursor.expect_word("asc")?;
    }
    Ok(SortKey { descending, nulls_first: cursor.eat_word("nulls_first") })
}

fn tensor(name: &str, ty: &Ty, cursor: &mut Cursor, nodes: &HashMap<u32, Node>) -> Result<Option<Op>, String> {
    if let Some(op) = name.strip_prefix("reduce_").and_then(|n| kind(ReduceOp::ALL, ReduceOp::name, n)) {
        return Ok(Some(Op::Reduce { op, axes: numbers(cursor, "axes")?, keep: cursor.eat_word("keep") }));
    }
    if let Some(kind) = name.strip_prefix("pool2d_").and_then(|n| kind(PoolKind::ALL, PoolKind::name, n)) {
        return Ok(Some(Op::Pool2d(pool(kind, cursor)?)));
    }
    Ok(Some(match name {
        "input" => Op::Input { name: cursor.string()?, ty: ty.clone(), weight: cursor.eat_word("weight") },
        "iota" => Op::Iota(named(cursor, "to")?),
        "matmul" => Op::MatMul,
        "conv2d" => Op::Conv2d(convolution(cursor)?),
        "conv2d_filters" => Op::Conv2dFilters { kernel: pair(cursor, "kernel")?, conv: convolution(cursor)? },
        "max_unpool2d" => Op::MaxUnpool2d(pool(PoolKind::Max, cursor)?),
        "batch_norm" => Op::BatchNorm { eps: named::<f64>(cursor, "eps")?.to_bits() },
        "softmax" => Op::Softmax { axis: named(cursor, "axis")? },
        "concat" => Op::Concat { axis: named(cursor, "axis")? },
        "arg_max" => Op::ArgMax { axis: named(cursor, "axis")? },
        "reshape" => {
            cursor.expect_word("to")?;
            Op::Reshape(cursor.list(|c| ty::dim(c, nodes))?)
        }
        "broadcast" => {
            cursor.expect_word("to")?;
            Op::Broadcast(cursor.list(|c| ty::dim(c, nodes))?)
        }
        "slice" => Op::Slice {
            axis: named(cursor, "axis")?,
            start: named(cursor, "start")?,
            step: named(cursor, "step")?,
            count: named(cursor, "count")?,
        },
        "cum_sum" => Op::CumSum { axis: named(cursor, "axis")? },
        "transpose" => Op::Transpose(numbers(cursor, "perm")?),
        "tree_ensemble" => Op::TreeEnsemble(Arc::new(forest(cursor)?)),
        "gather" => Op::Gather,
        "foreign" => {
            let name = cursor.string()?;
            cursor.expect_word("of")?;
            let operands = cursor.list(part)?;
            cursor.expect_word("to")?;
            Op::Foreign { name, signature: Signature { operands, result: part(cursor)? } }
        }
        "scatter_add" => Op::ScatterAdd,
        _ => return Ok(None),
    }))
}

fn forest(cursor: &mut Cursor) -> Result<Forest, String> {
    let features = named(cursor, "features")?;
    let base: Vec<f32> = numbers(cursor, "base")?;
    cursor.expect_word("trees")?;
    let trees = cursor.list(tree)?;
    Ok(Forest { features, base: base.into_iter().map(Bits::from).collect(), trees })
}

/// The output of a tree, and its steps.
fn tree(cursor: &mut Cursor) -> Result<Tree, String> {
    let output = cursor.number()?;
    cursor.expect(":")?;
    let mut writer = TreeWriter::default();
    while !writer.is_complete() {
        writer.push(match cursor.eat("x") {
            false => Step::Leaf(cursor.number()?),
            true => {
                let feature = cursor.number()?;
                cursor.expect("<=")?;
                let nan_left = cursor.eat("?");
                Step::Split(Split { feature, limit: Bits::from(cursor.number::<f32>()?), nan_left })
            }
        });
    }
    writer.finish(output).ok_or_else(|| "expected a tree".to_owned())
}

/// An operand or the result of a foreign function.
fn part(cursor: &mut Cursor) -> Result<Part, String> {
    let by_row = cursor.eat_word("rows");
    if !by_row {
        cursor.expect_word("whole")?;
    }
    let scalar = ty::scalar(cursor)?;
    let shape = if cursor.eat("[") { cursor.rest_of_list("]", Cursor::number)? } else { vec![] };
    Ok(Part { scalar, by_row, shape })
}

fn convolution(cursor: &mut Cursor) -> Result<Conv2d, String> {
    Ok(Conv2d {
        stride: pair(cursor, "stride")?,
        padding: pair(cursor, "padding")?,
        dilation: pair(cursor, "dilation")?,
        groups: named(cursor, "groups")?,
    })
}

fn pool(kind: PoolKind, cursor: &mut Cursor) -> Result<Pool2d, String> {
    let (kernel, stride, padding) = (pair(cursor, "kernel")?, pair(cursor, "stride")?, pair(cursor, "padding")?);
    Ok(Pool2d { kind, kernel, stride, padding, ceil: cursor.eat_word("ceil") })
}

fn bridge(name: &str, cursor: &mut Cursor) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "column" => Op::Column(cursor.string()?),
        "row_number" => Op::RowNumber,
        "stack" => Op::Stack,
        "single" => Op::Single,
        _ => return Ok(None),
    }))
}

fn control(name: &str, ty: &Ty, cursor: &mut Cursor) -> Result<Option<Op>, String> {
    Ok(Some(match name {
        "if" => Op::If,
        "loop" => Op::Loop(Region { params: vec![], results: vec![] }),
        "steps" => Op::Steps(Steps {
            region: Region { params: vec![], results: vec![] },
            count: named(cursor, "count")?,
            carried: named(cursor, "carried")?,
            axis: named(cursor, "axis")?,
            back: cursor.eat_word("back"),
        }),
        "param" => Op::Param { region: named(cursor, "region")?, index: named(cursor, "index")?, ty: ty.clone() },
        "item" => Op::Item(named(cursor, "at")?),
        _ => return Ok(None),
    }))
}
