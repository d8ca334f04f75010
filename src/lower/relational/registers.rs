//! Expressions over the rows of a stored table by vectors, a register of rows at a time: arithmetic and elementary functions
//! of floats, comparisons and choices among them. Every operation on the way has a vector form, and none can fail or give
//! NULL, so that it does no harm to evaluate them on rows that are dropped.
//!
//! Where a pipeline goes on row by row, costly expressions are evaluated for a block of rows before, into a buffer in the
//! first-level cache, from which each row takes its own ("relaxed operator fusion": Menon et al., VLDB 2017).

use super::env::Env;
use super::expr::{arith, elem_of};
use super::scan::{self, LaneForm};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::tensor::math;
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op, Scalar, UnaryOp, infer};
use quearn_stage::low::{Builder, CastOp, Prim, Ty, UnOp, V};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Rows evaluated together.
pub const LANES: u16 = 16;
/// Operations from which on an expression is worth a buffer.
const COSTLY: u32 = 8;

/// What a lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A float of that type.
    Float(Prim),
    /// A truth value.
    Bool,
    /// The integer, as an `i32`, that stands for a value of that type.
    Int(Scalar),
}

/// What can be evaluated on the rows of a scan.
pub struct Registers<'x, 'g> {
    cx: &'x Cx<'g>,
    scan: Node,
    forms: RefCell<HashMap<Node, Option<Form>>>,
    classes: RefCell<HashMap<Node, u32>>,
    known: RefCell<HashMap<(Op, Vec<u32>), u32>>,
}

/// Where a column comes from, below filters and projections.
#[derive(Clone, Copy)]
pub enum Origin<'g> {
    /// A column of the scan.
    Stored(&'g str),
    /// An expression over its rows.
    Expression(Node),
}

/// The expression that a column of `table` is made by, below filters and projections; `None` if it is read from memory.
pub fn expression_of(cx: &Cx<'_>, table: Node, name: &str) -> Option<Node> {
    let (mut table, mut name) = (table, name.to_owned());
    loop {
        let inputs = cx.graph.inputs(table);
        match cx.graph.op(table) {
            Op::Filter => table = inputs[0],
            Op::Project { names } => {
                let node = inputs[1 + names.iter().position(|n| *n == name)?];
                let Op::Column(inner) = cx.graph.op(node) else { return Some(node) };
                (table, name) = (cx.graph.inputs(node)[0], inner.clone());
            }
            _ => return None,
        }
    }
}

fn operands_of(op: &Op) -> usize {
    match op {
        Op::Unary(_) | Op::Cast(_) => 1,
        Op::Binary(_) | Op::Compare(_) => 2,
        Op::Select | Op::If => 3,
        _ => 0,
    }
}

fn is_float(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::F32 | Scalar::F64)
}

fn prim_of(scalar: Scalar) -> Option<Prim> {
    match scalar {
        Scalar::F32 => Some(Prim::F32),
        Scalar::F64 => Some(Prim::F64),
        _ => None,
    }
}

/// Does it become a float as it is, or divided by a power of ten?
fn is_number(scalar: Scalar) -> bool {
    is_float(scalar) || scalar.is_int() || matches!(scalar, Scalar::Decimal { .. })
}

impl<'x, 'g> Registers<'x, 'g> {
    /// Those of a scan.
    pub fn new(cx: &'x Cx<'g>, scan: Node) -> Registers<'x, 'g> {
        Registers { cx, scan, forms: RefCell::default(), classes: RefCell::default(), known: RefCell::default() }
    }

