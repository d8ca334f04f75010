//! Gradients through tables.
//!
//! The loss is written out over wide tables ([`super::wide`]), whose columns belong to base tables. The adjoint of a column
//! of groups is summed up over the rows that a group has come to, and joined to the rows that the group was made of, by
//! the keys; there it is the adjoint of what was aggregated. So the walk goes from one grouping to the next one below, and
//! ends at stored tables: the adjoint of a stored column is summed up over the rows that a stored row has come to.

use super::Error;
use super::depends::Depends;
use super::emit::{Emit, Made};
use super::reverse::pull_back;
use super::rows::below_filters;
use super::wide::{Leaf, ROW, Wide, Wider, maker, name_in};
use quearn_stage::graph::{Aggregate, AggregateOp, BinaryOp, CompareOp, JoinKind, Literal, Node, Op, Scalar, UnaryOp};
use std::collections::BTreeMap;

/// An adjoint of a column of a base table, over the rows of a wide table.
struct Share {
    leaf: Leaf,
    adjoint: Node,
}

struct Walk<'e, 'g> {
    e: &'e mut Emit<'g>,
    wider: Wider,
    depends: Depends,
    /// What the gradients are taken by, as it stands over wide tables; nothing for columns.
    targets: Vec<Option<Node>>,
    found: Vec<Option<Node>>,
    /// Adjoints of columns by base table; of stored tables they stay.
    shares: BTreeMap<Node, Vec<Share>>,
}

/// The adjoints of `wrt`, given that of a loss.
pub(super) fn gradients(e: &mut Emit<'_>, loss: Node, wrt: &[Node]) -> Result<Vec<Option<Node>>, Error> {
    let depends = Depends::on(e.graph, wrt, loss);
    let mut wider = Wider::default();
    let flat = wider.tensor(e, loss)?;
    let mut targets = vec![];
    for &node in wrt {
        targets.push(target(e, &mut wider, node)?);
    }
    let found = vec![None; wrt.len()];
    let mut walk = Walk { e, wider, depends, targets, found, shares: BTreeMap::new() };
    let one = walk.e.number_like(flat, 1.0)?;
    walk.pull(flat, one)?;
    while let Some(&base) = walk.shares.keys().rev().find(|base| walk.is_groups(**base)) {
        let shares = walk.shares.remove(&base).unwrap_or_default();
        shares.into_iter().try_for_each(|share| walk.group(base, share))?;
    }
    wrt.iter().enumerate().map(|(i, &node)| walk.result(i, node)).collect()
}

/// What a gradient is taken by, as it stands over wide tables; nothing for a stored column.
fn target(e: &mut Emit<'_>, wider: &mut Wider, node: Node) -> Result<Option<Node>, Error> {
    if let Op::Column(_) = e.graph.op(node) {
        let table = e.graph.inputs(node)[0];
        return match e.graph.op(table) {
            Op::Scan { .. } => Ok(None),
            _ => Err(Error::no_rule(e.graph, node, "of columns, gradients are taken by those of stored tables")),
        };
    }
    wider.tensor(e, node).map(Some)
}

/// A name that no wide table has a column of.
const ADJOINT: &str = "adjoint";

impl Walk<'_, '_> {
    fn is_groups(&self, base: Node) -> bool {
        matches!(self.e.graph.op(base), Op::Aggregate { .. })
    }

