//! The form in which the interpreter walks a function.
//!
//! Every value of a function has a place in one array of cells, `lanes` cells from its index on. A step names the
//! places of its operands and result, and the function that computes it.

use super::lanes::{Cell, Fn1, Fn2, Fn3, Partial};
use quearn_stage::low::{Prim, RmwOp};

/// Index of a value's first cell.
pub type Place = usize;

/// All functions of a module.
pub struct Program {
    /// Functions by number.
    pub funcs: Vec<Function>,
}

/// A function ready to be walked.
pub struct Function {
    /// Name, for messages.
    pub name: String,
    /// The cells as they are when the function starts: constants are in place.
    pub cells: Vec<Cell>,
    /// Places of the parameters.
    pub params: Vec<Place>,
    /// Bytes of stack memory.
    pub stack: usize,
    /// Blocks by number.
    pub blocks: Vec<Steps>,
    /// The body.
    pub entry: usize,
    /// Place of the status.
    pub status: Place,
}

/// The instructions of a block.
pub type Steps = Vec<Step>;

/// Copies of values that happen at once.
pub type Moves = Vec<Move>;

/// A copy of a value.
#[derive(Clone, Copy)]
pub struct Move {
    /// Source.
    pub from: Place,
    /// Target.
    pub to: Place,
    /// Cells.
    pub n: usize,
}

/// Lanes in memory, one after another.
#[derive(Clone, Copy)]
pub struct Access {
    /// Place of the address.
    pub ptr: Place,
    /// Constant bytes added to it.
    pub offset: i64,
    /// Claimed alignment.
    pub align: u64,
    /// Element.
    pub prim: Prim,
    /// Lanes.
    pub n: usize,
}

/// Lanes in memory, those where a mask is true.
#[derive(Clone, Copy)]
pub struct Masked {
    /// Place of the address.
    pub ptr: Place,
    /// Place of the mask.
    pub mask: Place,
    /// Element.
    pub prim: Prim,
    /// Lanes.
    pub n: usize,
}

/// An instruction.
pub enum Step {
    /// Lane-wise `to = f(a)`.
    Map1 { f: Fn1, to: Place, a: Place, n: usize },
    /// Lane-wise `to = f(a, b)`.
    Map2 { f: Fn2, to: Place, a: Place, b: Place, n: usize },
    /// Lane-wise `to = f(a, b)` that may be undefined.
    Partial { f: Partial, what: &'static str, to: Place, a: Place, b: Place, n: usize },
    /// Lane-wise `to = f(a, b, c)`.
    Map3 { f: Fn3, to: Place, a: Place, b: Place, c: Place, n: usize },
    /// Lane-wise choice; `stride` is 0 if one condition serves all lanes.
    Select { to: Place, cond: Place, stride: usize, a: Place, b: Place, n: usize },
    /// One cell into all lanes.
    Splat { to: Place, a: Place, n: usize },
    /// A copy.
    Copy(Move),
    /// The vector `a` with one lane replaced.
    Insert { to: Place, a: Place, scalar: Place, lane: usize, n: usize },
    /// All lanes joined.
    Reduce { f: Fn2, to: Place, a: Place, n: usize },
    /// The same bits in lanes of other widths.
    Bitcast { to: Place, to_bits: usize, to_n: usize, a: Place, bits: usize, n: usize },
    /// `base + index * scale + offset`.
    PtrAdd { to: Place, base: Place, index: Option<Place>, scale: i64, offset: i64 },
    /// Memory into lanes.
    Load { to: Place, from: Access },
    /// Lanes into memory.
    Store { a: Place, to: Access },
    /// Memory into the lanes of a mask.
    MaskedLoad { to: Place, from: Masked },
    /// The lanes of a mask into memory.
    MaskedStore { a: Place, to: Masked },
    /// The lanes of a mask into memory without gaps.
    CompressStore { a: Place, to: Masked },
    /// Scattered elements into the lanes of a mask.
    Gather { to: Place, from: Masked, index: Place, index_prim: Prim, scale: u64 },
    /// Atomic read-modify-write.
    Rmw { op: RmwOp, to: Place, prim: Prim, ptr: Place, value: Place },
    /// Atomic compare-and-exchange.
    CmpXchg { to: Place, prim: Prim, ptr: Place, expected: Place, new: Place },
    /// Address of stack memory.
    Alloca { to: Place, offset: usize },
    /// A call of a runtime function; the result is cut to the bits of `mask`.
    Call { function: unsafe fn(&[u64]) -> u64, args: Vec<Place>, to: Option<(Place, Cell)> },
    /// Leaves the function with a code.
    FailIf { cond: Place, code: i32 },
    /// Leaves the function with a status that is not zero.
    Check { status: Place },
    /// One of two blocks, and the copies of its results.
    If { cond: Place, then: (usize, Moves), els: (usize, Moves) },
    /// A counted loop.
    For(Box<ForLoop>),
    /// A loop with a test.
    While(Box<WhileLoop>),
    /// A parallel loop.
    ParFor { to: Place, func: usize, frame: Place, n: Place, grain: Place },
}

/// A counted loop.
pub struct ForLoop {
    /// Place of the first counter.
    pub lo: Place,
    /// Place of the bound.
    pub hi: Place,
    /// Added to the counter.
    pub step: i64,
    /// Place of the counter.
    pub counter: Place,
    /// Block.
    pub body: usize,
    /// First carried values to parameters.
    pub enter: Moves,
    /// Yields to parameters.
    pub next: Moves,
    /// Parameters to results.
    pub leave: Moves,
}

/// A loop with a test.
pub struct WhileLoop {
    /// Block of the test.
    pub cond: usize,
    /// Place of what it yields.
    pub test: Place,
    /// Block.
    pub body: usize,
    /// First carried values to the parameters of the test.
    pub enter: Moves,
    /// Parameters of the test to those of the body.
    pub pass: Moves,
    /// Yields of the body to the parameters of the test.
    pub next: Moves,
    /// Parameters of the test to the results.
    pub leave: Moves,
}
