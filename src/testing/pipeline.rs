//! Random pipelines: filters, projections, joins, aggregates, sorts, limits, and models applied to rows.

use super::maker::{Class, Col, Maker, Rel};
use quearn_stage::graph::{
    Aggregate, AggregateOp, BinaryOp, CompareOp, Dim, Forest, JoinKind, Node, Op, ReduceOp, Scalar, SortKey, Split,
    Step, TreeWriter, Ty, UnaryOp,
};

impl Maker {
    /// A table from a random pipeline, and whether its rows are in one order only.
    pub fn pipeline(&mut self) -> (Rel, bool) {
        let mut rel = self.table();
        let mut joins = 0;
        for _ in 0..self.rng.below(self.size.clamp(2, 6)) + 1 {
            rel = match self.rng.below(12) {
                0..3 => self.filter(rel),
                3..5 => self.project(rel),
                // Each join may multiply the rows.
                5..8 if joins < 2 => {
                    joins += 1;
                    self.join(rel)
                }
                8 | 9 => self.bridge(rel),
                10 => self.aggregate(rel),
                11 if self.rng.percent(50) => self.top(rel),
                11 => self.union(rel),
                _ => self.filter(rel),
            };
        }
        match self.rng.below(4) {
            0 => (self.aggregate(rel), false),
            1 => (self.top(rel), true),
            _ => (rel, false),
        }
    }

    /// Rows that satisfy a random predicate.
    pub fn filter(&mut self, rel: Rel) -> Rel {
        let mut pred = self.expr(&rel, Class::Bool, 3, true);
        if self.rng.percent(60) {
            // Two chances: a pipeline whose filters leave nothing shows little.
            let other = self.expr(&rel, Class::Bool, 2, true);
            pred = self.add(Op::Binary(BinaryOp::Or), &[pred, other]);
        }
        Rel { node: self.add(Op::Filter, &[rel.node, pred]), columns: rel.columns }
    }

    /// Some rows, and some again.
    fn union(&mut self, rel: Rel) -> Rel {
        let names = rel.columns.iter().map(|col| col.name.clone()).collect();
        let parts = [self.filter(rel.clone()), self.filter(rel)];
        let node = self.add(Op::Union { names }, &[parts[0].node, parts[1].node]);
        let [Rel { columns, .. }, _] = parts;
        Rel { node, columns }
    }

    /// Expressions under names; the columns are theirs.
    pub fn project_as(&mut self, rel: &Rel, columns: Vec<(String, Node, bool)>) -> Rel {
        let inputs: Vec<Node> = std::iter::once(rel.node).chain(columns.iter().map(|c| c.1)).collect();
        let names = columns.iter().map(|c| c.0.clone()).collect();
        let node = self.add(Op::Project { names }, &inputs);
        let col = |(name, node, exact): (String, Node, bool)| Col { name, elem: self.elem(node), exact };
        Rel { node, columns: columns.into_iter().map(col).collect() }
    }

    /// Some of the columns as they are, and some expressions.
    fn project(&mut self, rel: Rel) -> Rel {
        let mut columns = vec![];
        for col in &rel.columns {
            if self.rng.percent(70) {
                let node = self.column(&rel, col);
                columns.push((col.name.clone(), node, col.exact));
            }
        }
        for _ in 0..self.rng.below(3) + 1 {
            let class = self.class_in(&rel);
            let exact = class != Class::Float || self.rng.percent(50);
            let node = self.expr(&rel, class, 4, exact);
            columns.push((self.name("e"), node, exact));
        }
        self.project_as(&rel, columns)
    }

    /// The same rows with every column under a new name.
    fn renamed(&mut self, rel: &Rel) -> Rel {
        let mut columns = vec![];
        for col in &rel.columns {
            let node = self.column(rel, col);
            columns.push((self.name("r"), node, col.exact));
        }
        self.project_as(rel, columns)
    }

