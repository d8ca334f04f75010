//! The vocabulary of the graph: every operation with its meaning and its type rule in a sentence or two.
//!
//! An [`Op`] holds attributes only; operands are the node's inputs, in the order that each variant states. "Rows of
//! `t`" below is the row dimension of table `t`; a *row expression* of `t` is a tensor whose only dimension is the
//! rows of `t`, or a scalar. Elementwise operations broadcast as NumPy does (trailing dimensions aligned) and give
//! NULL where an operand is NULL unless they say otherwise.

use super::Node;
use super::foreign::Signature;
use super::forest::Forest;
use super::literal::Literal;
use super::ty::{Dim, Field, Scalar, Ty};
use std::sync::Arc;

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every kind.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name used in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// Elementwise operations of one operand.
    UnaryOp {
        /// Negation; integer and decimal overflow is an error.
        Neg = "neg",
        /// Absolute value; integer overflow is an error.
        Abs = "abs",
        /// Three-valued NOT of a bool.
        Not = "not",
        /// Is the value NULL? Never NULL itself.
        IsNull = "is_null",
        /// Float e^x.
        Exp = "exp",
        /// Float natural logarithm.
        Log = "log",
        /// Float square root.
        Sqrt = "sqrt",
        /// Float hyperbolic tangent.
        Tanh = "tanh",
        /// Float 1 / (1 + e^-x).
        Sigmoid = "sigmoid",
        /// max(x, 0) of a number; NaN stays NaN.
        Relu = "relu",
        /// Float error function.
        Erf = "erf",
        /// Float sine.
        Sin = "sin",
        /// Float cosine.
        Cos = "cos",
        /// Float round toward minus infinity.
        Floor = "floor",
        /// Float round toward plus infinity.
        Ceil = "ceil",
        /// Float round to the nearest integer, half to even.
        Round = "round",
        /// Float arc tangent.
        Atan = "atan",
        /// A float itself, which counts as constant when derivatives are taken.
        Detach = "detach",
        /// Year of a date or timestamp, an i32.
        Year = "year",
        /// Month (1 to 12) of a date or timestamp, an i32.
        Month = "month",
        /// Day of the month (1 to 31) of a date or timestamp, an i32.
        Day = "day",
    }
}

kinds! {
    /// Elementwise operations of two operands. Numeric operands of one kind are promoted: integers to the wider,
    /// decimals to the larger scale, integer with decimal to decimal, anything with a float to that float (f64 with a
    /// decimal or a 64-bit integer). Integer and decimal results are exact or an error.
    BinaryOp {
        /// Sum; also date + interval and timestamp + interval. decimal(p1,s1) + decimal(p2,s2) has scale
        /// s = max(s1,s2) and precision min(38, max(p1-s1,p2-s2) + s + 1).
        Add = "add",
        /// Difference, as `Add`; also date - interval, timestamp - interval, and date - date in days (i32).
        Sub = "sub",
        /// Product; decimal scale s1+s2 (an error if over 38), precision min(38, p1+p2).
        Mul = "mul",
        /// Quotient: integer toward zero; float; decimals divide as f64. An integer or decimal divisor of 0 is an error.
        Div = "div",
        /// Remainder of integers with the sign of the dividend (division by zero is an error), or float fmod.
        Rem = "rem",
        /// The smaller.
        Min = "min",
        /// The larger.
        Max = "max",
        /// Float x^y.
        Pow = "pow",
        /// Three-valued AND.
        And = "and",
        /// Three-valued OR.
        Or = "or",
        /// The first operand, or the second where the first is NULL.
        Coalesce = "coalesce",
    }
}

kinds! {
    /// Elementwise comparisons of numbers (promoted as for `BinaryOp`), strings (by bytes), dates, timestamps and
    /// bools; the result is bool, NULL where an operand is. NaN compares as false (`Ne`: true).
    CompareOp {
        /// Equal.
        Eq = "eq",
        /// Not equal.
        Ne = "ne",
        /// Less than.
        Lt = "lt",
        /// Less than or equal.
        Le = "le",
        /// Greater than.
        Gt = "gt",
        /// Greater than or equal.
        Ge = "ge",
    }
}

impl CompareOp {
    /// The comparison with its sides exchanged.
    pub const fn flipped(self) -> CompareOp {
        match self {
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
            CompareOp::Eq | CompareOp::Ne => self,
        }
    }
}

/// Which pairs and lone rows a join gives.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum JoinKind {
    /// Pairs that match.
    Inner,
    /// Pairs that match, and left rows without a match with NULLs on the right.
    Left,
    /// Left rows with a match, once each.
    Semi,
    /// Left rows without a match.
    Anti,
    /// All left rows, once each, and a bool column of this name: is there a match? It is never NULL, also where a key
    /// is: this is EXISTS, and not the IN of SQL, which has a third answer.
    Mark(String),
}

