//! The instructions of the low-level program and the containers that own them.
//!
//! Control flow is structured: a block is a list of instructions that ends in `yield`, and only `if`, `for`,
//! `while` and `par_for` have blocks (or functions) below them. Every function returns an `i32` status: 0 is
//! success, anything else is handed up to the caller of the program.

use super::ty::Ty;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub u32);
        impl $name {
            /// Position in the table that owns the entity.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(/// A value of a function: a parameter, a block parameter or an instruction's result.
    Value, "v");
id!(/// An instruction of a function.
    Inst, "i");
id!(/// A block of a function.
    Block, "b");
id!(/// A function of a module.
    FuncId, "f");
id!(/// A runtime function that a module calls.
    ExternId, "x");

/// A constant: the bits of an integer (sign-extended), or of an `f64` that is rounded to the value's type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Const {
    /// Integer, `Bool` (0 or 1) or the null pointer (0); a vector type means a splat.
    Int(i128),
    /// `f64::to_bits`; a vector type means a splat.
    Float(u64),
}

macro_rules! ops {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every operation of this kind.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name used in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

ops! {
    /// Lane-wise operations of one operand; the result has the operand's type.
    UnOp {
        /// Integer (wrapping) or float negation.
        Neg = "neg",
        /// Bitwise complement; logical not of `Bool`.
        Not = "not",
        /// Absolute value (wrapping at the minimum).
        Abs = "abs",
        /// Float square root.
        Sqrt = "sqrt",
        /// Float e^x, correctly rounded to a few ulp.
        Exp = "exp",
        /// Float natural logarithm.
        Log = "log",
        /// Float sine.
        Sin = "sin",
        /// Float cosine.
        Cos = "cos",
        /// Float round toward minus infinity.
        Floor = "floor",
        /// Float round toward plus infinity.
        Ceil = "ceil",
        /// Float round to nearest, ties to even.
        Round = "round",
        /// Integer count of trailing zeros; the width for 0.
        Ctz = "ctz",
        /// Integer count of leading zeros; the width for 0.
        Clz = "clz",
        /// Integer population count.
        Popcnt = "popcnt",
    }
}

ops! {
    /// Lane-wise operations of two operands of one type. Integers wrap; see `OvfOp` for the overflow test.
    BinOp {
        /// Sum.
        Add = "add",
        /// Difference.
        Sub = "sub",
        /// Product.
        Mul = "mul",
        /// Signed integer quotient toward zero, or float quotient. Integer division by zero and MIN / -1 are
        /// undefined: the generator emits a `fail_if` first.
        Div = "div",
        /// Signed integer remainder (sign of the dividend); the same precondition as `Div`. Float fmod.
        Rem = "rem",
        /// Unsigned integer quotient.
        UDiv = "udiv",
        /// Unsigned integer remainder.
        URem = "urem",
        /// Bitwise and.
        And = "and",
        /// Bitwise or.
        Or = "or",
        /// Bitwise exclusive or.
        Xor = "xor",
        /// Shift left; undefined at or beyond the width.
        Shl = "shl",
        /// Logical shift right; undefined at or beyond the width.
        LShr = "lshr",
        /// Arithmetic shift right; undefined at or beyond the width.
        AShr = "ashr",
        /// Signed integer minimum; for floats the other operand where one is NaN (minNum).
        Min = "min",
        /// Signed integer maximum; for floats the other operand where one is NaN (maxNum).
        Max = "max",
        /// Float x^y.
        Pow = "pow",
    }
}

ops! {
    /// Signed integer operations tested for overflow; the result is `Bool` (same lanes), true on overflow.
    OvfOp {
        /// Does `a + b` overflow?
        Add = "add",
        /// Does `a - b` overflow?
        Sub = "sub",
        /// Does `a * b` overflow?
        Mul = "mul",
    }
}

ops! {
    /// Lane-wise comparisons; the result is `Bool` with the operands' lanes. Float comparisons are ordered:
    /// false when an operand is NaN, except `Ne`, which is then true.
    CmpOp {
        /// Equal.
        Eq = "eq",
        /// Not equal.
        Ne = "ne",
        /// Signed or float less than.
        Lt = "lt",
        /// Signed or float less than or equal.
        Le = "le",
        /// Signed or float greater than.
        Gt = "gt",
        /// Signed or float greater than or equal.
        Ge = "ge",
        /// Unsigned integer (or pointer) less than.
        Ult = "ult",
        /// Unsigned integer (or pointer) less than or equal.
        Ule = "ule",
    }
}

ops! {
    /// Conversions between types with the same number of lanes.
    CastOp {
        /// Sign-extend an integer (a `Bool` gives 0 or -1).
        SExt = "sext",
        /// Zero-extend an integer (a `Bool` gives 0 or 1).
        ZExt = "zext",
        /// Keep the low bits of an integer; to `Bool` keeps the lowest bit.
        Trunc = "trunc",
        /// Signed integer to float, rounded to nearest even.
        SiToFp = "sitofp",
        /// Unsigned integer to float.
        UiToFp = "uitofp",
        /// Float to signed integer toward zero, saturating, NaN to 0.
        FpToSi = "fptosi",
        /// Widen a float.
        FpExt = "fpext",
        /// Narrow a float, to nearest even.
        FpTrunc = "fptrunc",
        /// Reinterpret the bits; total sizes must agree (a vector of `Bool` counts one bit a lane).
        Bitcast = "bitcast",
    }
}

ops! {
    /// Horizontal reductions of a vector to its element type.
    ReduceOp {
        /// Sum; floats in any association.
        Add = "add",
        /// Signed or float minimum.
        Min = "min",
        /// Signed or float maximum.
        Max = "max",
        /// Bitwise and.
        And = "and",
        /// Bitwise or.
        Or = "or",
    }
}

ops! {
    /// Atomic read-modify-write operations on integers (and pointers for `Xchg`), sequentially consistent.
    RmwOp {
        /// Exchange.
        Xchg = "xchg",
        /// Wrapping add.
        Add = "add",
        /// Bitwise or.
        Or = "or",
    }
}

/// What an instruction may do besides giving a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Effect {
    /// Depends on its operands only: may be shared, moved and dropped.
    Pure,
    /// Reads memory: may be dropped, not moved over a write.
    Read,
    /// Writes memory, fails, or calls: stays where it is.
    Write,
}