    fn origin(&self, leaf: Node) -> Option<Origin<'g>> {
        let Op::Column(name) = self.cx.graph.op(leaf) else { return None };
        self.origin_of(self.cx.graph.inputs(leaf)[0], name)
    }

    /// Where a column of `table` comes from; `None` if its rows are not those of the scan.
    pub fn origin_of(&self, mut table: Node, mut name: &'g str) -> Option<Origin<'g>> {
        let graph = self.cx.graph;
        loop {
            let inputs = graph.inputs(table);
            match graph.op(table) {
                Op::Scan { .. } => return (table == self.scan).then_some(Origin::Stored(name)),
                Op::Filter => table = inputs[0],
                Op::Project { names } => {
                    let node = inputs[1 + names.iter().position(|n| n == name)?];
                    let Op::Column(inner) = graph.op(node) else { return Some(Origin::Expression(node)) };
                    (table, name) = (graph.inputs(node)[0], inner);
                }
                _ => return None,
            }
        }
    }

    fn scalar(&self, node: Node) -> Option<Scalar> {
        elem_of(self.cx, node).ok().map(|elem| elem.scalar)
    }

    /// What a register holds of an expression; `None` if it cannot be evaluated by vectors.
    pub fn form(&self, node: Node) -> Option<Form> {
        if let Some(known) = self.forms.borrow().get(&node) {
            return *known;
        }
        let form = self.find_form(node);
        self.forms.borrow_mut().insert(node, form);
        form
    }

    fn find_form(&self, node: Node) -> Option<Form> {
        let scalar = self.scalar(node)?;
        let (op, inputs) = (self.cx.graph.op(node), self.cx.graph.inputs(node));
        let float = || prim_of(scalar).map(Form::Float);
        let number = |&input: &Node| match self.form(input)? {
            Form::Bool => None,
            form => is_number(self.scalar(input)?).then_some(form),
        };
        let condition = |input: Node| (self.form(input)? == Form::Bool).then_some(());
        match op {
            Op::Const(literal) if is_float(scalar) => literal.as_float().and_then(|_| float()),
            Op::Const(literal) if scalar.is_int() || matches!(scalar, Scalar::Decimal { .. }) => {
                i32::try_from(literal.as_int()?).ok().map(|_| Form::Int(scalar))
            }
            Op::Column(_) => match self.origin(node)? {
                Origin::Expression(expression) => self.form(expression),
                Origin::Stored(name) => self.stored_form(name, scalar),
            },
            Op::Unary(UnaryOp::Not) => condition(inputs[0]).map(|()| Form::Bool),
            Op::Unary(op) => has_vectors(*op).then(float)?.filter(|_| number(&inputs[0]).is_some()),
            Op::Binary(BinaryOp::And | BinaryOp::Or) => {
                condition(inputs[0])?;
                condition(inputs[1]).map(|()| Form::Bool)
            }
            Op::Binary(op) => {
                let plain = matches!(
                    op,
                    BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Min | BinaryOp::Max
                );
                // Of two decimals a quotient fails where the divisor is zero.
                let one_float = inputs.iter().any(|&i| self.scalar(i).is_some_and(is_float));
                let all = inputs.iter().all(|i| number(i).is_some());
                (plain && one_float && all).then(float)?
            }
            Op::Compare(_) if self.cx.parameters.side(node).is_none() => {
                inputs.iter().try_for_each(|i| number(i).map(|_| ()))?;
                self.meet(node).map(|_| Form::Bool)
            }
            Op::Select | Op::If => {
                condition(inputs[0])?;
                number(&inputs[1])?;
                number(&inputs[2])?;
                float()
            }
            Op::Cast(_) => {
                let from = self.form(inputs[0])?;
                let numeric = from == Form::Bool || is_number(self.scalar(inputs[0])?);
                numeric.then(float)?
            }
            _ => None,
        }
    }

    /// What a register holds of a column of the scan.
    pub fn stored_form(&self, name: &str, scalar: Scalar) -> Option<Form> {
        match scan::lane_form(self.cx, self.scan, name)? {
            LaneForm::Int => Some(Form::Int(scalar)),
            LaneForm::Float(prim) => (prim_of(scalar) == Some(prim)).then_some(Form::Float(prim)),
            LaneForm::Codes(_) => None,
        }
    }

    /// The float type in which the operands of a comparison meet.
    fn meet(&self, node: Node) -> Option<Prim> {
        let inputs = self.cx.graph.inputs(node);
        let (a, b) = (self.scalar(inputs[0])?, self.scalar(inputs[1])?);
        prim_of(infer::promote(a, b)?)
    }

    /// What an expression is made of, itself among it; columns that are expressions are followed to these.
    fn parts(&self, whole: Node) -> Vec<Node> {
        let (mut parts, mut seen, mut stack) = (vec![], HashSet::new(), vec![whole]);
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            parts.push(node);
            match self.origin(node) {
                Some(Origin::Expression(expression)) => stack.push(expression),
                _ => stack.extend(&self.cx.graph.inputs(node)[..operands_of(self.cx.graph.op(node))]),
            }
        }
        parts
    }

    /// About how many operations of a register an expression is.
    fn cost(&self, node: Node) -> u32 {
        use UnaryOp::*;
        let cost = |part: &Node| match self.cx.graph.op(*part) {
            Op::Unary(Exp | Log | Tanh | Sigmoid | Erf | Sin | Cos | Atan) => 10,
            Op::Unary(Sqrt) | Op::Binary(BinaryOp::Div) => 3,
            Op::Const(_) | Op::Column(_) => 0,
            _ => 1,
        };
        self.parts(node).iter().map(cost).sum()
    }

    /// The costly parts of expressions that vectors can evaluate, as large as can be.
    pub fn costly(&self, expressions: &[Node]) -> Vec<(Node, Prim)> {
        let (mut found, mut seen, mut stack) = (vec![], HashSet::new(), expressions.to_vec());
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            let op = self.cx.graph.op(node);
            match (op, self.origin(node)) {
                (_, Some(Origin::Expression(expression))) => stack.push(expression),
                (Op::Column(_), _) => {}
                _ => match self.form(node) {
                    Some(Form::Float(prim)) if self.cost(node) >= COSTLY => found.push((node, prim)),
                    _ => stack.extend(&self.cx.graph.inputs(node)[..operands_of(op)]),
                },
            }
        }
        found.sort();
        found
    }

    /// A number that expressions with the same values have in common.
    fn class(&self, node: Node) -> u32 {
        if let Some(&class) = self.classes.borrow().get(&node) {
            return class;
        }
        let op = self.cx.graph.op(node);
        let class = match self.origin(node) {
            Some(Origin::Expression(expression)) => self.class(expression),
            Some(Origin::Stored(name)) => self.number(Op::Column(name.to_owned()), vec![]),
            None => {
                let inputs = &self.cx.graph.inputs(node)[..operands_of(op)];
                self.number(op.clone(), inputs.iter().map(|&i| self.class(i)).collect())
            }
        };
        self.classes.borrow_mut().insert(node, class);
        class
    }

    fn number(&self, op: Op, inputs: Vec<u32>) -> u32 {
        let mut known = self.known.borrow_mut();
        let next = known.len() as u32;
        *known.entry((op, inputs)).or_insert(next)
    }

    /// Is `part` computed on the way to `whole`?
    pub fn holds(&self, whole: Node, part: Node) -> bool {
        let class = self.class(part);
        self.parts(whole).into_iter().any(|node| self.class(node) == class)
    }

    /// Can all columns that an expression reads be gathered from rows that do not follow one another?
    pub fn can_gather(&self, node: Node) -> bool {
        self.parts(node).into_iter().all(|part| match self.origin(part) {
            Some(Origin::Stored(name)) => scan::can_gather(self.cx, self.scan, name),
            _ => true,
        })
    }

    /// A column on some rows.
    pub fn source<'b>(&self, env: &Env<'b>, rows: &Rows<'b>, source: Origin<'_>) -> Result<V<'b>> {
        match source {
            Origin::Stored(name) => rows.column(self.cx, env, self.scan, name),
            Origin::Expression(node) => self.eval(env, rows, node),
        }
    }

    /// The expression on some rows.
    pub fn eval<'b>(&self, env: &Env<'b>, rows: &Rows<'b>, node: Node) -> Result<V<'b>> {
        Eval { of: self, env, rows, memo: RefCell::default() }.value(node)
    }
}