    /// Joined with another table, or with itself.
    pub fn join(&mut self, left: Rel) -> Rel {
        let mut right = if self.rng.percent(15) { self.renamed(&left) } else { self.table() };
        if self.rng.percent(40) {
            right = self.filter(right);
        }
        if self.rng.percent(10) {
            right = self.bridge(right);
        }
        let kind = match self.rng.percent(20) {
            true => JoinKind::Mark(self.name("x")),
            false => self.rng.pick(JoinKind::UNNAMED).clone(),
        };
        if self.rng.percent(20)
            && let Some(joined) = self.join_by_name(&left, &right, &kind)
        {
            return joined;
        }
        let keys = 1 + usize::from(self.rng.percent(25));
        let (mut left_keys, mut right_keys) = (vec![], vec![]);
        for _ in 0..keys {
            let class = self.shared_class(&left, &right);
            let depth = usize::from(self.rng.percent(15));
            left_keys.push(self.key(&left, class, depth));
            right_keys.push(self.key(&right, class, depth));
        }
        let mut inputs = vec![left.node, right.node];
        inputs.extend(left_keys.into_iter().chain(right_keys));
        if self.rng.percent(35) {
            inputs.push(self.residual(&left, &right));
        }
        let node = self.add(Op::Join { kind: kind.clone(), keys }, &inputs);
        self.joined_columns(node, &kind, left, right)
    }

    /// A join key: a column, if there is one of the class, or an expression.
    fn key(&mut self, rel: &Rel, class: Class, depth: usize) -> Node {
        let fits = |c: &&Col| c.exact && Class::of(c.elem.scalar) == class;
        let columns: Vec<&Col> = rel.columns.iter().filter(fits).collect();
        if depth > 0 || columns.is_empty() {
            return self.expr(rel, class, depth, true);
        }
        let column = *self.rng.pick(&columns);
        self.column(rel, column)
    }

    /// Joined on a key that has one name on both sides, so that it comes out once.
    fn join_by_name(&mut self, left: &Rel, right: &Rel, kind: &JoinKind) -> Option<Rel> {
        let integer = |col: &&Col| col.elem.scalar == Scalar::I32 && col.exact;
        let key = left.columns.iter().find(integer)?.clone();
        let other = right.columns.iter().find(integer)?.clone();
        if right.columns.iter().any(|c| c.name == key.name) {
            return None;
        }
        let mut columns = vec![];
        for col in &right.columns {
            let node = self.column(right, col);
            let name = if col.name == other.name { &key.name } else { &col.name };
            columns.push((name.clone(), node, col.exact));
        }
        let mut right = self.project_as(right, columns);
        let keys = [self.column(left, &key), self.column(&right, &key)];
        let node = self.add(Op::Join { kind: kind.clone(), keys: 1 }, &[left.node, right.node, keys[0], keys[1]]);
        right.columns.retain(|c| c.name != key.name);
        Some(self.joined_columns(node, kind, left.clone(), right))
    }

    fn joined_columns(&self, node: Node, kind: &JoinKind, left: Rel, mut right: Rel) -> Rel {
        right.columns.iter_mut().for_each(|c| c.elem.nullable |= *kind == JoinKind::Left);
        if kind.is_one_sided() {
            right.columns.clear();
        }
        if let JoinKind::Mark(name) = kind {
            right.columns.push(Col { name: name.clone(), elem: Scalar::Bool.required(), exact: true });
        }
        Rel { node, columns: left.columns.into_iter().chain(right.columns).collect() }
    }

    /// A class of which both sides have a column that can be a key.
    fn shared_class(&mut self, left: &Rel, right: &Rel) -> Class {
        let has = |rel: &Rel, class| rel.columns.iter().any(|c| c.exact && Class::of(c.elem.scalar) == class);
        let both = |class: &Class| *class != Class::Bool && has(left, *class) && has(right, *class);
        let shared: Vec<Class> = Class::ORDERED.into_iter().filter(both).collect();
        if shared.is_empty() || self.rng.percent(40) { Class::Int } else { *self.rng.pick(&shared) }
    }

    fn residual(&mut self, left: &Rel, right: &Rel) -> Node {
        let product = self.add(Op::Product, &[left.node, right.node]);
        let columns = left.columns.iter().chain(&right.columns).cloned().collect();
        self.expr(&Rel { node: product, columns }, Class::Bool, 2, true)
    }