impl JoinKind {
    /// The kinds that have no column of their own to name.
    pub const UNNAMED: &'static [JoinKind] = &[JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti];

    /// The name used in the text form.
    pub const fn name(&self) -> &'static str {
        match self {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Semi => "semi",
            JoinKind::Anti => "anti",
            JoinKind::Mark(_) => "mark",
        }
    }

    /// Do left rows come out once at most, and columns of the right side not at all?
    pub const fn is_one_sided(&self) -> bool {
        matches!(self, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark(_))
    }
}

kinds! {
    /// What a group's rows are folded into. NULL arguments are skipped; an empty sum, minimum, maximum or average is
    /// NULL (so a result is nullable when its argument is or there are no keys).
    AggregateOp {
        /// Sum: integers give i64, decimal(p,s) gives decimal(38,s), floats themselves (f16 and bf16: f32).
        Sum = "sum",
        /// Smallest.
        Min = "min",
        /// Largest.
        Max = "max",
        /// Mean, f64.
        Avg = "avg",
        /// Number of values that are not NULL, i64.
        Count = "count",
        /// Number of rows, i64; takes no argument.
        CountRows = "count_rows",
        /// Number of different values that are not NULL, i64; equal as keys are.
        CountDistinct = "count_distinct",
    }
}

kinds! {
    /// What the elements along the reduced axes are folded into. NULL is not allowed.
    ReduceOp {
        /// Sum (integers give i64).
        Sum = "sum",
        /// Mean of floats.
        Mean = "mean",
        /// Smallest.
        Min = "min",
        /// Largest.
        Max = "max",
        /// Product (integers give i64).
        Prod = "prod",
    }
}

kinds! {
    /// What a pooling window is folded into.
    PoolKind {
        /// Largest element; padding counts as minus infinity.
        Max = "max",
        /// Mean of the elements inside the image; padding does not count.
        Avg = "avg",
    }
}

/// An aggregate of a group: its column name and operation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Aggregate {
    /// Name of the result column.
    pub name: String,
    /// Operation.
    pub op: AggregateOp,
}

/// Direction of one sort key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SortKey {
    /// Largest first.
    pub descending: bool,
    /// NULLs before everything else, instead of after it.
    pub nulls_first: bool,
}

/// Attributes of a two-dimensional convolution; `[vertical, horizontal]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Conv2d {
    /// Steps of the window.
    pub stride: [u64; 2],
    /// Zeros added before and after each axis.
    pub padding: [u64; 2],
    /// Distance between the window's elements.
    pub dilation: [u64; 2],
    /// Number of groups that input and output channels are split into.
    pub groups: u64,
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// Attributes of a two-dimensional pooling; `[vertical, horizontal]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pool2d {
    /// Fold.
    pub kind: PoolKind,
    /// Extents of the window.
    pub kernel: [u64; 2],
    /// Steps of the window.
    pub stride: [u64; 2],
    /// Padding before and after each axis.
    pub padding: [u64; 2],
    /// Round the output extent up (the last window may begin inside and end outside), as PyTorch's `ceil_mode`.
    pub ceil: bool,
}

/// A function inside a graph: nodes that depend on the parameters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Region {
    /// Parameters, nodes with `Op::Param`.
    pub params: Vec<Node>,
    /// Results.
    pub results: Vec<Node>,
}

/// A walk along an axis of tensors, see [`Op::Steps`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Steps {
    /// What a step does.
    pub region: Region,
    /// Number of steps.
    pub count: u64,
    /// How many values pass from step to step.
    pub carried: usize,
    /// The axis, of what is walked along and of what is collected.
    pub axis: usize,
    /// Is the last slice the first?
    pub back: bool,
}

/// How a string is cleaned. Letters, marks and spaces are those of ASCII; all other characters stay, so no string becomes longer.
/// Marks go before spaces are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Clean {
    /// Upper-case letters become lower-case ones.
    pub lower: bool,
    /// Punctuation marks go: what is printed and no letter, digit or space.
    pub punctuation: bool,
    /// Spaces, tabs and ends of lines go at both ends, and one space stands for several in between.
    pub spaces: bool,
}