/// Operations of one float that have a vector form.
fn has_vectors(op: UnaryOp) -> bool {
    use UnaryOp::*;
    matches!(op, Neg | Abs | Exp | Log | Sqrt | Tanh | Sigmoid | Relu | Erf | Sin | Cos | Floor | Ceil | Round | Atan)
}

/// The rows in the lanes of a register.
pub enum Rows<'b> {
    /// Those from `row` on, where `mask` is true.
    Following {
        /// First row, `i64`.
        row: V<'b>,
        /// Which lanes have a row.
        mask: V<'b>,
    },
    /// Rows `base + positions`, where `mask` is true.
    Picked {
        /// Start of the block, `i64`.
        base: V<'b>,
        /// Distances from there, `i32`.
        positions: V<'b>,
        /// Which lanes have a row.
        mask: V<'b>,
    },
}

impl<'b> Rows<'b> {
    fn column(&self, cx: &Cx<'_>, env: &Env<'b>, scan: Node, name: &str) -> Result<V<'b>> {
        match *self {
            Rows::Following { row, mask } => scan::load_lanes(cx, env, scan, name, row, mask),
            Rows::Picked { base, positions, mask } => scan::gather_lanes(cx, env, scan, name, (base, positions), mask),
        }
    }
}

struct Eval<'a, 'x, 'g, 'b> {
    of: &'a Registers<'x, 'g>,
    env: &'a Env<'b>,
    rows: &'a Rows<'b>,
    memo: RefCell<HashMap<Node, V<'b>>>,
}

