//! Tables that keep every column they are made from.
//!
//! A derivative needs what the rows of a table were made of, also where a projection has dropped it. The *wide* form of a
//! table has its rows, and all columns of the *base* tables (stored ones, and groups) that it is made from, under names
//! of their own; every other column is written out as an expression over these. So derivatives pass through filters,
//! projections, joins and sorts by themselves.

use super::Error;
use super::emit::{Emit, Made};
use quearn_stage::graph::{Dim, Graph, JoinKind, Literal, Node, Op, UnaryOp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// What the rows of a table are made of.
pub(super) struct Scope {
    /// Tells scopes apart: one table may be part of another twice.
    id: usize,
    /// The table as it was, no projection.
    node: Node,
    /// The tables that it is made from; none of a base table.
    below: Vec<Rc<Scope>>,
}

/// A wide table.
#[derive(Clone)]
pub(super) struct Wide {
    pub(super) scope: Rc<Scope>,
    pub(super) table: Node,
}

/// A column of a base table in a wide one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    /// The base table.
    pub(super) base: Node,
    /// Its column.
    pub(super) column: String,
    /// Tells several uses of the base table apart.
    pub(super) scope: usize,
    /// The wide table.
    pub(super) table: Node,
}

/// The name of a base table's column in a wide table.
pub(super) fn name_in(scope: usize, column: &str) -> String {
    format!("{scope}.{column}")
}

/// Makes wide tables, and expressions over them.
#[derive(Default)]
pub(super) struct Wider {
    scopes: usize,
    wides: HashMap<Node, Wide>,
    /// Expressions over a table in a scope.
    made: HashMap<(Node, usize, Node), Node>,
    /// Columns of base tables that have been asked for, by node.
    pub(super) leaves: BTreeMap<Node, Leaf>,
}

/// Where an expression stands: over the rows of a wide table, or over none.
#[derive(Clone, Copy)]
struct Place<'a> {
    table: Node,
    scope: &'a Rc<Scope>,
}

/// The table that makes the rows of a table, below its projections.
pub(super) fn maker(graph: &Graph, mut table: Node) -> Node {
    while matches!(graph.op(table), Op::Project { .. }) {
        table = graph.inputs(table)[0];
    }
    table
}

impl Wider {
    /// A tensor in which columns of tables are written out over wide tables.
    pub(super) fn tensor(&mut self, e: &mut Emit<'_>, node: Node) -> Made {
        self.expression(e, None, node)
    }

    /// An expression over the rows of a wide table's scope, over another table with the columns of the wide one.
    pub(super) fn over(&mut self, e: &mut Emit<'_>, wide: &Wide, table: Node, expression: Node) -> Made {
        self.expression(e, Some(Place { table, scope: &wide.scope }), expression)
    }

    fn expression(&mut self, e: &mut Emit<'_>, place: Option<Place<'_>>, root: Node) -> Made {
        let key = |node: Node| match place {
            Some(place) => (place.table, place.scope.id, node),
            None => (Node(u32::MAX), usize::MAX, node),
        };
        for node in on_the_way(e.graph, root) {
            if self.made.contains_key(&key(node)) {
                continue;
            }
            let made = match e.graph.op(node).clone() {
                Op::Column(name) => {
                    let table = e.graph.inputs(node)[0];
                    self.column_anywhere(e, place, table, &name)?
                }
                Op::RowNumber => {
                    let (table, scope) = self.place_of(e, place, e.graph.inputs(node)[0])?;
                    e.node(Op::Column(name_in(scope.id, ROW)), &[table])?
                }
                op => {
                    let inputs = e.graph.inputs(node).to_vec();
                    let moved: Vec<Node> =
                        inputs.iter().map(|n| self.made.get(&key(*n)).copied().unwrap_or(*n)).collect();
                    let op = self.operation(e, place, node, op)?;
                    if moved == inputs && op == *e.graph.op(node) { node } else { e.node(op, &moved)? }
                }
            };
            self.made.insert(key(node), made);
        }
        Ok(self.made[&key(root)])
    }

    /// The operation over the new rows.
    fn operation(&mut self, e: &mut Emit<'_>, place: Option<Place<'_>>, node: Node, op: Op) -> Result<Op, Error> {
        Ok(match op {
            Op::Reshape(dims) => Op::Reshape(self.dims(e, place, dims)?),
            Op::Broadcast(dims) => Op::Broadcast(self.dims(e, place, dims)?),
            op => {
                let read = op.region().into_iter().flat_map(|region| region.results.clone()).collect::<Vec<_>>();
                if read.into_iter().any(|n| reads_columns(e.graph, n)) {
                    return Err(Error::no_rule(e.graph, node, "its body reads columns of a table"));
                }
                op
            }
        })
    }

