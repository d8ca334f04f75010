//! Types of the low-level program: machine scalars, SIMD vectors of them, and pointers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A machine scalar. Signedness belongs to the operation, not to the type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Prim {
    /// One truth value; one byte (0 or 1) in memory.
    Bool,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 128-bit integer, 16-byte aligned in memory.
    I128,
    /// IEEE 754 binary16; only loads, stores and casts.
    F16,
    /// bfloat16; only loads, stores and casts.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// An address.
    Ptr,
}

impl Prim {
    /// All primitives, in declaration order.
    pub const ALL: [Prim; 11] = [
        Prim::Bool,
        Prim::I8,
        Prim::I16,
        Prim::I32,
        Prim::I64,
        Prim::I128,
        Prim::F16,
        Prim::BF16,
        Prim::F32,
        Prim::F64,
        Prim::Ptr,
    ];

    /// Size in memory, in bytes; also the natural alignment.
    pub const fn bytes(self) -> usize {
        match self {
            Prim::Bool | Prim::I8 => 1,
            Prim::I16 | Prim::F16 | Prim::BF16 => 2,
            Prim::I32 | Prim::F32 => 4,
            Prim::I64 | Prim::F64 | Prim::Ptr => 8,
            Prim::I128 => 16,
        }
    }

    /// Width of an integer in bits (`Bool` is 1), `None` for anything else.
    pub const fn int_bits(self) -> Option<u32> {
        match self {
            Prim::Bool => Some(1),
            Prim::I8 => Some(8),
            Prim::I16 => Some(16),
            Prim::I32 => Some(32),
            Prim::I64 => Some(64),
            Prim::I128 => Some(128),
            _ => None,
        }
    }

    /// An integer or `Bool`.
    pub const fn is_int(self) -> bool {
        self.int_bits().is_some()
    }

    /// A floating-point type, storage-only ones included.
    pub const fn is_float(self) -> bool {
        matches!(self, Prim::F16 | Prim::BF16 | Prim::F32 | Prim::F64)
    }

    /// The name used in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Prim::Bool => "bool",
            Prim::I8 => "i8",
            Prim::I16 => "i16",
            Prim::I32 => "i32",
            Prim::I64 => "i64",
            Prim::I128 => "i128",
            Prim::F16 => "f16",
            Prim::BF16 => "bf16",
            Prim::F32 => "f32",
            Prim::F64 => "f64",
            Prim::Ptr => "ptr",
        }
    }
}

/// The type of a low-level value: a primitive, or a SIMD vector of `lanes` of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ty {
    /// Element type.
    pub prim: Prim,
    /// Number of lanes; 1 is a scalar.
    pub lanes: u16,
}

impl Ty {
    /// Scalar `bool`.
    pub const BOOL: Ty = Ty::scalar(Prim::Bool);
    /// Scalar `i8`.
    pub const I8: Ty = Ty::scalar(Prim::I8);
    /// Scalar `i16`.
    pub const I16: Ty = Ty::scalar(Prim::I16);
    /// Scalar `i32`.
    pub const I32: Ty = Ty::scalar(Prim::I32);
    /// Scalar `i64`.
    pub const I64: Ty = Ty::scalar(Prim::I64);
    /// Scalar `i128`.
    pub const I128: Ty = Ty::scalar(Prim::I128);
    /// Scalar `f32`.
    pub const F32: Ty = Ty::scalar(Prim::F32);
    /// Scalar `f64`.
    pub const F64: Ty = Ty::scalar(Prim::F64);
    /// An address.
    pub const PTR: Ty = Ty::scalar(Prim::Ptr);

    /// The scalar type of `prim`.
    pub const fn scalar(prim: Prim) -> Ty {
        Ty { prim, lanes: 1 }
    }

    /// A vector of `lanes` of `prim`.
    pub const fn vector(prim: Prim, lanes: u16) -> Ty {
        Ty { prim, lanes }
    }

    /// The same number of lanes of another primitive.
    pub const fn with_prim(self, prim: Prim) -> Ty {
        Ty { prim, lanes: self.lanes }
    }

    /// More than one lane.
    pub const fn is_vector(self) -> bool {
        self.lanes > 1
    }

    /// Size in memory, in bytes.
    pub const fn bytes(self) -> usize {
        self.prim.bytes() * self.lanes as usize
    }
}

impl fmt::Display for Prim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => self.prim.fmt(f),
            n => write!(f, "{}x{n}", self.prim),
        }
    }
}