impl<'b> Eval<'_, '_, '_, 'b> {
    fn b(&self) -> &'b Builder {
        self.env.b
    }

    fn value(&self, node: Node) -> Result<V<'b>> {
        if let Some(known) = self.memo.borrow().get(&node) {
            return Ok(*known);
        }
        let value = self.compute(node)?;
        self.memo.borrow_mut().insert(node, value);
        Ok(value)
    }

    fn compute(&self, node: Node) -> Result<V<'b>> {
        let cx = self.of.cx;
        let missing = || LowerError::Internal { node: cx.describe(node), what: "not for vectors".into() };
        let form = self.of.form(node).ok_or_else(missing)?;
        let prim = match form {
            Form::Float(prim) => prim,
            Form::Bool => Prim::Bool,
            Form::Int(_) => Prim::I32,
        };
        let ty = Ty::vector(prim, LANES);
        let inputs = cx.graph.inputs(node);
        match cx.graph.op(node) {
            Op::Const(literal) => match form {
                Form::Int(_) => Ok(self.b().int(ty, literal.as_int().ok_or_else(missing)?)),
                _ => Ok(self.b().float(ty, literal.as_float().ok_or_else(missing)?)),
            },
            Op::Column(_) => match self.of.origin(node).ok_or_else(missing)? {
                Origin::Expression(expression) => self.value(expression),
                Origin::Stored(name) => self.rows.column(cx, self.env, self.of.scan, name),
            },
            Op::Unary(UnaryOp::Not) => Ok(!self.value(inputs[0])?),
            Op::Unary(op) => Ok(unary(*op, self.float(inputs[0], prim)?)),
            Op::Binary(BinaryOp::And) => Ok(self.value(inputs[0])? & self.value(inputs[1])?),
            Op::Binary(BinaryOp::Or) => Ok(self.value(inputs[0])? | self.value(inputs[1])?),
            Op::Binary(op) => Ok(arith::machine(*op, self.float(inputs[0], prim)?, self.float(inputs[1], prim)?)),
            Op::Compare(op) => {
                let prim = self.of.meet(node).ok_or_else(missing)?;
                Ok(compare(*op, self.float(inputs[0], prim)?, self.float(inputs[1], prim)?))
            }
            Op::Select | Op::If => {
                let (a, b) = (self.float(inputs[1], prim)?, self.float(inputs[2], prim)?);
                Ok(self.value(inputs[0])?.select(a, b))
            }
            Op::Cast(_) => self.float(inputs[0], prim),
            _ => Err(missing()),
        }
    }

    /// A number or truth value as a float, as the row by row conversions have it.
    fn float(&self, node: Node, prim: Prim) -> Result<V<'b>> {
        let v = self.value(node)?;
        Ok(match self.of.form(node) {
            Some(Form::Bool) => v.cast(CastOp::UiToFp, prim),
            Some(Form::Int(Scalar::Decimal { scale, .. })) => {
                let whole = v.cast(CastOp::SiToFp, Prim::F64);
                let value = if scale == 0 { whole } else { whole / math::like(whole, 10f64.powi(scale.into())) };
                as_float(value, prim)
            }
            Some(Form::Int(_)) => v.cast(CastOp::SiToFp, prim),
            _ => as_float(v, prim),
        })
    }
}

fn as_float(v: V<'_>, prim: Prim) -> V<'_> {
    match v.ty().prim {
        own if own == prim => v,
        own if own.bytes() > prim.bytes() => v.cast(CastOp::FpTrunc, prim),
        _ => v.cast(CastOp::FpExt, prim),
    }
}

fn unary(op: UnaryOp, x: V<'_>) -> V<'_> {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.un(UnOp::Abs),
        UnaryOp::Exp => math::exp(x),
        UnaryOp::Log => math::log(x),
        UnaryOp::Sqrt => x.un(UnOp::Sqrt),
        UnaryOp::Tanh => math::tanh(x),
        UnaryOp::Sigmoid => math::sigmoid(x),
        // The comparison is false for NaN, which stays.
        UnaryOp::Relu => x.lt(math::like(x, 0.0)).select(math::like(x, 0.0), x),
        UnaryOp::Erf => math::erf(x),
        UnaryOp::Sin => math::sin(x),
        UnaryOp::Cos => math::cos(x),
        UnaryOp::Floor => x.un(UnOp::Floor),
        UnaryOp::Ceil => x.un(UnOp::Ceil),
        UnaryOp::Atan => math::atan(x),
        _ => x.un(UnOp::Round),
    }
}

fn compare<'b>(op: CompareOp, x: V<'b>, y: V<'b>) -> V<'b> {
    x.cmp(super::expr::compare::machine(op), y)
}
