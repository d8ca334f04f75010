//! Operators and elementwise functions, of scalars, columns and tensors alike.
//!
//! Shapes broadcast as in NumPy; columns of different tables do not mix. A result is NULL where an operand is, unless
//! the function says otherwise. Overflow and division by zero are errors when the program runs.

use super::constant::{Constant, IntoRep};
use super::marker::{
    Arith, Bool, Comparable, Date, DateLike, Decimal, Elementwise, F32, F64, FloatLike, I32, I64, Interval, Logic,
    ScalarMarker, Str, Tensor, TextLike, Timestamp,
};
use super::stage::Rep;
use crate::graph::{BinaryOp, CompareOp, Literal, Op, Scalar, UnaryOp};
use std::ops;

impl<'s, T> Rep<'s, T> {
    #[track_caller]
    pub(super) fn unary<U>(self, op: UnaryOp) -> Rep<'s, U> {
        self.stage().make(Op::Unary(op), &[self.dyn_()])
    }

    #[track_caller]
    pub(super) fn binary<R, U>(self, op: BinaryOp, other: Rep<'s, R>) -> Rep<'s, U> {
        self.stage().make(Op::Binary(op), &[self.dyn_(), other.dyn_()])
    }
}

/// Operators whose both operands have the type of the result.
macro_rules! operators {
    ($($has:ident: $trait:ident, $method:ident, $op:ident, $result:ty;)*) => {
        $(
            impl<'s, T: $has, R: IntoRep<'s, T>> ops::$trait<R> for Rep<'s, T> {
                type Output = Rep<'s, $result>;
                #[track_caller]
                fn $method(self, other: R) -> Self::Output {
                    let other = other.into_rep(self.stage());
                    self.binary(BinaryOp::$op, other)
                }
            }
        )*
    };
}

operators! {
    Arith: Add, add, Add, T;
    Arith: Sub, sub, Sub, T;
    Arith: Mul, mul, Mul, T;
    Arith: Div, div, Div, T::Quotient;
    Arith: Rem, rem, Rem, T;
    Logic: BitAnd, bitand, And, T;
    Logic: BitOr, bitor, Or, T;
}

/// Operators with a Rust value on the left.
macro_rules! left_operators {
    ($($rust:ty => $($marker:ty),+;)*) => {
        $($(
            left_operators!(@one $rust, $marker, Add, add);
            left_operators!(@one $rust, $marker, Sub, sub);
            left_operators!(@one $rust, $marker, Mul, mul);
            left_operators!(@one $rust, $marker, Div, div);
        )+)*
    };
    (@one $rust:ty, $marker:ty, $trait:ident, $method:ident) => {
        impl<'s> ops::$trait<Rep<'s, $marker>> for $rust {
            type Output = <Rep<'s, $marker> as ops::$trait<Rep<'s, $marker>>>::Output;
            #[track_caller]
            fn $method(self, other: Rep<'s, $marker>) -> Self::Output {
                let value: Rep<'s, $marker> = self.into_rep(other.stage());
                ops::$trait::$method(value, other)
            }
        }
    };
}

left_operators! {
    f64 => F64, Tensor<F64>;
    f32 => F32, Tensor<F32>;
    i64 => I64, Decimal;
    i32 => I32;
    Constant<Decimal> => Decimal;
}

impl<'s, T: Arith> ops::Neg for Rep<'s, T> {
    type Output = Rep<'s, T>;
    #[track_caller]
    fn neg(self) -> Rep<'s, T> {
        self.unary(UnaryOp::Neg)
    }
}

impl<'s, T: Logic> ops::Not for Rep<'s, T> {
    type Output = Rep<'s, T>;
    #[track_caller]
    fn not(self) -> Rep<'s, T> {
        self.unary(UnaryOp::Not)
    }
}