/// An operation with its attributes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    // Scalar family: elementwise on tensors of any rank.
    /// A scalar known now. No inputs.
    Const(Literal),
    /// `(a)`.
    Unary(UnaryOp),
    /// `(a, b)`.
    Binary(BinaryOp),
    /// `(a, b)`.
    Compare(CompareOp),
    /// `(cond, a, b)`: `a` where `cond` is true, `b` where it is false or NULL. Both may be evaluated.
    Select,
    /// `(a)` converted to another type. Values that do not fit are errors; to a decimal of smaller scale rounds half
    /// away from zero; float to integer rounds toward zero.
    Cast(Scalar),
    /// `(a)`: does the string match the SQL LIKE pattern (`%` any run, `_` any one character, `\` escapes)?
    Like(String),
    /// `(a)`: `len` characters of the string from the 1-based position `start` (ASCII: bytes).
    Substring {
        /// First character, from 1.
        start: u32,
        /// Most characters.
        len: u32,
    },
    /// `(a)`: a string without what is not wanted.
    Clean(Clean),
    /// `(a)`: a number for a string, an i64: FNV-1a of its UTF-8 bytes in 64 bits (draft-eastlake-fnv, offset basis
    /// 14695981039346656037, prime 1099511628211) without the highest bit, so from 0 to 2^63 - 1.
    Hash,
    /// `(seed, stream, counter)`: random bits that are a function of three i64, see [`super::philox`]; as f32 or f64 uniform
    /// in 0..1 (without 1), as i64 uniform from 0 to 2^63 - 1.
    Random(Scalar),

    // Table family.
    /// All rows of a named table. No inputs.
    Scan {
        /// Name in the catalog.
        table: String,
        /// The columns that are read.
        fields: Vec<Field>,
    },
    /// `(t, pred)`: rows of `t` for which the row expression `pred` is true; NULL counts as false.
    Filter,
    /// `(t, e…)`: a column for each row expression (or tensor whose first dimension is the rows of `t`), over the same
    /// rows: the row dimension stays that of `t`.
    Project {
        /// Names of the columns.
        names: Vec<String>,
    },
    /// `(l, r)`: every pair of rows. Columns of `l`, then those of `r`; a name on both sides is an error.
    Product,
    /// `(l, r, left key…, right key…[, residual])`: pairs of rows whose keys are equal (NULL equals nothing) and for which
    /// the residual, a row expression of `product(l, r)`, is true. Columns of `l`, then for inner and left joins those
    /// of `r`; a right key column with the name of its left partner is left out, another shared name is an error. A mark
    /// join adds its mark, whose name must not be one of `l`.
    Join {
        /// Which rows come out.
        kind: JoinKind,
        /// Number of key pairs.
        keys: usize,
    },
    /// `(t, u…)`: the rows of all operands, in any order, equal ones as often as they occur (UNION ALL). All have columns of
    /// these names with the same types, but for NULLs, which the result has where an operand has them; other columns of
    /// operands are left out.
    Union {
        /// Names of the columns.
        names: Vec<String>,
    },
    /// `(t, key…, argument…)`: one row for each distinct combination of keys (NULL is a value of its own); without keys
    /// exactly one row. Columns: the keys, then the aggregates.
    Aggregate {
        /// Names of the keys.
        keys: Vec<String>,
        /// Aggregates; `CountRows` takes no argument, the others one each, in order.
        aggregates: Vec<Aggregate>,
    },
    /// `(t, key…)`: the rows in order of the keys; ties in any order.
    Sort(Vec<SortKey>),
    /// `(t)`: `count` rows after the first `offset`, in the order of a sort below.
    Limit {
        /// Rows to skip.
        offset: u64,
        /// Most rows to keep.
        count: u64,
    },

    // Tensor family.
    /// A named tensor given when the program runs (an input or a weight). No inputs.
    Input {
        /// Name.
        name: String,
        /// Type.
        ty: Ty,
        /// A weight: bound once, the same for many runs, so that it may be packed beforehand.
        weight: bool,
    },
    /// The numbers from 0 up to (and without) this one, an i64 vector. No inputs.
    Iota(u64),
    /// `(a, b)`: matrix product of the last two dimensions, leading ones broadcast: [.., m, k] x [.., k, n].
    MatMul,
    /// `(x, w[, bias])`: `x [n, c, h, w]`, `w [o, c / groups, kh, kw]`, `bias [o]` gives `[n, o, oh, ow]` (cross-correlation).
    ///
    /// Filters of 3 x 3 may be multiplied by Winograd's algorithm, which costs a few bits, and by which an infinite or NaN
    /// pixel may make up to 3 pixels around those that see it NaN as well.
    Conv2d(Conv2d),
    /// `(x, y)`: what filters of a convolution with these attributes and of extents `kernel` have for an adjoint: images
    /// `x [n, c, h, w]` and an adjoint `y [n, o, oh, ow]` of its result give `[o, c / groups, kh, kw]`, for each element of a
    /// filter the sum of `y` times what the element saw.
    Conv2dFilters {
        /// The convolution.
        conv: Conv2d,
        /// Extents of a filter.
        kernel: [u64; 2],
    },
    /// `(x)`: x [n, c, h, w].
    Pool2d(Pool2d),
    /// `(x, y)`: the adjoint of `x [n, c, h, w]` of which maxima were taken, `y` that of the result: each element of `y` is added
    /// to zeros where its window has its first largest element, and nowhere if the window has a NaN.
    MaxUnpool2d(Pool2d),
    /// `(x, scale, bias, mean, var)`: (x - mean) / sqrt(var + eps) * scale + bias for each channel (dimension 1).
    BatchNorm {
        /// `f64::to_bits` of eps.
        eps: u64,
    },
    /// `(x)`: e^x over its sum along an axis.
    Softmax {
        /// Axis, from 0.
        axis: usize,
    },
    /// `(x…)`: joined along an axis; the other extents agree.
    Concat {
        /// Axis, from 0.
        axis: usize,
    },
    /// `(x)`: the axes folded away (or kept with extent 1).
    Reduce {
        /// Fold.
        op: ReduceOp,
        /// Axes, ascending.
        axes: Vec<usize>,
        /// Keep them with extent 1.
        keep: bool,
    },
    /// `(x)`: the same elements in row-major order under another shape.
    Reshape(Vec<Dim>),
    /// `(x)`: dimension `i` of the result is dimension `perm[i]` of `x`.
    Transpose(Vec<usize>),
    /// `(x)`: `count` elements along an axis, from `start` in steps of `step` (backwards if negative); all lie inside.
    Slice {
        /// Axis, from 0.
        axis: usize,
        /// First element.
        start: u64,
        /// Distance from one element to the next, not 0.
        step: i64,
        /// Number of elements, not 0.
        count: u64,
    },
    /// `(x)`: repeated along dimensions of extent 1 and missing leading ones, as operands of an elementwise operation are.
    Broadcast(Vec<Dim>),
    /// `(x)`: sum of the elements up to each one along an axis, itself among them; integers give i64.
    CumSum {
        /// Axis, from 0.
        axis: usize,
    },
    /// `(x)`: position of the (first) largest element along an axis, i64; NaN is above all numbers.
    ArgMax {
        /// Axis, from 0.
        axis: usize,
    },
    /// `(x)`: for each row of `x [n, features]`, an f32 matrix, the sums of the leaves that it comes to in the trees of each
    /// output, `[n, outputs]`. A split sends NaN to the side that it states.
    TreeEnsemble(Arc<Forest>),
    /// `(x…)`: a function of another library, known by its name. Operands and result are what its signature says; those by
    /// row lead with one dimension, the same for all. It is pure, and may fail.
    Foreign {
        /// Name under which the session has the function.
        name: String,
        /// How operands are split and results brought together.
        signature: Signature,
    },
    /// `(data, index)`: `data[index[i…], ..]`: the shape of `index`, then that of `data` without its first dimension. An
    /// index outside is an error.
    Gather,
    /// `(data, index, values)`: `data` with `values[i…, ..]` added to `data[index[i…], ..]`, once for each `i…`, also where
    /// indices are equal: `values` has the shape of `index`, then that of `data` without its first dimension. Floats of one
    /// type. An index outside is an error. Sums are added up in the order of the indices.
    ScatterAdd,

    // Bridge family.
    /// `(t)`: the number of each row of a stored table, from 0, an i64 column; `t` is a scan.
    RowNumber,
    /// `(t)`: a column as a tensor over the rows of `t` (and its inner shape).
    Column(String),
    /// `(e…)`: tensors of one shape and type side by side in a new last dimension.
    Stack,
    /// `(e)`: the only element of a column of a table with exactly one row, as a scalar.
    Single,

    // Control family.
    /// `(cond, a, b)` as `Select`, but only the chosen arm is evaluated (and can fail). `cond` is a scalar or row expression.
    If,
    /// `(trips, init…)`: `init` passed `trips` times through the region; its parameters are the i64 round, then the
    /// carried values; its results are the next ones. A tuple when more than one value is carried.
    Loop(Region),
    /// `(init…, whole…)`: steps along an axis, as those of a recurrent network. The region's parameters are the carried
    /// values, then of each whole the slice at this step, without the axis; its results are the next carried values, then
    /// slices that are collected into new tensors. Gives the carried values after the last step, then what was collected:
    /// a tuple when that is more than one value.
    Steps(Steps),
    /// A parameter of a region. No inputs.
    Param {
        /// Tells the parameters of different regions apart.
        region: u32,
        /// Position.
        index: u32,
        /// Type.
        ty: Ty,
    },
    /// `(tuple)`: one of several values.
    Item(usize),
}