/// An operation with its operands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A constant of the result's type.
    Const(Const),
    /// A lane-wise operation of one operand.
    Un(UnOp, Value),
    /// A lane-wise operation of two operands.
    Bin(BinOp, Value, Value),
    /// A lane-wise comparison.
    Cmp(CmpOp, Value, Value),
    /// A lane-wise overflow test.
    Ovf(OvfOp, Value, Value),
    /// A conversion to the result's type.
    Cast(CastOp, Value),
    /// `cond ? a : b`; `cond` is a scalar `Bool` or has the operands' lanes.
    Select(Value, Value, Value),
    /// Fused `a * b + c` with one rounding.
    Fma(Value, Value, Value),
    /// Products of small integers, four to a lane: `a + sum(b[i] * c[i])`, wrapping, where the operands are `i32` and the
    /// four bytes of a lane of `b` count as unsigned, those of `c` as signed.
    Dot4(Value, Value, Value),
    /// The scalar in every lane.
    Splat(Value),
    /// One lane of a vector.
    Extract(Value, u16),
    /// The vector (first) with one lane replaced by the scalar (second).
    Insert(Value, Value, u16),
    /// `[0, 1, 2, …]` as an integer vector.
    Iota,
    /// A horizontal reduction.
    Reduce(ReduceOp, Value),
    /// `base + index * scale + offset`, in bytes.
    PtrAdd {
        /// Address.
        base: Value,
        /// `i64` multiplied by `scale`.
        index: Option<Value>,
        /// Bytes for one step of `index`.
        scale: i64,
        /// Constant bytes.
        offset: i64,
    },
    /// Reads the result's type at `ptr + offset`.
    Load {
        /// Address.
        ptr: Value,
        /// Constant bytes added to it.
        offset: i64,
        /// Known alignment in bytes.
        align: u16,
        /// The memory does not change while the function runs, so that the load counts as pure.
        invariant: bool,
    },
    /// Writes `value` at `ptr + offset`.
    Store {
        /// Address.
        ptr: Value,
        /// Constant bytes added to it.
        offset: i64,
        /// Known alignment in bytes.
        align: u16,
        /// What is written.
        value: Value,
    },
    /// Reads the lanes where `mask` is true, zero elsewhere; masked lanes touch no memory.
    MaskedLoad {
        /// Address of lane 0.
        ptr: Value,
        /// `Bool` vector.
        mask: Value,
        /// As for `Load`.
        invariant: bool,
    },
    /// Writes the lanes where `mask` is true.
    MaskedStore {
        /// Address of lane 0.
        ptr: Value,
        /// `Bool` vector.
        mask: Value,
        /// Vector to write.
        value: Value,
    },
    /// Reads one element a lane at `base + index[lane] * scale` where `mask` is true, zero elsewhere.
    Gather {
        /// Address.
        base: Value,
        /// Integer vector (`i32` or `i64`).
        index: Value,
        /// Bytes for one step.
        scale: u8,
        /// `Bool` vector.
        mask: Value,
        /// As for `Load`.
        invariant: bool,
    },
    /// Writes the lanes where `mask` is true one after another from `ptr` on, without gaps.
    CompressStore {
        /// Address of the first element written.
        ptr: Value,
        /// `Bool` vector.
        mask: Value,
        /// Vector to write.
        value: Value,
    },
    /// Atomic read-modify-write; the result is the old value.
    AtomicRmw {
        /// Operation.
        op: RmwOp,
        /// Address, naturally aligned.
        ptr: Value,
        /// Operand.
        value: Value,
    },
    /// Atomic compare-and-exchange; the result is the old value (equal to `expected` on success).
    CmpXchg {
        /// Address, naturally aligned.
        ptr: Value,
        /// Value expected there.
        expected: Value,
        /// Value to put there.
        new: Value,
    },
    /// Asks for the cache line at `ptr`; never fails.
    Prefetch {
        /// Address.
        ptr: Value,
        /// Only into the second-level cache?
        far: bool,
    },
    /// `bytes` of stack, uninitialised, for the time the function runs; only in the entry block.
    Alloca {
        /// Size.
        bytes: u32,
        /// Alignment.
        align: u16,
    },
    /// Calls a runtime function.
    Call {
        /// Which.
        callee: ExternId,
        /// Arguments, of the declared types.
        args: Vec<Value>,
    },
    /// Leaves the function with status `code` when `cond` is true.
    FailIf {
        /// `Bool`.
        cond: Value,
        /// Not zero: an index (from 1) into `Module::sites`, or `Module::RUNTIME_ERROR`.
        code: i32,
    },
    /// Leaves the function with `status` when it is not zero.
    Check {
        /// `i32`.
        status: Value,
    },
    /// Runs one of two blocks; the results are what it yields.
    If {
        /// `Bool`.
        cond: Value,
        /// Block without parameters.
        then: Block,
        /// Block without parameters that yields the same types.
        els: Block,
    },
    /// Counts an `i64` from `lo` (inclusive) to `hi` (exclusive) by `step` (> 0). The body's parameters are the
    /// counter and the carried values; it yields the next carried values. The results are the last ones.
    For {
        /// First counter.
        lo: Value,
        /// Bound.
        hi: Value,
        /// Constant step.
        step: i64,
        /// First carried values.
        init: Vec<Value>,
        /// Body.
        body: Block,
    },
    /// `cond` takes the carried values and yields one `Bool`; while true, `body` takes them and yields the next
    /// ones. The results are the last ones.
    While {
        /// First carried values.
        init: Vec<Value>,
        /// Test.
        cond: Block,
        /// Body.
        body: Block,
    },
    /// Calls `func(frame, worker, lo, hi)` for consecutive ranges of at most `grain` that cover `0..n`, in parallel and
    /// in any order; the result is an `i32` status: 0, or that of one call that failed (the rest is then skipped).
    ParFor {
        /// A function of signature `(ptr, i64, i64, i64)`.
        func: FuncId,
        /// The frame pointer handed on.
        frame: Value,
        /// `i64` number of items.
        n: Value,
        /// `i64` items a call, at least 1.
        grain: Value,
    },
}

