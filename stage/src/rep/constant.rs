//! Rust values in the place of `Rep`s: `r.f64("x") * 0.5`, `r.date("day").lt(date("1995-01-01"))`.

use super::marker::{
    BF16, Bool, Date, Decimal, Dyn, ElementMarker, F16, F32, F64, I8, I16, I32, I64, Interval, Str, Tensor, Timestamp,
    U8,
};
use super::stage::{Rep, Stage};
use crate::graph::{Literal, Op, Scalar};
use std::marker::PhantomData;

/// Can stand where a value of the type `T` is expected.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot stand for a staged value of the type `{T}`")]
pub trait IntoRep<'s, T> {
    /// The value in a program.
    fn into_rep(self, stage: &'s Stage) -> Rep<'s, T>;
}

/// A value whose own type tells its staged type: a `Rep`, `f64`, `&str`, [`date`] ..
pub trait Natural<'s>: IntoRep<'s, Self::Marker> {
    /// The staged type.
    type Marker;
}

impl<'s, T> IntoRep<'s, T> for Rep<'s, T> {
    fn into_rep(self, _: &'s Stage) -> Rep<'s, T> {
        self
    }
}

impl<'s, T> Natural<'s> for Rep<'s, T> {
    type Marker = T;
}

/// A scalar where a tensor is expected is one of rank 0 and broadcasts.
impl<'s, T: ElementMarker> IntoRep<'s, Tensor<T>> for Rep<'s, T> {
    fn into_rep(self, _: &'s Stage) -> Rep<'s, Tensor<T>> {
        self.retag()
    }
}

/// A constant made from text or parts; text that is no value of its type is reported by `Stage::finish`.
#[derive(Clone, Debug)]
pub struct Constant<T> {
    literal: Result<Literal, String>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Constant<T> {
    fn new(literal: Option<Literal>, expected: impl FnOnce() -> String) -> Constant<T> {
        Constant { literal: literal.ok_or_else(expected), marker: PhantomData }
    }
}

/// A day: `date("1994-01-01")`.
pub fn date(text: &str) -> Constant<Date> {
    Constant::new(Literal::parse_date(text), || format!("expected a date such as 1994-01-01, found {text:?}"))
}

/// A decimal with as many digits as are written: `dec("0.05")`.
pub fn dec(text: &str) -> Constant<Decimal> {
    Constant::new(Literal::parse_decimal(text), || format!("expected a decimal such as 0.05, found {text:?}"))
}

/// A number of months.
pub fn interval_months(months: i32) -> Constant<Interval> {
    Constant::new(Some(Literal::interval(months, 0, 0)), String::new)
}

/// A number of days.
pub fn interval_days(days: i32) -> Constant<Interval> {
    Constant::new(Some(Literal::interval(0, days, 0)), String::new)
}

/// Microseconds since 1970-01-01 00:00:00.
pub fn timestamp_micros(micros: i64) -> Constant<Timestamp> {
    Constant::new(Some(Literal::timestamp(micros)), String::new)
}

impl<'s, T: ElementMarker> IntoRep<'s, T> for Constant<T> {
    #[track_caller]
    fn into_rep(self, stage: &'s Stage) -> Rep<'s, T> {
        match self.literal {
            Ok(literal) => stage.make(Op::Const(literal), &[]),
            Err(message) => stage.fail("scalar.const", message),
        }
    }
}

impl<'s, T: ElementMarker> Natural<'s> for Constant<T> {
    type Marker = T;
}

impl<'s, T: ElementMarker> IntoRep<'s, Dyn> for Constant<T> {
    #[track_caller]
    fn into_rep(self, stage: &'s Stage) -> Rep<'s, Dyn> {
        IntoRep::<T>::into_rep(self, stage).dyn_()
    }
}

impl<'s> IntoRep<'s, Dyn> for Literal {
    #[track_caller]
    fn into_rep(self, stage: &'s Stage) -> Rep<'s, Dyn> {
        stage.make(Op::Const(self), &[])
    }
}

impl<'s> Natural<'s> for Literal {
    type Marker = Dyn;
}

/// `value as Rust type` can stand for these markers; the literal cannot fail for them.
macro_rules! rust_values {
    ($($rust:ty => $($marker:ty),+: $literal:expr;)*) => {
        $($(
            impl<'s> IntoRep<'s, $marker> for $rust {
                #[track_caller]
                fn into_rep(self, stage: &'s Stage) -> Rep<'s, $marker> {
                    let literal: fn($rust) -> Option<Literal> = $literal;
                    match literal(self) {
                        Some(literal) => stage.make(Op::Const(literal), &[]),
                        None => stage.fail("scalar.const", "the value does not fit its type"),
                    }
                }
            }
        )+)*
    };
}

rust_values! {
    bool => Bool, Dyn: |v| Some(Literal::bool(v));
    i8 => I8, Tensor<I8>: |v| Literal::int(Scalar::I8, v.into());
    u8 => U8, Tensor<U8>: |v| Literal::int(Scalar::U8, v.into());
    i16 => I16, Tensor<I16>: |v| Literal::int(Scalar::I16, v.into());
    i32 => I32, Tensor<I32>: |v| Literal::int(Scalar::I32, v.into());
    i64 => I64, Tensor<I64>, Dyn: |v| Some(Literal::i64(v));
    i64 => Decimal: |v| Literal::parse_decimal(&v.to_string());
    f32 => F16, Tensor<F16>: |v| Literal::float(Scalar::F16, v.into());
    f32 => BF16, Tensor<BF16>: |v| Literal::float(Scalar::BF16, v.into());
    f32 => F32, Tensor<F32>: |v| Literal::float(Scalar::F32, v.into());
    f64 => F64, Tensor<F64>, Dyn: |v| Literal::float(Scalar::F64, v);
    &str => Str, Dyn: |v| Some(Literal::string(v));
    String => Str, Dyn: |v| Some(Literal::string(v));
}

macro_rules! natural {
    ($($rust:ty => $marker:ty;)*) => {
        $(
            impl<'s> Natural<'s> for $rust {
                type Marker = $marker;
            }
        )*
    };
}

natural! {
    bool => Bool;
    i8 => I8;
    u8 => U8;
    i16 => I16;
    i32 => I32;
    i64 => I64;
    f32 => F32;
    f64 => F64;
    &str => Str;
    String => Str;
}
