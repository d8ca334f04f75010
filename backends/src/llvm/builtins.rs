//! What LLVM calls for operations on 128-bit integers and half floats that the processor has no instruction for.
//! C programs get these from their compiler's support library, which a Rust program does not export.

use half::{bf16, f16};

macro_rules! builtins {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)*) => {
        $(
            extern "C" fn $name($($arg: $ty),*) -> $ret $body
        )*

        /// Names and addresses.
        pub(super) fn symbols() -> Vec<(&'static str, usize)> {
            vec![$((stringify!($name), $name as *const () as usize),)*]
        }
    };
}

// A division by zero is excluded by the generator; an abort is the honest answer to a generator's bug.
builtins! {
    __divti3(a: i128, b: i128) -> i128 { a.wrapping_div(b) }
    __modti3(a: i128, b: i128) -> i128 { a.wrapping_rem(b) }
    __udivti3(a: u128, b: u128) -> u128 { a / b }
    __umodti3(a: u128, b: u128) -> u128 { a % b }
    __multi3(a: i128, b: i128) -> i128 { a.wrapping_mul(b) }
    __floattisf(a: i128) -> f32 { a as f32 }
    __floattidf(a: i128) -> f64 { a as f64 }
    __floatuntisf(a: u128) -> f32 { a as f32 }
    __floatuntidf(a: u128) -> f64 { a as f64 }
    __fixsfti(a: f32) -> i128 { a as i128 }
    __fixdfti(a: f64) -> i128 { a as i128 }
    __truncsfhf2(a: f32) -> HalfRegister { HalfRegister::new(f16::from_f32(a).to_bits()) }
    __truncdfhf2(a: f64) -> HalfRegister { HalfRegister::new(f16::from_f64(a).to_bits()) }
    __truncsfbf2(a: f32) -> HalfRegister { HalfRegister::new(bf16::from_f32(a).to_bits()) }
    __truncdfbf2(a: f64) -> HalfRegister { HalfRegister::new(bf16::from_f64(a).to_bits()) }
    __extendhfsf2(a: HalfRegister) -> f32 { f16::from_bits(a.bits()).to_f32() }
}

/// Half floats travel in the low bits of a float register.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct HalfRegister(f32);

impl HalfRegister {
    fn new(bits: u16) -> HalfRegister {
        HalfRegister(f32::from_bits(bits.into()))
    }

    fn bits(self) -> u16 {
        self.0.to_bits() as u16
    }
}