/// How a value comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueDef {
    /// A function parameter, by position.
    Param(u32),
    /// A parameter of a block, by position.
    BlockParam(Block, u32),
    /// A result of an instruction, by position.
    Result(Inst, u32),
}

/// Type and origin of a value.
#[derive(Clone, Copy, Debug)]
pub struct ValueData {
    /// Type.
    pub ty: Ty,
    /// Origin.
    pub def: ValueDef,
}

/// An operation and the values it defines.
#[derive(Clone, Debug)]
pub struct InstData {
    /// Operation.
    pub op: Op,
    /// Results: none for stores and checks, several for control flow.
    pub results: Vec<Value>,
}

/// A straight line of instructions.
#[derive(Clone, Debug, Default)]
pub struct BlockData {
    /// Values the block takes.
    pub params: Vec<Value>,
    /// Instructions in order.
    pub insts: Vec<Inst>,
    /// Values the block gives.
    pub yields: Vec<Value>,
}

/// A function. Made by [`super::Builder`] (or the parser); backends read it.
#[derive(Clone, Debug)]
pub struct Func {
    /// Name, unique in the module.
    pub name: String,
    /// Does it handle so little data that time spent on optimising it is lost? See [`super::Builder::mark_cold`].
    pub cold: bool,
    /// Parameters.
    pub params: Vec<Value>,
    /// All values.
    pub values: Vec<ValueData>,
    /// All instructions; those in no block were dropped.
    pub insts: Vec<InstData>,
    /// All blocks.
    pub blocks: Vec<BlockData>,
    /// The body; it yields the `i32` status.
    pub entry: Block,
}