    fn dims(&mut self, e: &mut Emit<'_>, place: Option<Place<'_>>, dims: Vec<Dim>) -> Result<Vec<Dim>, Error> {
        let mut moved = vec![];
        for dim in dims {
            moved.push(match dim {
                Dim::Rows(node) => {
                    let (table, _) = self.place_of(e, place, node)?;
                    e.graph.ty(table).as_table().map_or(dim, |(_, rows)| rows.clone())
                }
                dim => dim,
            });
        }
        Ok(moved)
    }

    /// The table that has the rows of `table` now, and what they are made of.
    fn place_of(
        &mut self,
        e: &mut Emit<'_>,
        place: Option<Place<'_>>,
        table: Node,
    ) -> Result<(Node, Rc<Scope>), Error> {
        let made_by = maker(e.graph, table);
        if let Some(place) = place.filter(|place| place.scope.node == made_by) {
            return Ok((place.table, Rc::clone(place.scope)));
        }
        let wide = self.wide(e, made_by)?;
        Ok((wide.table, wide.scope))
    }

    fn column_anywhere(&mut self, e: &mut Emit<'_>, place: Option<Place<'_>>, table: Node, name: &str) -> Made {
        let (now, scope) = self.place_of(e, place, table)?;
        self.column(e, Place { table: now, scope: &scope }, table, name)
    }

    /// A column of a table, which is the scope's or a projection of it.
    fn column(&mut self, e: &mut Emit<'_>, place: Place<'_>, table: Node, name: &str) -> Made {
        let inputs = e.graph.inputs(table).to_vec();
        match e.graph.op(table).clone() {
            Op::Project { names } => {
                let at = names.iter().position(|n| n == name).unwrap_or(0);
                self.expression(e, Some(place), inputs[1 + at])
            }
            Op::Filter | Op::Sort(_) | Op::Limit { .. } => self.below(e, place, 0, inputs[0], name),
            Op::Join { kind, .. } => match e.graph.side_of(table, name) {
                Some(side) if side == inputs[0] => self.below(e, place, 0, side, name),
                Some(side) if kind == JoinKind::Left => self.of_partner(e, place, table, side, name),
                Some(side) => self.below(e, place, 1, side, name),
                None => self.leaf(e, place, table, name),
            },
            Op::Product => {
                let right = e.graph.side_of(table, name) == Some(inputs[1]);
                self.below(e, place, usize::from(right), inputs[usize::from(right)], name)
            }
            _ => self.leaf(e, place, table, name),
        }
    }

    fn below(&mut self, e: &mut Emit<'_>, place: Place<'_>, side: usize, table: Node, name: &str) -> Made {
        let scope = Rc::clone(&place.scope.below[side]);
        self.column(e, Place { table: place.table, scope: &scope }, table, name)
    }

    /// A column of the right side of a left join: NULL where there is no partner, whatever it is made of.
    fn of_partner(&mut self, e: &mut Emit<'_>, place: Place<'_>, join: Node, side: Node, name: &str) -> Made {
        let value = self.below(e, place, 1, side, name)?;
        if matches!(e.graph.op(value), Op::Column(_)) {
            return Ok(value);
        }
        let Op::Join { keys, .. } = *e.graph.op(join) else { return Ok(value) };
        let key = e.graph.inputs(join)[2 + keys];
        let scope = Rc::clone(&place.scope.below[1]);
        let key = self.expression(e, Some(Place { table: place.table, scope: &scope }), key)?;
        if !matches!(e.graph.op(key), Op::Column(_)) {
            let reason = format!("its column {name:?} is computed, and so is its right key");
            return Err(Error::no_rule(e.graph, join, reason));
        }
        // The key of a partner is not NULL.
        let alone = e.unary(UnaryOp::IsNull, key)?;
        let null = e.node(Op::Const(Literal::null(e.scalar(value))), &[])?;
        e.select(alone, null, value)
    }

    fn leaf(&mut self, e: &mut Emit<'_>, place: Place<'_>, base: Node, name: &str) -> Made {
        let scope = place.scope.id;
        let column = e.node(Op::Column(name_in(scope, name)), &[place.table])?;
        let leaf = Leaf { base, column: name.to_owned(), scope, table: place.table };
        self.leaves.insert(column, leaf);
        Ok(column)
    }

    /// The wide form of a table that makes rows.
    pub(super) fn wide(&mut self, e: &mut Emit<'_>, table: Node) -> Result<Wide, Error> {
        if let Some(wide) = self.wides.get(&table) {
            return Ok(wide.clone());
        }
        let first = std::mem::take(&mut self.scopes);
        let wide = self.build(e, table)?;
        // Names count up in each wide table, so that equal ones are one; numbers of scopes never repeat within one.
        self.scopes = self.scopes.max(first);
        self.wides.insert(table, wide.clone());
        Ok(wide)
    }