/// Days and instants move by intervals.
macro_rules! moved_by_interval {
    ($($marker:ty),*) => {
        $(
            impl<'s, R: IntoRep<'s, Interval>> ops::Add<R> for Rep<'s, $marker> {
                type Output = Rep<'s, $marker>;
                #[track_caller]
                fn add(self, interval: R) -> Self::Output {
                    let interval = interval.into_rep(self.stage());
                    self.binary(BinaryOp::Add, interval)
                }
            }
            impl<'s> ops::Sub<Rep<'s, Interval>> for Rep<'s, $marker> {
                type Output = Rep<'s, $marker>;
                #[track_caller]
                fn sub(self, interval: Rep<'s, Interval>) -> Self::Output {
                    self.binary(BinaryOp::Sub, interval)
                }
            }
            impl<'s> ops::Sub<Constant<Interval>> for Rep<'s, $marker> {
                type Output = Rep<'s, $marker>;
                #[track_caller]
                fn sub(self, interval: Constant<Interval>) -> Self::Output {
                    let interval: Rep<'s, Interval> = interval.into_rep(self.stage());
                    self - interval
                }
            }
        )*
    };
}

moved_by_interval!(Date, Timestamp);

/// The difference of two days, in days.
impl<'s> ops::Sub<Rep<'s, Date>> for Rep<'s, Date> {
    type Output = Rep<'s, I32>;
    #[track_caller]
    fn sub(self, other: Rep<'s, Date>) -> Rep<'s, I32> {
        self.binary(BinaryOp::Sub, other)
    }
}

/// The difference of two days, in days.
impl<'s> ops::Sub<Constant<Date>> for Rep<'s, Date> {
    type Output = Rep<'s, I32>;
    #[track_caller]
    fn sub(self, other: Constant<Date>) -> Rep<'s, I32> {
        let other: Rep<'s, Date> = other.into_rep(self.stage());
        self - other
    }
}

impl<'s, T: Elementwise> Rep<'s, T> {
    /// Is the value NULL? Never NULL itself.
    #[track_caller]
    pub fn is_null(self) -> Rep<'s, T::With<Bool>> {
        self.unary(UnaryOp::IsNull)
    }

    /// The value, or another where it is NULL. NULL only where both are.
    #[track_caller]
    pub fn coalesce(self, other: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let other = other.into_rep(self.stage());
        self.binary(BinaryOp::Coalesce, other)
    }

    /// The value as another type. A value that does not fit is an error when the program runs; floats become integers
    /// toward zero.
    #[track_caller]
    pub fn cast<U: ScalarMarker>(self) -> Rep<'s, T::With<U>> {
        self.stage().make(Op::Cast(U::SCALAR), &[self.dyn_()])
    }

    /// The value as a decimal, rounded half away from zero.
    #[track_caller]
    pub fn cast_decimal(self, precision: u8, scale: u8) -> Rep<'s, T::With<Decimal>> {
        self.stage().make(Op::Cast(Scalar::decimal(precision, scale)), &[self.dyn_()])
    }
}

/// Methods that compare with a value of the same type.
macro_rules! comparisons {
    ($($(#[$doc:meta])* $method:ident = $op:ident;)*) => {
        impl<'s, T: Comparable> Rep<'s, T> {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(self, other: impl IntoRep<'s, T>) -> Rep<'s, T::With<Bool>> {
                    let other = other.into_rep(self.stage());
                    self.stage().make(Op::Compare(CompareOp::$op), &[self.dyn_(), other.dyn_()])
                }
            )*
        }
    };
}

comparisons! {
    /// Equal; NULL where an operand is.
    eq = Eq;
    /// Not equal; NULL where an operand is.
    ne = Ne;
    /// Less than; NULL where an operand is.
    lt = Lt;
    /// Less than or equal; NULL where an operand is.
    le = Le;
    /// Greater than; NULL where an operand is.
    gt = Gt;
    /// Greater than or equal; NULL where an operand is.
    ge = Ge;
}

impl<'s, T: Comparable<With<Bool>: Logic>> Rep<'s, T> {
    /// Between two bounds, both included.
    #[track_caller]
    pub fn between(self, low: impl IntoRep<'s, T>, high: impl IntoRep<'s, T>) -> Rep<'s, T::With<Bool>> {
        self.ge(low) & self.le(high)
    }

    /// In a half-open range, as Rust's are: `r.date("day").within(date("1994-01-01")..date("1995-01-01"))`.
    #[track_caller]
    pub fn within(self, range: ops::Range<impl IntoRep<'s, T>>) -> Rep<'s, T::With<Bool>> {
        self.ge(range.start) & self.lt(range.end)
    }

    /// Equal to one of the values; false if there are none.
    #[track_caller]
    pub fn is_in<V: IntoRep<'s, T>>(self, values: impl IntoIterator<Item = V>) -> Rep<'s, T::With<Bool>> {
        let mut result: Option<Rep<'s, T::With<Bool>>> = None;
        for value in values {
            let equal = self.eq(value);
            result = Some(match result {
                Some(found) => found | equal,
                None => equal,
            });
        }
        result.unwrap_or_else(|| self.stage().make(Op::Const(Literal::bool(false)), &[]))
    }
}

impl<'s, T: Arith> Rep<'s, T> {
    /// The smaller of two.
    #[track_caller]
    pub fn minimum(self, other: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let other = other.into_rep(self.stage());
        self.binary(BinaryOp::Min, other)
    }

    /// The larger of two.
    #[track_caller]
    pub fn maximum(self, other: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let other = other.into_rep(self.stage());
        self.binary(BinaryOp::Max, other)
    }

    /// Absolute value.
    #[track_caller]
    pub fn abs(self) -> Rep<'s, T> {
        self.unary(UnaryOp::Abs)
    }

    /// max(x, 0); NaN stays NaN.
    #[track_caller]
    pub fn relu(self) -> Rep<'s, T> {
        self.unary(UnaryOp::Relu)
    }
}