    /// Pulls an adjoint back to what the gradients are taken by, and to the columns of base tables.
    fn pull(&mut self, node: Node, adjoint: Node) -> Result<(), Error> {
        let wanted = |leaf: &Leaf| self.depends.has_column(leaf.base, &leaf.column);
        let leaves: Vec<(Node, Leaf)> =
            self.wider.leaves.iter().filter(|(_, leaf)| wanted(leaf)).map(|(n, leaf)| (*n, leaf.clone())).collect();
        let wrt: Vec<Node> = self.targets.iter().flatten().copied().chain(leaves.iter().map(|(n, _)| *n)).collect();
        let mut parts = pull_back(self.e, &[(node, adjoint)], &wrt)?.into_iter();
        for i in (0..self.targets.len()).filter(|i| self.targets[*i].is_some()).collect::<Vec<_>>() {
            if let Some(part) = parts.next().flatten() {
                self.found[i] = Some(match self.found[i] {
                    Some(sum) => self.e.add(sum, part)?,
                    None => part,
                });
            }
        }
        for ((_, leaf), part) in leaves.into_iter().zip(parts) {
            if let Some(adjoint) = part {
                if !self.is_groups(leaf.base) && !matches!(self.e.graph.op(leaf.base), Op::Scan { .. }) {
                    return Err(Error::no_rule(self.e.graph, leaf.base, "it has no rule"));
                }
                self.shares.entry(leaf.base).or_default().push(Share { leaf, adjoint });
            }
        }
        Ok(())
    }

    /// The gradient by one of `wrt`.
    fn result(&mut self, i: usize, wrt: Node) -> Result<Option<Node>, Error> {
        let Op::Column(name) = self.e.graph.op(wrt).clone() else { return Ok(self.found[i]) };
        let base = self.e.graph.inputs(wrt)[0];
        let shares = self.shares.get(&base).into_iter().flatten().filter(|share| share.leaf.column == name);
        let shares: Vec<(Leaf, Node)> = shares.map(|share| (share.leaf.clone(), share.adjoint)).collect();
        let mut sum = None;
        for (leaf, adjoint) in shares {
            let part = self.by_row(&leaf, adjoint, wrt)?;
            sum = Some(match sum {
                Some(sum) => self.e.add(sum, part)?,
                None => part,
            });
        }
        Ok(sum)
    }

    /// The adjoint of a stored column, summed up over the rows that a stored row has come to.
    fn by_row(&mut self, leaf: &Leaf, adjoint: Node, wrt: Node) -> Made {
        let column = self.e.node(Op::Column(name_in(leaf.scope, &leaf.column)), &[leaf.table])?;
        let adjoint = self.e.full(adjoint, column)?;
        if self.e.shape(column) == self.e.shape(wrt) {
            return Ok(adjoint);
        }
        if let Some(adjoint) = below_filters(self.e, leaf.table, adjoint)? {
            return Ok(adjoint);
        }
        let row = self.e.node(Op::Column(name_in(leaf.scope, ROW)), &[leaf.table])?;
        let (row, adjoint) =
            if self.e.nullable(row) { self.partners(leaf.table, row, adjoint)? } else { (row, adjoint) };
        let zero = self.e.number_like(wrt, 0.0)?;
        let zeros = self.e.full(zero, wrt)?;
        self.e.node(Op::ScatterAdd, &[zeros, row, adjoint])
    }

    /// Numbers of rows, and adjoints, without those of rows that a left join has found no partner for.
    fn partners(&mut self, table: Node, row: Node, adjoint: Node) -> Result<(Node, Node), Error> {
        let names = ["row", ADJOINT].map(str::to_owned);
        let both = self.e.node(Op::Project { names: names.to_vec() }, &[table, row, adjoint])?;
        let row = self.e.node(Op::Column(names[0].clone()), &[both])?;
        let alone = self.e.unary(UnaryOp::IsNull, row)?;
        let found = self.e.unary(UnaryOp::Not, alone)?;
        let found = self.e.node(Op::Filter, &[both, found])?;
        let [row, adjoint] = [
            self.e.node(Op::Column(names[0].clone()), &[found])?,
            self.e.node(Op::Column(names[1].clone()), &[found])?,
        ];
        let none = self.e.node(Op::Const(Literal::i64(0)), &[])?;
        Ok((self.e.binary(BinaryOp::Coalesce, row, none)?, adjoint))
    }