impl Op {
    /// The name used in the text form: family, then operation.
    pub fn name(&self) -> String {
        match self {
            Op::Unary(op) => return format!("scalar.{}", op.name()),
            Op::Binary(op) => return format!("scalar.{}", op.name()),
            Op::Compare(op) => return format!("scalar.{}", op.name()),
            Op::Join { kind, .. } => return format!("rel.join_{}", kind.name()),
            Op::Reduce { op, .. } => return format!("tensor.reduce_{}", op.name()),
            Op::Pool2d(p) => return format!("tensor.pool2d_{}", p.kind.name()),
            _ => {}
        }
        let name = match self {
            Op::Const(_) => "scalar.const",
            Op::Select => "scalar.select",
            Op::Cast(_) => "scalar.cast",
            Op::Like(_) => "scalar.like",
            Op::Substring { .. } => "scalar.substring",
            Op::Clean(_) => "scalar.clean",
            Op::Hash => "scalar.hash",
            Op::Random(_) => "scalar.random",
            Op::Scan { .. } => "rel.scan",
            Op::Filter => "rel.filter",
            Op::Project { .. } => "rel.project",
            Op::Product => "rel.product",
            Op::Union { .. } => "rel.union",
            Op::Aggregate { .. } => "rel.aggregate",
            Op::Sort(_) => "rel.sort",
            Op::Limit { .. } => "rel.limit",
            Op::Input { .. } => "tensor.input",
            Op::Iota(_) => "tensor.iota",
            Op::MatMul => "tensor.matmul",
            Op::Conv2d(_) => "tensor.conv2d",
            Op::Conv2dFilters { .. } => "tensor.conv2d_filters",
            Op::MaxUnpool2d(_) => "tensor.max_unpool2d",
            Op::BatchNorm { .. } => "tensor.batch_norm",
            Op::Softmax { .. } => "tensor.softmax",
            Op::Concat { .. } => "tensor.concat",
            Op::Reshape(_) => "tensor.reshape",
            Op::Transpose(_) => "tensor.transpose",
            Op::Slice { .. } => "tensor.slice",
            Op::Broadcast(_) => "tensor.broadcast",
            Op::CumSum { .. } => "tensor.cum_sum",
            Op::ArgMax { .. } => "tensor.arg_max",
            Op::TreeEnsemble(_) => "tensor.tree_ensemble",
            Op::Foreign { .. } => "tensor.foreign",
            Op::Gather => "tensor.gather",
            Op::ScatterAdd => "tensor.scatter_add",
            Op::Column(_) => "bridge.column",
            Op::RowNumber => "bridge.row_number",
            Op::Stack => "bridge.stack",
            Op::Single => "bridge.single",
            Op::If => "control.if",
            Op::Loop(_) => "control.loop",
            Op::Steps(_) => "control.steps",
            Op::Param { .. } => "control.param",
            Op::Item(_) => "control.item",
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Join { .. } | Op::Reduce { .. } | Op::Pool2d(_) => {
                unreachable!("named above")
            }
        };
        name.to_owned()
    }