impl<'s, T: FloatLike> Rep<'s, T> {
    /// Arc sine; NaN outside of -1 to 1.
    #[track_caller]
    pub fn asin(self) -> Rep<'s, T> {
        let scalar = self.ty().and_then(|ty| Some(ty.as_tensor()?.0.scalar));
        let one =
            scalar.and_then(|scalar| Literal::float(scalar, 1.0)).map(|one| self.stage().make(Op::Const(one), &[]));
        let one: Rep<'s, T> = one.unwrap_or_else(|| self.stage().poisoned());
        let cosine: Rep<'s, T> = ((one - self) * (one + self)).sqrt();
        (self / cosine).retag::<T>().atan()
    }

    /// x^y.
    #[track_caller]
    pub fn pow(self, exponent: impl IntoRep<'s, T>) -> Rep<'s, T> {
        let exponent = exponent.into_rep(self.stage());
        self.binary(BinaryOp::Pow, exponent)
    }
}

/// Functions of one operand.
macro_rules! functions {
    ($has:ident: $result:ty { $($(#[$doc:meta])* $method:ident = $op:ident;)* }) => {
        impl<'s, T: $has> Rep<'s, T> {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(self) -> Rep<'s, $result> {
                    self.unary(UnaryOp::$op)
                }
            )*
        }
    };
}

functions! { FloatLike: T {
    /// e^x.
    exp = Exp;
    /// Natural logarithm.
    log = Log;
    /// Square root.
    sqrt = Sqrt;
    /// Hyperbolic tangent.
    tanh = Tanh;
    /// 1 / (1 + e^-x).
    sigmoid = Sigmoid;
    /// Error function.
    erf = Erf;
    /// Sine.
    sin = Sin;
    /// Cosine.
    cos = Cos;
    /// Arc tangent.
    atan = Atan;
    /// The value itself, taken as constant by gradients.
    detach = Detach;
    /// Rounded toward minus infinity.
    floor = Floor;
    /// Rounded toward plus infinity.
    ceil = Ceil;
}}

functions! { DateLike: T::With<I32> {
    /// Year.
    year = Year;
    /// Month, from 1.
    month = Month;
    /// Day of the month, from 1.
    day = Day;
}}

impl<'s, T: TextLike> Rep<'s, T> {
    /// Does the text match an SQL LIKE pattern (`%` any run, `_` any one character, `\` escapes)?
    #[track_caller]
    pub fn like(self, pattern: impl Into<String>) -> Rep<'s, T::With<Bool>> {
        self.stage().make(Op::Like(pattern.into()), &[self.dyn_()])
    }

    /// Does the text not match the pattern?
    #[track_caller]
    pub fn not_like(self, pattern: impl Into<String>) -> Rep<'s, T::With<Bool>> {
        self.like(pattern).unary(UnaryOp::Not)
    }

    /// At most `len` characters from the 1-based position `start`.
    #[track_caller]
    pub fn substring(self, start: u32, len: u32) -> Rep<'s, T::With<Str>> {
        self.stage().make(Op::Substring { start, len }, &[self.dyn_()])
    }
}