    /// Hands the adjoint of a column of groups on to what was aggregated.
    fn group(&mut self, base: Node, share: Share) -> Result<(), Error> {
        let Op::Aggregate { keys, aggregates } = self.e.graph.op(base).clone() else { return Ok(()) };
        let inputs = self.e.graph.inputs(base).to_vec();
        let at = aggregates.iter().position(|a| a.name == share.leaf.column);
        let Some(at) = at else { return Ok(()) };
        let before = aggregates[..at].iter().filter(|a| a.op != AggregateOp::CountRows).count();
        let (key_nodes, argument) = (inputs[1..1 + keys.len()].to_vec(), inputs[1 + keys.len() + before]);
        let made_by = maker(self.e.graph, inputs[0]);
        let wide = self.wider.wide(self.e, made_by)?;
        let mut members = Members { wide: wide.clone(), table: wide.table, keys: key_nodes, joined: 0 };
        let adjoint = self.of_groups(&share, &keys)?;
        let each = match adjoint {
            OfGroups::One(adjoint) => adjoint,
            OfGroups::Table(table) => members.look_up(self, table, ADJOINT)?,
        };
        self.spread(&aggregates[at], members, argument, each)
    }

    /// The adjoint of each group: that of its rows in a wide table.
    fn of_groups(&mut self, share: &Share, keys: &[String]) -> Result<OfGroups, Error> {
        let Share { leaf, adjoint } = share;
        let column = self.e.node(Op::Column(name_in(leaf.scope, &leaf.column)), &[leaf.table])?;
        if keys.is_empty() {
            let shape = self.e.shape(column);
            let sum = self.e.sum_to(*adjoint, &shape, &[])?;
            return Ok(OfGroups::One(sum));
        }
        let adjoint = self.e.full(*adjoint, column)?;
        let mut operands = vec![leaf.table];
        let mut names = vec![];
        for (i, key) in keys.iter().enumerate() {
            operands.push(self.e.node(Op::Column(name_in(leaf.scope, key)), &[leaf.table])?);
            names.push(key_name(i));
        }
        operands.push(adjoint);
        let sum = Aggregate { name: ADJOINT.to_owned(), op: AggregateOp::Sum };
        Ok(OfGroups::Table(self.e.node(Op::Aggregate { keys: names, aggregates: vec![sum] }, &operands)?))
    }

    /// The adjoint of what was aggregated, from that of its group in each row.
    fn spread(&mut self, aggregate: &Aggregate, mut members: Members, argument: Node, each: Node) -> Result<(), Error> {
        let (adjoint, table) = match aggregate.op {
            AggregateOp::Sum => (each, members.table),
            AggregateOp::Avg => {
                let before = members.table;
                let value = self.wider.over(self.e, &members.wide, before, argument)?;
                let count = members.fold(self, AggregateOp::Count, value, "count")?;
                let count = self.e.cast(count, Scalar::F64)?;
                let each = members.again(self, each)?;
                (self.e.div(each, count)?, members.table)
            }
            AggregateOp::Min | AggregateOp::Max => {
                let value = self.wider.over(self.e, &members.wide, members.table, argument)?;
                let best = members.fold(self, aggregate.op, value, "best")?;
                let value = self.wider.over(self.e, &members.wide, members.table, argument)?;
                let is_best = self.e.compare(CompareOp::Eq, value, best)?;
                let (one, zero) = (self.e.number(Scalar::F64, 1.0)?, self.e.number(Scalar::F64, 0.0)?);
                let mark = self.e.select(is_best, one, zero)?;
                let count = members.fold(self, AggregateOp::Sum, mark, "ties")?;
                let value = self.wider.over(self.e, &members.wide, members.table, argument)?;
                let best = members.again(self, best)?;
                let is_best = self.e.compare(CompareOp::Eq, value, best)?;
                let each = members.again(self, each)?;
                let share = self.e.div(each, count)?;
                (self.e.only(is_best, share)?, members.table)
            }
            other => {
                let reason = format!("of {} in it", other.name());
                return Err(Error::no_rule(self.e.graph, argument, reason));
            }
        };
        let value = self.wider.over(self.e, &members.wide, table, argument)?;
        self.pull(value, adjoint)
    }
}

enum OfGroups {
    /// There is one group.
    One(Node),
    /// A table of keys and adjoints.
    Table(Node),
}

fn key_name(i: usize) -> String {
    format!("key {i}")
}