    /// The function inside the operation.
    pub fn region(&self) -> Option<&Region> {
        match self {
            Op::Loop(region) | Op::Steps(Steps { region, .. }) => Some(region),
            _ => None,
        }
    }

    /// The same operation in another place: of the nodes that it names itself, those of the function inside, and of the dimensions
    /// in its attributes others stand for them.
    pub fn moved(&self, node: impl Fn(Node) -> Node, dim: impl Fn(&Dim) -> Dim) -> Op {
        match self {
            Op::Reshape(shape) => Op::Reshape(shape.iter().map(dim).collect()),
            Op::Broadcast(shape) => Op::Broadcast(shape.iter().map(dim).collect()),
            Op::Param { region, index, ty } => Op::Param { region: *region, index: *index, ty: ty.moved(&dim) },
            op => match op.region() {
                Some(region) => op.with_region(Region {
                    params: region.params.iter().map(|n| node(*n)).collect(),
                    results: region.results.iter().map(|n| node(*n)).collect(),
                }),
                None => op.clone(),
            },
        }
    }

    /// The same operation with another function inside, if it has one.
    pub fn with_region(&self, region: Region) -> Op {
        match self {
            Op::Loop(_) => Op::Loop(region),
            Op::Steps(steps) => Op::Steps(Steps { region, ..steps.clone() }),
            op => op.clone(),
        }
    }
}