    /// Groups by some keys, or by none.
    pub fn aggregate(&mut self, rel: Rel) -> Rel {
        let (mut keys, mut inputs, mut columns) = (vec![], vec![rel.node], vec![]);
        for _ in 0..self.rng.below(3) {
            let class = self.class_in(&rel);
            let depth = usize::from(self.rng.percent(30));
            let key = self.expr(&rel, class, depth, true);
            let name = self.name("k");
            columns.push(Col { name: name.clone(), elem: self.elem(key), exact: true });
            keys.push(name);
            inputs.push(key);
        }
        let mut aggregates = vec![];
        let class = self.class_in(&rel);
        let distinct = if self.rng.percent(20) { Some(self.expr(&rel, class, 2, true)) } else { None };
        for _ in 0..self.rng.below(3) + 1 {
            let (op, argument, exact) = match distinct {
                Some(value) if self.rng.percent(50) => (AggregateOp::CountDistinct, Some(value), true),
                _ => self.fold(&rel, distinct.is_some()),
            };
            inputs.extend(argument);
            let name = self.name("a");
            columns.push(Col { name: name.clone(), elem: Scalar::I64.required(), exact });
            aggregates.push(Aggregate { name, op });
        }
        let node = self.add(Op::Aggregate { keys, aggregates }, &inputs);
        let (fields, _) = self.graph.ty(node).as_table().expect("an aggregate");
        columns.iter_mut().zip(fields).for_each(|(col, field)| col.elem = field.elem);
        Rel { node, columns }
    }

    /// An aggregate with its argument, and whether the result is exact. Where it is folded in parts, no part overflows.
    fn fold(&mut self, rel: &Rel, in_parts: bool) -> (AggregateOp, Option<Node>, bool) {
        use AggregateOp::*;
        let op = *self.rng.pick(&[Sum, Sum, Min, Max, Avg, Count, CountRows]);
        let class = match op {
            CountRows => return (op, None, true),
            Sum if in_parts => Class::Float,
            Avg if in_parts => *self.rng.pick(&[Class::Int, Class::Float]),
            Sum | Avg => *self.rng.pick(&[Class::Int, Class::Decimal, Class::Float]),
            _ => *self.rng.pick(&Class::ORDERED[1..]),
        };
        let extreme = matches!(op, Min | Max);
        let argument = self.expr(rel, class, 2, extreme);
        let inexact = op == Avg || (op == Sum && class == Class::Float);
        (op, Some(argument), !inexact)
    }

    /// The first rows in the order of all columns, so that rows that tie are equal.
    pub fn top(&mut self, rel: Rel) -> Rel {
        let mut columns = vec![];
        for col in &rel.columns {
            if col.exact && col.elem.scalar != Scalar::Interval {
                let node = self.column(&rel, col);
                columns.push((col.name.clone(), node, true));
            }
        }
        if columns.is_empty() {
            let one = self.expr(&rel, Class::Int, 0, true);
            columns.push((self.name("e"), one, true));
        }
        let rel = self.project_as(&rel, columns);
        let (mut keys, mut inputs) = (vec![], vec![rel.node]);
        for col in &rel.columns {
            keys.push(SortKey { descending: self.rng.percent(50), nulls_first: self.rng.percent(50) });
            inputs.push(self.column(&rel, col));
        }
        let mut node = self.add(Op::Sort(keys), &inputs);
        if self.rng.percent(70) {
            let offset = if self.rng.percent(30) { self.rng.below(4) as u64 } else { 0 };
            let count = if self.rng.percent(5) { 0 } else { self.rng.below(2 * self.size) as u64 + 1 };
            node = self.add(Op::Limit { offset, count }, &[node]);
        }
        Rel { node, columns: rel.columns }
    }

    /// A small model on the float columns: its result becomes one more column.
    pub fn bridge(&mut self, rel: Rel) -> Rel {
        let features = self.rng.below(3) + 1;
        let columns: Vec<Node> = (0..features).map(|_| self.feature(&rel)).collect();
        let stacked = self.add(Op::Stack, &columns);
        let trees = self.rng.percent(25);
        let units = if trees && self.rng.percent(50) { 1 } else { self.rng.below(3) + 1 };
        let mut scores = match trees {
            true => self.trees(stacked, features, units),
            false => {
                let weights = self.tensor(&[features, units], true);
                self.add(Op::MatMul, &[stacked, weights])
            }
        };
        if !trees && self.rng.percent(60) {
            let bias = self.tensor(&[units], true);
            scores = self.add(Op::Binary(BinaryOp::Add), &[scores, bias]);
        }
        if self.rng.percent(40) {
            scores = self.add(Op::Unary(UnaryOp::Relu), &[scores]);
        }
        let exact = self.rng.percent(70);
        if !exact {
            scores = self.add(Op::Unary(UnaryOp::Sigmoid), &[scores]);
        }
        let result = self.one_per_row(scores, units, exact);
        let mut columns = vec![];
        for col in &rel.columns {
            let node = self.column(&rel, col);
            columns.push((col.name.clone(), node, col.exact));
        }
        columns.push((self.name("m"), result, exact));
        let scored = self.project_as(&rel, columns);
        if exact && self.rng.percent(50) { self.above(scored) } else { scored }
    }