/// The rows that groups are made of, with what is known of their groups in further columns.
struct Members {
    wide: Wide,
    /// The wide table, joined with tables of groups.
    table: Node,
    keys: Vec<Node>,
    joined: usize,
}

impl Members {
    /// A column of a table of groups in each row of theirs: joined by the keys, of which NULL is one.
    fn look_up(&mut self, walk: &mut Walk<'_, '_>, groups: Node, column: &str) -> Made {
        let (mut left, mut right) = (vec![], vec![]);
        for (i, &key) in self.keys.clone().iter().enumerate() {
            let mine = walk.wider.over(walk.e, &self.wide, self.table, key)?;
            let theirs = walk.e.node(Op::Column(key_name(i)), &[groups])?;
            left.extend(comparable(walk.e, mine)?);
            right.extend(comparable(walk.e, theirs)?);
        }
        let name = format!("{column} {}", self.joined);
        self.joined += 1;
        let value = walk.e.node(Op::Column(column.to_owned()), &[groups])?;
        // Keys under names of their own, so that no column is lost or met twice.
        let (mut names, mut operands) = (vec![name.clone()], vec![groups, value]);
        for (i, &key) in right.iter().enumerate() {
            names.push(format!("{name} by {i}"));
            operands.push(key);
        }
        let renamed = walk.e.node(Op::Project { names: names.clone() }, &operands)?;
        let mut operands = vec![self.table, renamed];
        operands.extend(&left);
        for key in &names[1..] {
            operands.push(walk.e.node(Op::Column(key.clone()), &[renamed])?);
        }
        self.table = walk.e.node(Op::Join { kind: JoinKind::Inner, keys: left.len() }, &operands)?;
        walk.e.node(Op::Column(name), &[self.table])
    }

    /// A column of the joined table after further joins.
    fn again(&self, walk: &mut Walk<'_, '_>, column: Node) -> Made {
        match walk.e.graph.op(column).clone() {
            Op::Column(name) if !self.keys.is_empty() => walk.e.node(Op::Column(name), &[self.table]),
            _ => Ok(column),
        }
    }

    /// An aggregate of each row's group.
    fn fold(&mut self, walk: &mut Walk<'_, '_>, op: AggregateOp, value: Node, name: &str) -> Made {
        let mut operands = vec![self.table];
        for &key in &self.keys.clone() {
            operands.push(walk.wider.over(walk.e, &self.wide, self.table, key)?);
        }
        operands.push(value);
        let keys = (0..self.keys.len()).map(key_name).collect();
        let aggregates = vec![Aggregate { name: name.to_owned(), op }];
        let groups = walk.e.node(Op::Aggregate { keys, aggregates }, &operands)?;
        if self.keys.is_empty() {
            let column = walk.e.node(Op::Column(name.to_owned()), &[groups])?;
            return walk.e.node(Op::Single, &[column]);
        }
        self.look_up(walk, groups, name)
    }
}

/// What is equal, and never NULL, where a key is the same: the key, or whether it is NULL and a value in its place.
fn comparable(e: &mut Emit<'_>, key: Node) -> Result<Vec<Node>, Error> {
    if !e.nullable(key) {
        return Ok(vec![key]);
    }
    let Some(some) = any_value(e.scalar(key)) else {
        return Err(Error::no_rule(e.graph, key, "of groups by a key of this type that may be NULL"));
    };
    let some = e.node(Op::Const(some), &[])?;
    let missing = e.unary(UnaryOp::IsNull, key)?;
    let present = e.binary(BinaryOp::Coalesce, key, some)?;
    Ok(vec![missing, present])
}

/// Some value of a type.
fn any_value(scalar: Scalar) -> Option<Literal> {
    match scalar {
        Scalar::Bool => Some(Literal::bool(false)),
        Scalar::String => Some(Literal::string("")),
        Scalar::Date => Some(Literal::date(0)),
        Scalar::Timestamp => Some(Literal::timestamp(0)),
        Scalar::Decimal { precision, scale } => Literal::decimal(0, precision, scale),
        Scalar::Interval => None,
        other if other.is_float() => Literal::float(other, 0.0),
        other => Literal::int(other, 0),
    }
}