impl Func {
    /// Type of a value.
    pub fn ty(&self, value: Value) -> Ty {
        self.values[value.index()].ty
    }

    /// Data of an instruction.
    pub fn inst(&self, inst: Inst) -> &InstData {
        &self.insts[inst.index()]
    }

    /// Data of a block.
    pub fn block(&self, block: Block) -> &BlockData {
        &self.blocks[block.index()]
    }

    /// The operation whose only result a value is.
    fn source(&self, value: Value) -> Option<&Op> {
        match self.values[value.index()].def {
            ValueDef::Result(inst, 0) => Some(&self.inst(inst).op),
            _ => None,
        }
    }

    /// The constant behind a value, if it is one.
    pub fn as_const(&self, value: Value) -> Option<Const> {
        match self.source(value)? {
            Op::Const(c) => Some(*c),
            _ => None,
        }
    }

    /// The constants between which a float is kept, so that it is no NaN either: `min(max(x, low), high)`.
    pub fn clamp(&self, value: Value) -> Option<[f64; 2]> {
        let number = |value: &Value| match self.as_const(*value)? {
            Const::Float(bits) => Some(f64::from_bits(bits)),
            Const::Int(_) => None,
        };
        let Op::Bin(BinOp::Min, x, high) = self.source(value)? else { return None };
        let Op::Bin(BinOp::Max, _, low) = self.source(*x)? else { return None };
        let ends = [number(low)?, number(high)?];
        (ends[0] <= ends[1]).then_some(ends)
    }
}

/// The declaration of a runtime function. C calling convention.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extern {
    /// Symbol.
    pub name: String,
    /// Parameter types, scalars of at most 64 bits.
    pub params: Vec<Ty>,
    /// Result type, a scalar of at most 64 bits.
    pub ret: Option<Ty>,
}

/// What went wrong at a `fail_if`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FailKind {
    /// The exact result does not fit its type.
    Overflow,
    /// A division by zero.
    DivisionByZero,
    /// A value that its target type cannot hold.
    BadCast,
    /// An index or key outside its domain.
    OutOfRange,
    /// A fact that the program relied on does not hold.
    BrokenFact,
}

impl FailKind {
    /// Every kind.
    pub const ALL: &'static [FailKind] =
        &[FailKind::Overflow, FailKind::DivisionByZero, FailKind::BadCast, FailKind::OutOfRange, FailKind::BrokenFact];
    /// The name used in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            FailKind::Overflow => "overflow",
            FailKind::DivisionByZero => "division_by_zero",
            FailKind::BadCast => "bad_cast",
            FailKind::OutOfRange => "out_of_range",
            FailKind::BrokenFact => "broken_fact",
        }
    }
}

/// A place that can fail, for the message that the user sees.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FailSite {
    /// What went wrong.
    pub kind: FailKind,
    /// The expression, column or operator, in the user's terms.
    pub message: String,
}

/// A low-level program: functions, the runtime functions they call, and the places where they can fail.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Functions.
    pub funcs: Vec<Func>,
    /// Runtime functions.
    pub externs: Vec<Extern>,
    /// Where `fail_if` code `k` points to `sites[k - 1]`.
    pub sites: Vec<FailSite>,
}

impl Module {
    /// Status of a failure that the runtime has recorded itself (out of budget, cancelled).
    pub const RUNTIME_ERROR: i32 = -1;

