//! What the lane-wise operations compute, on one lane.
//!
//! A lane is a [`Cell`]: the bits of the value, zero-extended. An operation is a plain function of cells, chosen once
//! per instruction by [`un`], [`bin`] and so on; `None` means that the type has no such operation.

use half::{bf16, f16};
use quearn_stage::low::{BinOp, CastOp, CmpOp, OvfOp, Prim, ReduceOp, UnOp};

/// One lane: zero-extended bits.
pub type Cell = u128;
/// An operation of one lane.
pub type Fn1 = fn(Cell) -> Cell;
/// An operation of two lanes.
pub type Fn2 = fn(Cell, Cell) -> Cell;
/// An operation that is undefined (`None`) for some operands.
pub type Partial = fn(Cell, Cell) -> Option<Cell>;
/// An operation of three lanes.
pub type Fn3 = fn(Cell, Cell, Cell) -> Cell;

/// A binary operation.
#[derive(Clone, Copy)]
pub enum Binary {
    /// Defined everywhere.
    Total(Fn2),
    /// Undefined for some operands.
    Partial(Partial),
}

/// A Rust type that a cell stands for.
trait Lane: Copy {
    fn of(cell: Cell) -> Self;
    fn cell(self) -> Cell;
}

macro_rules! lanes {
    ($($ty:ty: |$cell:ident| $of:expr, |$value:ident| $to:expr;)*) => {
        $(impl Lane for $ty {
            fn of($cell: Cell) -> Self {
                $of
            }
            fn cell(self) -> Cell {
                let $value = self;
                $to
            }
        })*
    };
}

lanes! {
    i8: |cell| cell as i8, |value| value as u8 as Cell;
    i16: |cell| cell as i16, |value| value as u16 as Cell;
    i32: |cell| cell as i32, |value| value as u32 as Cell;
    i64: |cell| cell as i64, |value| value as u64 as Cell;
    i128: |cell| cell as i128, |value| value as Cell;
    f16: |cell| f16::from_bits(cell as u16), |value| value.to_bits() as Cell;
    bf16: |cell| bf16::from_bits(cell as u16), |value| value.to_bits() as Cell;
    f32: |cell| f32::from_bits(cell as u32), |value| value.to_bits() as Cell;
    f64: |cell| f64::from_bits(cell as u64), |value| value.to_bits() as Cell;
}

/// The expression, compiled for the Rust type `$T` of the primitive; `None` for other primitives.
macro_rules! for_type {
    ($prim:expr, $T:ident in [$($variant:ident $ty:ty),*], $f:expr) => {
        match $prim {
            $(Prim::$variant => {
                type $T = $ty;
                $f
            })*
            _ => None,
        }
    };
}

macro_rules! ints {
    ($prim:expr, $T:ident => $f:expr) => {
        for_type!($prim, $T in [I8 i8, I16 i16, I32 i32, I64 i64, I128 i128], $f)
    };
}

macro_rules! floats {
    ($prim:expr, $T:ident => $f:expr) => {
        for_type!($prim, $T in [F32 f32, F64 f64], $f)
    };
}

/// The bits that a cell of this type may have set.
pub const fn mask(prim: Prim) -> Cell {
    match prim {
        Prim::Bool => 1,
        _ => Cell::MAX >> (128 - 8 * prim.bytes() as u32),
    }
}

/// A constant.
pub fn float(prim: Prim, value: f64) -> Option<Cell> {
    match prim {
        Prim::F16 => Some(f16::from_f32(narrow_to_odd(value)).cell()),
        Prim::BF16 => Some(bf16::from_f32(narrow_to_odd(value)).cell()),
        Prim::F32 => Some((value as f32).cell()),
        Prim::F64 => Some(value.cell()),
        _ => None,
    }
}

/// An operation of one operand.
pub fn un(op: UnOp, prim: Prim) -> Option<Fn1> {
    match (op, prim) {
        (UnOp::Not, Prim::Bool) => Some(|a| a ^ 1),
        (UnOp::Not, _) => ints!(prim, T => Some(|a| (!T::of(a)).cell())),
        (UnOp::Ctz, _) => ints!(prim, T => Some(|a| T::of(a).trailing_zeros().into())),
        (UnOp::Clz, _) => ints!(prim, T => Some(|a| T::of(a).leading_zeros().into())),
        (UnOp::Popcnt, _) => ints!(prim, _T => Some(|a| a.count_ones().into())),
        (UnOp::Neg, _) if prim.is_int() => ints!(prim, T => Some(|a| T::of(a).wrapping_neg().cell())),
        (UnOp::Abs, _) if prim.is_int() => ints!(prim, T => Some(|a| T::of(a).wrapping_abs().cell())),
        _ => float_un(op, prim),
    }
}

