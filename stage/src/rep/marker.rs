//! The types that a `Rep` may have, and which of them have which operations.
//!
//! None of these types has values; they only stand in `Rep<'s, T>`.

use crate::graph::{Scalar, Ty};

mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// A type that a `Rep` may have.
pub trait Marker: Sealed + 'static {
    /// Is a type of the graph one that this marker stands for?
    fn accepts(ty: &Ty) -> bool;
    /// What it is called in messages.
    fn name() -> String;
}

/// A scalar type that is wholly known from its marker (a decimal is not: it has a precision).
pub trait ScalarMarker: ElementMarker {
    /// The type.
    const SCALAR: Scalar;
}

/// A scalar type.
pub trait ElementMarker: Elementwise {
    /// Is a scalar type one that this marker stands for?
    fn is(scalar: Scalar) -> bool;
}

/// Scalars, columns and tensors, on which elementwise operations work.
pub trait Elementwise: Marker {
    /// The same shape with other elements.
    type With<U: ElementMarker>: Elementwise;
}

/// Has `+ - * / %`, negation, `abs` and `relu`.
pub trait Arith: Elementwise {
    /// The type of a quotient: decimals divide as `F64`.
    type Quotient: Elementwise;
}

/// Has exponentials, roots and the like.
pub trait FloatLike: Arith {}

/// The floats that networks are trained in: `F32` and `F64`.
pub trait Float: ScalarMarker + FloatLike + Comparable + Arith<Quotient = Self> + Summable<Sum = Self> {}

impl Float for F32 {}
impl Float for F64 {}

/// Has `& | !`.
pub trait Logic: Elementwise {}

/// Has comparisons.
pub trait Comparable: Elementwise {}

/// Has `like` and `substring`.
pub trait TextLike: Elementwise {}

/// Has `year`, `month` and `day`.
pub trait DateLike: Elementwise {}

/// Can be summed over the rows of a table.
pub trait Summable: Arith {
    /// The type of the sum.
    type Sum: Elementwise;
}

macro_rules! markers {
    ($($(#[$doc:meta])* $name:ident $([$scalar:ident])? : $text:literal, $($has:ident $(<$result:ident>)?),*;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}
            impl Sealed for $name {}
            impl Marker for $name {
                fn accepts(ty: &Ty) -> bool {
                    // A column is a tensor over rows; more dimensions are a `Tensor`.
                    ty.as_tensor().is_some_and(|(elem, shape)| shape.len() <= 1 && Self::is(elem.scalar))
                }
                fn name() -> String {
                    $text.to_owned()
                }
            }
            impl Elementwise for $name {
                type With<U: ElementMarker> = U;
            }
            markers!(@is $name $($scalar)?);
            $(markers!(@has $name $has $($result)?);)*
        )*
    };
    (@is $name:ident $scalar:ident) => {
        impl ElementMarker for $name {
            fn is(scalar: Scalar) -> bool {
                scalar == Scalar::$scalar
            }
        }
        impl ScalarMarker for $name {
            const SCALAR: Scalar = Scalar::$scalar;
        }
    };
    (@is $name:ident) => {
        impl ElementMarker for $name {
            fn is(scalar: Scalar) -> bool {
                matches!(scalar, Scalar::Decimal { .. })
            }
        }
    };
    (@has $name:ident Arith $quotient:ident) => {
        impl Arith for $name {
            type Quotient = $quotient;
        }
    };
    (@has $name:ident Summable $sum:ident) => {
        impl Summable for $name {
            type Sum = $sum;
        }
    };
    (@has $name:ident $has:ident) => {
        impl $has for $name {}
    };
}

markers! {
    /// Truth value.
    Bool[Bool]: "bool", Logic, Comparable;
    /// Signed 8-bit integer.
    I8[I8]: "i8", Arith<I8>, Comparable, Summable<I64>;
    /// Unsigned 8-bit integer.
    U8[U8]: "u8", Arith<U8>, Comparable, Summable<I64>;
    /// Signed 16-bit integer.
    I16[I16]: "i16", Arith<I16>, Comparable, Summable<I64>;
    /// Signed 32-bit integer.
    I32[I32]: "i32", Arith<I32>, Comparable, Summable<I64>;
    /// Signed 64-bit integer.
    I64[I64]: "i64", Arith<I64>, Comparable, Summable<I64>;
    /// IEEE 754 binary16.
    F16[F16]: "f16", Arith<F16>, Comparable, FloatLike, Summable<F32>;
    /// bfloat16.
    BF16[BF16]: "bf16", Arith<BF16>, Comparable, FloatLike, Summable<F32>;
    /// IEEE 754 binary32.
    F32[F32]: "f32", Arith<F32>, Comparable, FloatLike, Summable<F32>;
    /// IEEE 754 binary64.
    F64[F64]: "f64", Arith<F64>, Comparable, FloatLike, Summable<F64>;
    /// Exact decimal of any precision and scale.
    Decimal: "a decimal", Arith<F64>, Comparable, Summable<Decimal>;
    /// Calendar day.
    Date[Date]: "date", Comparable, DateLike;
    /// Microseconds since 1970.
    Timestamp[Timestamp]: "timestamp", Comparable, DateLike;
    /// Months, days and microseconds.
    Interval[Interval]: "interval",;
    /// Text.
    Str[String]: "string", Comparable, TextLike;
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub enum Table {}
impl Sealed for Table {}
impl Marker for Table {
    fn accepts(ty: &Ty) -> bool {
        ty.as_table().is_some()
    }
    fn name() -> String {
        "a table".to_owned()
    }
}

/// A tensor of any rank with elements of the type `T`.
pub struct Tensor<T>(std::marker::PhantomData<fn() -> T>, std::convert::Infallible);
impl<T> Sealed for Tensor<T> {}
impl<T: ElementMarker> Marker for Tensor<T> {
    fn accepts(ty: &Ty) -> bool {
        ty.as_tensor().is_some_and(|(elem, _)| T::is(elem.scalar))
    }
    fn name() -> String {
        format!("a tensor of {}", T::name())
    }
}
impl<T: ElementMarker> Elementwise for Tensor<T> {
    type With<U: ElementMarker> = Tensor<U>;
}
impl<T: ElementMarker + Arith<Quotient: ElementMarker>> Arith for Tensor<T> {
    type Quotient = Tensor<T::Quotient>;
}
impl<T: ElementMarker + FloatLike<Quotient: ElementMarker>> FloatLike for Tensor<T> {}
impl<T: ElementMarker + Comparable> Comparable for Tensor<T> {}
impl Logic for Tensor<Bool> {}

/// A value whose type is known only when the program is built.
#[derive(Clone, Copy, Debug)]
pub enum Dyn {}
impl Sealed for Dyn {}
impl Marker for Dyn {
    fn accepts(_: &Ty) -> bool {
        true
    }
    fn name() -> String {
        "anything".to_owned()
    }
}
impl Elementwise for Dyn {
    type With<U: ElementMarker> = Dyn;
}
impl Arith for Dyn {
    type Quotient = Dyn;
}
impl Summable for Dyn {
    type Sum = Dyn;
}
impl FloatLike for Dyn {}
impl Logic for Dyn {}
impl Comparable for Dyn {}
impl TextLike for Dyn {}
impl DateLike for Dyn {}