    /// The function of that name.
    pub fn func(&self, name: &str) -> Option<FuncId> {
        self.funcs.iter().position(|f| f.name == name).map(|i| FuncId(i as u32))
    }

    /// The declaration of `name`, added if it is new.
    pub fn declare(&mut self, name: &str, params: &[Ty], ret: Option<Ty>) -> ExternId {
        if let Some(i) = self.externs.iter().position(|e| e.name == name) {
            return ExternId(i as u32);
        }
        self.externs.push(Extern { name: name.into(), params: params.into(), ret });
        ExternId(self.externs.len() as u32 - 1)
    }

    /// The status code of a fail site, added if it is new.
    pub fn site(&mut self, kind: FailKind, message: &str) -> i32 {
        let position = self.sites.iter().position(|s| s.kind == kind && s.message == message);
        let index = position.unwrap_or_else(|| {
            self.sites.push(FailSite { kind, message: message.into() });
            self.sites.len() - 1
        });
        index as i32 + 1
    }
}

impl Op {
    /// What the operation may do besides giving a value. Blocks below control flow count as `Write`.
    pub fn effect(&self) -> Effect {
        match self {
            Op::Load { invariant: true, .. }
            | Op::MaskedLoad { invariant: true, .. }
            | Op::Gather { invariant: true, .. } => Effect::Pure,
            Op::Load { .. } | Op::MaskedLoad { .. } | Op::Gather { .. } => Effect::Read,
            Op::Const(_)
            | Op::Un(..)
            | Op::Bin(..)
            | Op::Cmp(..)
            | Op::Ovf(..)
            | Op::Cast(..)
            | Op::Select(..)
            | Op::Fma(..)
            | Op::Dot4(..)
            | Op::Splat(_)
            | Op::Extract(..)
            | Op::Insert(..)
            | Op::Iota
            | Op::Reduce(..)
            | Op::PtrAdd { .. } => Effect::Pure,
            // An alloca is not shared (two are two places), but it may be dropped.
            Op::Alloca { .. } => Effect::Read,
            _ => Effect::Write,
        }
    }

    /// The operands, in order, without those inside blocks.
    pub fn operands(&self) -> Vec<Value> {
        match self {
            Op::Const(_) | Op::Iota | Op::Alloca { .. } => vec![],
            Op::Un(_, a)
            | Op::Cast(_, a)
            | Op::Splat(a)
            | Op::Extract(a, _)
            | Op::Reduce(_, a)
            | Op::Prefetch { ptr: a, .. } => {
                vec![*a]
            }
            Op::Bin(_, a, b) | Op::Cmp(_, a, b) | Op::Ovf(_, a, b) | Op::Insert(a, b, _) => vec![*a, *b],
            Op::Select(a, b, c) | Op::Fma(a, b, c) | Op::Dot4(a, b, c) => vec![*a, *b, *c],
            Op::PtrAdd { base, index, .. } => std::iter::once(*base).chain(*index).collect(),
            Op::Load { ptr, .. } => vec![*ptr],
            Op::Store { ptr, value, .. } => vec![*ptr, *value],
            Op::MaskedLoad { ptr, mask, .. } => vec![*ptr, *mask],
            Op::MaskedStore { ptr, mask, value } | Op::CompressStore { ptr, mask, value } => vec![*ptr, *mask, *value],
            Op::Gather { base, index, mask, .. } => vec![*base, *index, *mask],
            Op::AtomicRmw { ptr, value, .. } => vec![*ptr, *value],
            Op::CmpXchg { ptr, expected, new } => vec![*ptr, *expected, *new],
            Op::Call { args, .. } => args.clone(),
            Op::FailIf { cond, .. } => vec![*cond],
            Op::Check { status } => vec![*status],
            Op::If { cond, .. } => vec![*cond],
            Op::For { lo, hi, init, .. } => [*lo, *hi].into_iter().chain(init.iter().copied()).collect(),
            Op::While { init, .. } => init.clone(),
            Op::ParFor { frame, n, grain, .. } => vec![*frame, *n, *grain],
        }
    }

    /// The blocks directly below the operation.
    pub fn blocks(&self) -> Vec<Block> {
        match self {
            Op::If { then, els, .. } => vec![*then, *els],
            Op::For { body, .. } => vec![*body],
            Op::While { cond, body, .. } => vec![*cond, *body],
            _ => vec![],
        }
    }
}