fn float_un(op: UnOp, prim: Prim) -> Option<Fn1> {
    match op {
        UnOp::Neg => floats!(prim, T => Some(|a| (-T::of(a)).cell())),
        UnOp::Abs => floats!(prim, T => Some(|a| T::of(a).abs().cell())),
        UnOp::Sqrt => floats!(prim, T => Some(|a| T::of(a).sqrt().cell())),
        UnOp::Exp => floats!(prim, T => Some(|a| T::of(a).exp().cell())),
        UnOp::Log => floats!(prim, T => Some(|a| T::of(a).ln().cell())),
        UnOp::Sin => floats!(prim, T => Some(|a| T::of(a).sin().cell())),
        UnOp::Cos => floats!(prim, T => Some(|a| T::of(a).cos().cell())),
        UnOp::Floor => floats!(prim, T => Some(|a| T::of(a).floor().cell())),
        UnOp::Ceil => floats!(prim, T => Some(|a| T::of(a).ceil().cell())),
        UnOp::Round => floats!(prim, T => Some(|a| T::of(a).round_ties_even().cell())),
        UnOp::Not | UnOp::Ctz | UnOp::Clz | UnOp::Popcnt => None,
    }
}

/// An operation of two operands.
pub fn bin(op: BinOp, prim: Prim) -> Option<Binary> {
    if prim == Prim::Bool {
        return bool_bin(op).map(Binary::Total);
    }
    if let Some(partial) = partial_bin(op, prim) {
        return Some(Binary::Partial(partial));
    }
    if prim.is_float() { float_bin(op, prim) } else { int_bin(op, prim) }.map(Binary::Total)
}

fn bool_bin(op: BinOp) -> Option<Fn2> {
    match op {
        BinOp::And => Some(|a, b| a & b),
        BinOp::Or => Some(|a, b| a | b),
        BinOp::Xor => Some(|a, b| a ^ b),
        _ => None,
    }
}

fn int_bin(op: BinOp, prim: Prim) -> Option<Fn2> {
    match op {
        BinOp::Add => ints!(prim, T => Some(|a, b| T::of(a).wrapping_add(T::of(b)).cell())),
        BinOp::Sub => ints!(prim, T => Some(|a, b| T::of(a).wrapping_sub(T::of(b)).cell())),
        BinOp::Mul => ints!(prim, T => Some(|a, b| T::of(a).wrapping_mul(T::of(b)).cell())),
        BinOp::Min => ints!(prim, T => Some(|a, b| T::of(a).min(T::of(b)).cell())),
        BinOp::Max => ints!(prim, T => Some(|a, b| T::of(a).max(T::of(b)).cell())),
        BinOp::And => ints!(prim, _T => Some(|a, b| a & b)),
        BinOp::Or => ints!(prim, _T => Some(|a, b| a | b)),
        BinOp::Xor => ints!(prim, _T => Some(|a, b| a ^ b)),
        _ => None,
    }
}

/// Integer operations whose result is undefined for some operands.
fn partial_bin(op: BinOp, prim: Prim) -> Option<Partial> {
    match op {
        BinOp::Div => ints!(prim, T => Some(|a, b| T::of(a).checked_div(T::of(b)).map(T::cell))),
        BinOp::Rem => ints!(prim, T => Some(|a, b| T::of(a).checked_rem(T::of(b)).map(T::cell))),
        BinOp::UDiv => ints!(prim, _T => Some(|a, b| a.checked_div(b))),
        BinOp::URem => ints!(prim, _T => Some(|a, b| a.checked_rem(b))),
        BinOp::Shl => ints!(prim, T => Some(|a, b| (b < T::BITS.into()).then(|| (T::of(a) << b as u32).cell()))),
        BinOp::LShr => ints!(prim, T => Some(|a, b| (b < T::BITS.into()).then(|| a >> b as u32))),
        BinOp::AShr => ints!(prim, T => Some(|a, b| (b < T::BITS.into()).then(|| (T::of(a) >> b as u32).cell()))),
        _ => None,
    }
}

