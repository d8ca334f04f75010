//! The rows that closures of table operators see.

use super::marker::{
    BF16, Bool, Date, Decimal, Dyn, ElementMarker, F16, F32, F64, I8, I16, I32, I64, Interval, Marker, Str, Table,
    Tensor, Timestamp, U8,
};
use super::stage::Rep;
use crate::graph::Op;

/// Any row of a table: its columns by name.
#[derive(Clone, Copy, Debug)]
pub struct Row<'s> {
    table: Rep<'s, Table>,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $method:ident: $marker:ident;)*) => {
        impl<'s> Row<'s> {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(self, name: &str) -> Rep<'s, $marker> {
                    self.get(name)
                }
            )*
        }
    };
}

getters! {
    /// A column of truth values.
    bool: Bool;
    /// A column of signed 8-bit integers.
    i8: I8;
    /// A column of unsigned 8-bit integers.
    u8: U8;
    /// A column of signed 16-bit integers.
    i16: I16;
    /// A column of signed 32-bit integers.
    i32: I32;
    /// A column of signed 64-bit integers.
    i64: I64;
    /// A column of half-precision floats.
    f16: F16;
    /// A column of bfloat16 floats.
    bf16: BF16;
    /// A column of single-precision floats.
    f32: F32;
    /// A column of double-precision floats.
    f64: F64;
    /// A column of decimals.
    decimal: Decimal;
    /// A column of days.
    date: Date;
    /// A column of instants.
    timestamp: Timestamp;
    /// A column of intervals.
    interval: Interval;
    /// A column of text.
    str: Str;
    /// A column of any type.
    col: Dyn;
}

impl<'s> Row<'s> {
    pub(super) fn new(table: Rep<'s, Table>) -> Row<'s> {
        Row { table }
    }

    /// The column of that name. A missing one, or one of another type, is an error.
    #[track_caller]
    pub fn get<T: Marker>(self, name: &str) -> Rep<'s, T> {
        let column: Rep<'s, Dyn> = self.table.stage().make(Op::Column(name.to_owned()), &[self.table.dyn_()]);
        column.checked("bridge.column", &format!("column {name:?}"))
    }

    /// A column with a tensor in every row, as one tensor whose first dimension is the rows.
    #[track_caller]
    pub fn tensor<T: ElementMarker>(self, name: &str) -> Rep<'s, Tensor<T>> {
        self.get(name)
    }

    /// A column with a tensor of single-precision floats in every row.
    #[track_caller]
    pub fn f32s(self, name: &str) -> Rep<'s, Tensor<F32>> {
        self.get(name)
    }
}