    /// The rows whose last column, the score of a model, is on one side of a number.
    fn above(&mut self, rel: Rel) -> Rel {
        let Some(score) = rel.columns.last().cloned() else { return rel };
        let score = self.column(&rel, &score);
        let limit = self.rng.dyadic();
        let limit = self.float(Scalar::F32, limit);
        let op = *self.rng.pick(&[CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge]);
        let pred = self.add(Op::Compare(op), &[score, limit]);
        Rel { node: self.add(Op::Filter, &[rel.node, pred]), columns: rel.columns }
    }

    /// Trees on features; sums of their leaves are exact.
    fn trees(&mut self, features: Node, columns: usize, outputs: usize) -> Node {
        let base: Vec<f32> = (0..outputs).map(|_| self.rng.dyadic() as f32).collect();
        let mut forest = Forest::new(columns as u32, base);
        // Many small ones now and then, of which some need not be asked.
        let trees = if self.rng.percent(50) { 16 + self.rng.below(16) } else { self.rng.below(6) };
        for _ in 0..trees {
            let mut writer = TreeWriter::default();
            let most = *self.rng.pick(&[3, 10, 70]);
            for _ in 0..self.rng.below(most) {
                let split = Split::new(self.rng.below(columns) as u32, self.rng.dyadic() as f32);
                writer.push(Step::Split(Split { nan_left: self.rng.percent(20), ..split }));
                if self.rng.percent(50) {
                    writer.push(Step::Leaf(self.rng.dyadic() as f32));
                }
            }
            while !writer.is_complete() {
                writer.push(Step::Leaf(self.rng.dyadic() as f32));
            }
            let output = self.rng.below(outputs) as u32;
            forest.trees.extend(writer.finish(output));
        }
        self.add(Op::TreeEnsemble(forest.into()), &[features])
    }

    /// A float of each row that is never NULL and is the same in every correct program.
    fn feature(&mut self, rel: &Rel) -> Node {
        let floats = |c: &&Col| c.exact && Class::of(c.elem.scalar) == Class::Float;
        let found: Vec<Col> = rel.columns.iter().filter(floats).cloned().collect();
        let value = match found.is_empty() {
            true => self.float(Scalar::F32, 1.0),
            false => {
                let col = self.rng.pick(&found).clone();
                self.column(rel, &col)
            }
        };
        let value = self.add(Op::Cast(Scalar::F32), &[value]);
        let zero = self.float(Scalar::F32, 0.0);
        let value = self.add(Op::Binary(BinaryOp::Coalesce), &[value, zero]);
        self.over_rows(rel, value)
    }

    /// A scalar becomes a column of the table: stacked tensors must have one shape.
    fn over_rows(&mut self, rel: &Rel, value: Node) -> Node {
        let scalar = matches!(self.graph.ty(value), Ty::Tensor { shape, .. } if shape.is_empty());
        if !scalar {
            return value;
        }
        let name = self.name("s");
        let rel = self.project_as(rel, vec![(name, value, true)]);
        let col = rel.columns[0].clone();
        self.column(&rel, &col)
    }

    /// One number of the `units` in each row.
    fn one_per_row(&mut self, scores: Node, units: usize, exact: bool) -> Node {
        let (_, shape) = self.graph.ty(scores).as_tensor().expect("scores");
        let rows: Dim = shape[0].clone();
        match self.rng.below(3) {
            0 if exact => self.add(Op::ArgMax { axis: 1 }, &[scores]),
            1 if units == 1 => self.add(Op::Reshape(vec![rows]), &[scores]),
            _ => {
                let op = *self.rng.pick(&[ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min]);
                self.add(Op::Reduce { op, axes: vec![1], keep: false }, &[scores])
            }
        }
    }
}