fn float_bin(op: BinOp, prim: Prim) -> Option<Fn2> {
    match op {
        BinOp::Add => floats!(prim, T => Some(|a, b| (T::of(a) + T::of(b)).cell())),
        BinOp::Sub => floats!(prim, T => Some(|a, b| (T::of(a) - T::of(b)).cell())),
        BinOp::Mul => floats!(prim, T => Some(|a, b| (T::of(a) * T::of(b)).cell())),
        BinOp::Div => floats!(prim, T => Some(|a, b| (T::of(a) / T::of(b)).cell())),
        BinOp::Rem => floats!(prim, T => Some(|a, b| (T::of(a) % T::of(b)).cell())),
        BinOp::Min => floats!(prim, T => Some(|a, b| T::of(a).min(T::of(b)).cell())),
        BinOp::Max => floats!(prim, T => Some(|a, b| T::of(a).max(T::of(b)).cell())),
        BinOp::Pow => floats!(prim, T => Some(|a, b| T::of(a).powf(T::of(b)).cell())),
        _ => None,
    }
}

/// A comparison.
pub fn cmp(op: CmpOp, prim: Prim) -> Option<Fn2> {
    if prim.is_float() {
        return float_cmp(op, prim);
    }
    match (op, prim) {
        (CmpOp::Eq, _) => Some(|a, b| (a == b).into()),
        (CmpOp::Ne, _) => Some(|a, b| (a != b).into()),
        (CmpOp::Ult, _) => Some(|a, b| (a < b).into()),
        (CmpOp::Ule, _) => Some(|a, b| (a <= b).into()),
        (CmpOp::Lt, _) => ints!(prim, T => Some(|a, b| (T::of(a) < T::of(b)).into())),
        (CmpOp::Le, _) => ints!(prim, T => Some(|a, b| (T::of(a) <= T::of(b)).into())),
        (CmpOp::Gt, _) => ints!(prim, T => Some(|a, b| (T::of(a) > T::of(b)).into())),
        (CmpOp::Ge, _) => ints!(prim, T => Some(|a, b| (T::of(a) >= T::of(b)).into())),
    }
}

fn float_cmp(op: CmpOp, prim: Prim) -> Option<Fn2> {
    match op {
        CmpOp::Eq => floats!(prim, T => Some(|a, b| (T::of(a) == T::of(b)).into())),
        CmpOp::Ne => floats!(prim, T => Some(|a, b| (T::of(a) != T::of(b)).into())),
        CmpOp::Lt => floats!(prim, T => Some(|a, b| (T::of(a) < T::of(b)).into())),
        CmpOp::Le => floats!(prim, T => Some(|a, b| (T::of(a) <= T::of(b)).into())),
        CmpOp::Gt => floats!(prim, T => Some(|a, b| (T::of(a) > T::of(b)).into())),
        CmpOp::Ge => floats!(prim, T => Some(|a, b| (T::of(a) >= T::of(b)).into())),
        CmpOp::Ult | CmpOp::Ule => None,
    }
}

/// An overflow test.
pub fn ovf(op: OvfOp, prim: Prim) -> Option<Fn2> {
    match op {
        OvfOp::Add => ints!(prim, T => Some(|a, b| T::of(a).checked_add(T::of(b)).is_none().into())),
        OvfOp::Sub => ints!(prim, T => Some(|a, b| T::of(a).checked_sub(T::of(b)).is_none().into())),
        OvfOp::Mul => ints!(prim, T => Some(|a, b| T::of(a).checked_mul(T::of(b)).is_none().into())),
    }
}

/// `a * b + c` with one rounding.
pub fn fma(prim: Prim) -> Option<Fn3> {
    floats!(prim, T => Some(|a, b, c| T::of(a).mul_add(T::of(b), T::of(c)).cell()))
}

/// `a + sum(b[i] * c[i])` over four bytes, those of `b` unsigned and those of `c` signed, wrapping.
pub fn dot4(a: Cell, b: Cell, c: Cell) -> Cell {
    let products = (0..4).map(|i| i32::from((b >> (8 * i)) as u8) * i32::from((c >> (8 * i)) as i8));
    products.fold(i32::of(a), i32::wrapping_add).cell()
}

/// The operation by which a reduction joins two lanes.
pub fn reduce(op: ReduceOp, prim: Prim) -> Option<Fn2> {
    let op = match op {
        ReduceOp::Add => BinOp::Add,
        ReduceOp::Min => BinOp::Min,
        ReduceOp::Max => BinOp::Max,
        ReduceOp::And => BinOp::And,
        ReduceOp::Or => BinOp::Or,
    };
    match bin(op, prim)? {
        Binary::Total(f) => Some(f),
        Binary::Partial(_) => None,
    }
}