    fn scope(&mut self, node: Node, below: Vec<Rc<Scope>>) -> Rc<Scope> {
        self.scopes += 1;
        Rc::new(Scope { id: self.scopes - 1, node, below })
    }

    fn build(&mut self, e: &mut Emit<'_>, table: Node) -> Result<Wide, Error> {
        let table = maker(e.graph, table);
        let inputs = e.graph.inputs(table).to_vec();
        match e.graph.op(table).clone() {
            op @ (Op::Filter | Op::Sort(_) | Op::Limit { .. }) => {
                let input = self.build(e, inputs[0])?;
                let mut operands = vec![input.table];
                for &operand in &inputs[1..] {
                    operands.push(self.over(e, &input, input.table, operand)?);
                }
                let table_now = e.node(op, &operands)?;
                Ok(Wide { scope: self.scope(table, vec![input.scope]), table: table_now })
            }
            Op::Product => {
                let (left, right) = (self.build(e, inputs[0])?, self.build(e, inputs[1])?);
                let table_now = e.node(Op::Product, &[left.table, right.table])?;
                Ok(Wide { scope: self.scope(table, vec![left.scope, right.scope]), table: table_now })
            }
            Op::Join { kind, keys } => self.join(e, table, &inputs, kind, keys),
            _ => self.base(e, table),
        }
    }

    fn join(
        &mut self,
        e: &mut Emit<'_>,
        table: Node,
        inputs: &[Node],
        kind: JoinKind,
        keys: usize,
    ) -> Result<Wide, Error> {
        let (left, right) = (self.build(e, inputs[0])?, self.build(e, inputs[1])?);
        let scope = self.scope(table, vec![Rc::clone(&left.scope), Rc::clone(&right.scope)]);
        let mut operands = vec![left.table, right.table];
        for (i, &key) in inputs[2..2 + 2 * keys].iter().enumerate() {
            let side = if i < keys { &left } else { &right };
            operands.push(self.over(e, side, side.table, key)?);
        }
        if let Some(&residual) = inputs.get(2 + 2 * keys) {
            operands.push(self.residual(e, [&left, &right], residual)?);
        }
        let kind = match kind {
            JoinKind::Mark(mark) => JoinKind::Mark(name_in(scope.id, &mark)),
            kind => kind,
        };
        let table = e.node(Op::Join { kind, keys }, &operands)?;
        Ok(Wide { scope, table })
    }

    /// The condition on pairs, which is over the rows of their product.
    fn residual(&mut self, e: &mut Emit<'_>, sides: [&Wide; 2], residual: Node) -> Made {
        let Some(Dim::Rows(product)) = e.shape(residual).first().cloned() else { return Ok(residual) };
        let table = e.node(Op::Product, &sides.map(|side| side.table))?;
        let scope = self.scope(product, sides.map(|side| Rc::clone(&side.scope)).to_vec());
        self.expression(e, Some(Place { table, scope: &scope }), residual)
    }

    /// A base table with names of its own.
    fn base(&mut self, e: &mut Emit<'_>, table: Node) -> Result<Wide, Error> {
        let scope = self.scope(table, vec![]);
        let fields = e.graph.ty(table).as_table().map(|(fields, _)| fields.to_vec()).unwrap_or_default();
        let (mut names, mut operands) = (vec![], vec![table]);
        for field in fields {
            operands.push(e.node(Op::Column(field.name.clone()), &[table])?);
            names.push(name_in(scope.id, &field.name));
        }
        if matches!(e.graph.op(table), Op::Scan { .. }) {
            operands.push(e.node(Op::RowNumber, &[table])?);
            names.push(name_in(scope.id, ROW));
        }
        let table = e.node(Op::Project { names }, &operands)?;
        Ok(Wide { scope, table })
    }
}

/// The column of a wide table with the row's number in the stored table; no column of its own has an empty name.
pub(super) const ROW: &str = "";

/// The nodes that an expression is made of, up to columns, inputs before users.
fn on_the_way(graph: &Graph, root: Node) -> BTreeSet<Node> {
    let mut nodes = BTreeSet::new();
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        let is_tensor = graph.ty(node).as_table().is_none();
        if is_tensor && nodes.insert(node) && !matches!(graph.op(node), Op::Column(_)) {
            stack.extend(graph.inputs(node));
        }
    }
    nodes
}

fn reads_columns(graph: &Graph, root: Node) -> bool {
    on_the_way(graph, root).into_iter().any(|n| matches!(graph.op(n), Op::Column(_)))
}