/// A conversion of one lane; `Bitcast` is not one.
pub fn cast(op: CastOp, from: Prim, to: Prim) -> Option<Fn1> {
    match op {
        CastOp::ZExt if from.is_int() && to.is_int() => Some(|a| a),
        CastOp::SExt => sign_extend(from, to),
        CastOp::Trunc if from.is_int() => truncate(to),
        CastOp::SiToFp => ints!(from, I => match to {
            Prim::F16 => Some(|a| f16::from_f32(narrow_to_odd(to_odd(I::of(a)))).cell()),
            Prim::BF16 => Some(|a| bf16::from_f32(narrow_to_odd(to_odd(I::of(a)))).cell()),
            _ => floats!(to, T => Some(|a| (I::of(a) as T).cell())),
        }),
        CastOp::UiToFp if from.is_int() => match to {
            Prim::F16 => Some(|a| f16::from_f32(narrow_to_odd(magnitude_to_odd(a))).cell()),
            Prim::BF16 => Some(|a| bf16::from_f32(narrow_to_odd(magnitude_to_odd(a))).cell()),
            _ => floats!(to, T => Some(|a| (a as T).cell())),
        },
        CastOp::FpToSi => ints!(to, I => match from {
            Prim::F16 => Some(|a| (f16::of(a).to_f32() as I).cell()),
            Prim::BF16 => Some(|a| (bf16::of(a).to_f32() as I).cell()),
            _ => floats!(from, T => Some(|a| (T::of(a) as I).cell())),
        }),
        CastOp::FpExt | CastOp::FpTrunc => resize_float(from, to),
        _ => None,
    }
}

/// An integer as an `f64` that rounds to narrower floats as the integer itself does: where bits are lost, the last
/// one that is kept is set.
fn to_odd(value: impl Into<i128>) -> f64 {
    let value = value.into();
    let magnitude = magnitude_to_odd(value.unsigned_abs());
    if value < 0 { -magnitude } else { magnitude }
}

fn magnitude_to_odd(value: u128) -> f64 {
    let lost = (128 - value.leading_zeros()).saturating_sub(f64::MANTISSA_DIGITS);
    let kept = value >> lost;
    let odd = kept | u128::from(kept << lost != value);
    (odd << lost) as f64
}

/// The same from `f64` to `f32`; `half` itself forgets the low bits of an `f64`.
fn narrow_to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return near;
    }
    let away = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(away)) | 1)
}

fn sign_extend(from: Prim, to: Prim) -> Option<Fn1> {
    match from {
        Prim::Bool => ints!(to, T => Some(|a| (-(a as T)).cell())),
        _ => ints!(to, T => ints!(from, I => Some(|a| (I::of(a) as T).cell()))),
    }
}

fn truncate(to: Prim) -> Option<Fn1> {
    match to {
        Prim::Bool => Some(|a| a & 1),
        _ => ints!(to, T => Some(|a| T::of(a).cell())),
    }
}

/// From one float type to another; the halves go through a wider type only where that is exact.
fn resize_float(from: Prim, to: Prim) -> Option<Fn1> {
    match (from, to) {
        (Prim::F16, Prim::F32) => Some(|a| f16::of(a).to_f32().cell()),
        (Prim::F16, Prim::F64) => Some(|a| f16::of(a).to_f64().cell()),
        (Prim::BF16, Prim::F32) => Some(|a| bf16::of(a).to_f32().cell()),
        (Prim::BF16, Prim::F64) => Some(|a| bf16::of(a).to_f64().cell()),
        (Prim::F32, Prim::F64) => Some(|a| f64::from(f32::of(a)).cell()),
        (Prim::F64, Prim::F32) => Some(|a| (f64::of(a) as f32).cell()),
        (Prim::F32, Prim::F16) => Some(|a| f16::from_f32(f32::of(a)).cell()),
        (Prim::F64, Prim::F16) => Some(|a| f16::from_f32(narrow_to_odd(f64::of(a))).cell()),
        (Prim::F32, Prim::BF16) => Some(|a| bf16::from_f32(f32::of(a)).cell()),
        (Prim::F64, Prim::BF16) => Some(|a| bf16::from_f32(narrow_to_odd(f64::of(a))).cell()),
        _ => None,
    }
}
