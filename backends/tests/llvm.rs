//! Small programs through LLVM, each at every optimisation level, against answers worked out by hand.

#![cfg(any(feature = "llvm", feature = "llvm19"))]

use quearn_backends::llvm::Llvm;
use quearn_backends::runtime::{Run, RunConfig};
use quearn_backends::{Backend, BackendError, Code, CompileOptions, ObjectCode, OptLevel, abi};
use quearn_stage::low::build::ModuleBuilder;
use quearn_stage::low::*;

const LEVELS: [OptLevel; 3] = [OptLevel::None, OptLevel::Default, OptLevel::Aggressive];
const FRAME_PARAMS: [Ty; 4] = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
/// Where programs find their input.
const IN: i64 = abi::FRAME_SLOTS;
/// Where programs leave their output.
const OUT: i64 = 1024;

/// A frame with room for input and output.
#[repr(C, align(64))]
struct Frame([u8; 4096]);

impl Frame {
    fn new(run: &Run, input: &[u8]) -> Frame {
        let mut frame = Frame([0; 4096]);
        let header = run.header();
        frame.0[..8].copy_from_slice(&(header.run as usize).to_ne_bytes());
        frame.0[8..16].copy_from_slice(&header.workers.to_ne_bytes());
        frame.0[IN as usize..][..input.len()].copy_from_slice(input);
        frame
    }
}

fn compile(module: &Module, level: OptLevel, threads: usize) -> Box<dyn Code> {
    Llvm::new().compile(module, &CompileOptions { level, threads }).expect("the module compiles")
}

fn call(code: &dyn Code, func: FuncId, input: &[u8]) -> (i32, Frame) {
    let run = Run::new(RunConfig::default());
    let mut frame = Frame::new(&run, input);
    // SAFETY: the tests' programs stay within the frame.
    let status = unsafe { code.call(func, frame.0.as_mut_ptr(), &run) };
    (status, frame)
}

/// Runs the program that `body` builds; gives its status and the first `n` values of its output.
fn run<T: Plain, const N: usize>(input: &[u8], body: impl for<'b> Fn(&'b Builder, V<'b>) + Copy) -> (i32, [T; N]) {
    let builder = ModuleBuilder::new();
    let func = builder.func("main", &FRAME_PARAMS, |b, p| body(b, p[0]));
    let module = builder.build();
    let results = LEVELS.map(|level| {
        let (status, frame) = call(&*compile(&module, level, 1), func, input);
        (status, std::array::from_fn(|i| T::read(&frame.0[OUT as usize + i * size_of::<T>()..])))
    });
    assert!(results.iter().all(|r| *r == results[0]), "the levels disagree: {results:?}");
    results[0]
}

/// Like [`run`] for programs that succeed.
fn output<T: Plain, const N: usize>(input: &[u8], body: impl for<'b> Fn(&'b Builder, V<'b>) + Copy) -> [T; N] {
    let (status, values) = run(input, body);
    assert_eq!(status, 0);
    values
}

trait Plain: Copy + PartialEq + std::fmt::Debug {
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($ty:ty)*) => {
        $(impl Plain for $ty {
            fn read(bytes: &[u8]) -> $ty {
                <$ty>::from_ne_bytes(bytes[..size_of::<$ty>()].try_into().expect("enough bytes"))
            }
        })*
    };
}

plain! { u8 u16 i32 u32 i64 i128 f32 f64 }

fn bytes_of<T: Copy, const N: usize>(values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| to_bytes(v)).collect()
}

fn i64s(values: &[i64]) -> Vec<u8> {
    bytes_of(values, i64::to_ne_bytes)
}

fn i32s(values: &[i32]) -> Vec<u8> {
    bytes_of(values, i32::to_ne_bytes)
}

fn f32s(values: &[f32]) -> Vec<u8> {
    bytes_of(values, f32::to_ne_bytes)
}

fn f64s(values: &[f64]) -> Vec<u8> {
    bytes_of(values, f64::to_ne_bytes)
}

#[test]
fn integer_arithmetic() {
    let ops = [
        (BinOp::Add, -7 + 3),
        (BinOp::Sub, -7 - 3),
        (BinOp::Mul, -7 * 3),
        (BinOp::Div, -2),
        (BinOp::Rem, -1),
        (BinOp::UDiv, (-7i64 as u64 / 3) as i64),
        (BinOp::URem, (-7i64 as u64 % 3) as i64),
        (BinOp::And, -7 & 3),
        (BinOp::Or, -7 | 3),
        (BinOp::Xor, -7 ^ 3),
        (BinOp::Shl, -7 << 3),
        (BinOp::LShr, (-7i64 as u64 >> 3) as i64),
        (BinOp::AShr, -7 >> 3),
        (BinOp::Min, -7),
        (BinOp::Max, 3),
    ];
    for (op, expected) in ops {
        let [scalar] = output::<i64, 1>(&i64s(&[-7, 3]), |b, f| {
            b.store(f, OUT, b.load(Ty::I64, f, IN).bin(op, b.load(Ty::I64, f, IN + 8)));
        });
        assert_eq!(scalar, expected, "{}", op.name());
        let lanes = output::<i64, 4>(&i64s(&[-7, 3]), |b, f| {
            let (x, y) = (b.load(Ty::I64, f, IN).splat(4), b.load(Ty::I64, f, IN + 8).splat(4));
            b.store(f, OUT, x.bin(op, y));
        });
        assert_eq!(lanes, [expected; 4], "{}", op.name());
    }
}

#[test]
fn integer_unary() {
    let ops = [(UnOp::Neg, -40), (UnOp::Not, !40), (UnOp::Abs, 40), (UnOp::Ctz, 3), (UnOp::Clz, 26), (UnOp::Popcnt, 2)];
    for (op, expected) in ops {
        let values = output::<i32, 5>(&i32s(&[40]), |b, f| {
            let x = b.load(Ty::I32, f, IN);
            b.store(f, OUT, x.un(op));
            b.store(f, OUT + 4, x.splat(4).un(op));
        });
        assert_eq!(values, [expected; 5], "{}", op.name());
    }
    let corners = output::<i32, 3>(&i32s(&[0, i32::MIN]), |b, f| {
        let (zero, min) = (b.load(Ty::I32, f, IN), b.load(Ty::I32, f, IN + 4));
        b.store(f, OUT, zero.un(UnOp::Ctz));
        b.store(f, OUT + 4, zero.un(UnOp::Clz));
        b.store(f, OUT + 8, min.un(UnOp::Abs));
    });
    assert_eq!(corners, [32, 32, i32::MIN]);
}

#[test]
fn float_arithmetic() {
    let ops: [(BinOp, f64); 8] = [
        (BinOp::Add, 9.75),
        (BinOp::Sub, 5.25),
        (BinOp::Mul, 16.875),
        (BinOp::Div, 7.5 / 2.25),
        (BinOp::Rem, 0.75),
        (BinOp::Min, 2.25),
        (BinOp::Max, 7.5),
        (BinOp::Pow, 7.5f64.powf(2.25)),
    ];
    for (op, expected) in ops {
        let values = output::<f64, 5>(&f64s(&[7.5, 2.25]), |b, f| {
            let (x, y) = (b.load(Ty::F64, f, IN), b.load(Ty::F64, f, IN + 8));
            b.store(f, OUT, x.bin(op, y));
            b.store(f, OUT + 8, x.splat(4).bin(op, y.splat(4)));
        });
        assert_eq!(values, [expected; 5], "{}", op.name());
    }
    let nan = output::<f64, 2>(&f64s(&[f64::NAN, 1.0]), |b, f| {
        let (x, y) = (b.load(Ty::F64, f, IN), b.load(Ty::F64, f, IN + 8));
        b.store(f, OUT, x.min(y));
        b.store(f, OUT + 8, y.max(x));
    });
    assert_eq!(nan, [1.0, 1.0]);
}

#[test]
fn float_unary() {
    let ops: [(UnOp, f32); 10] = [
        (UnOp::Neg, -2.5),
        (UnOp::Abs, 2.5),
        (UnOp::Sqrt, 2.5f32.sqrt()),
        (UnOp::Exp, 2.5f32.exp()),
        (UnOp::Log, 2.5f32.ln()),
        (UnOp::Sin, 2.5f32.sin()),
        (UnOp::Cos, 2.5f32.cos()),
        (UnOp::Floor, 2.0),
        (UnOp::Ceil, 3.0),
        (UnOp::Round, 2.0),
    ];
    for (op, expected) in ops {
        let values = output::<f32, 5>(&f32s(&[2.5]), |b, f| {
            let x = b.load(Ty::F32, f, IN);
            b.store(f, OUT, x.un(op));
            b.store(f, OUT + 4, x.splat(4).un(op));
        });
        assert_eq!(values, [expected; 5], "{}", op.name());
    }
}

#[test]
fn fused_multiply_add_rounds_once() {
    let x = 1.0 + f64::EPSILON;
    let [fused] = output::<f64, 1>(&f64s(&[x, x, -1.0]), |b, f| {
        let at = |i: i64| b.load(Ty::F64, f, IN + 8 * i);
        b.store(f, OUT, at(0).fma(at(1), at(2)));
    });
    assert_eq!(fused, x.mul_add(x, -1.0));
}

#[test]
fn comparisons() {
    let tests = [
        (CmpOp::Eq, 0, 0),
        (CmpOp::Ne, 1, 1),
        (CmpOp::Lt, 1, 0),
        (CmpOp::Le, 1, 0),
        (CmpOp::Gt, 0, 0),
        (CmpOp::Ge, 0, 0),
    ];
    for (op, of_ints, of_nan) in tests {
        let input = [i64s(&[-1, 1]), f64s(&[f64::NAN, 1.0])].concat();
        let values = output::<u8, 3>(&input, |b, f| {
            let int = |i: i64| b.load(Ty::I64, f, IN + 8 * i);
            let float = |i: i64| b.load(Ty::F64, f, IN + 16 + 8 * i);
            b.store(f, OUT, int(0).cmp(op, int(1)));
            b.store(f, OUT + 1, int(0).splat(2).cmp(op, int(1).splat(2)).extract(1));
            b.store(f, OUT + 2, float(0).cmp(op, float(1)));
        });
        assert_eq!(values, [of_ints, of_ints, of_nan], "{}", op.name());
    }
    let unsigned = output::<u8, 2>(&i64s(&[-1, 1]), |b, f| {
        let (x, y) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
        b.store(f, OUT, x.ult(y));
        b.store(f, OUT + 1, y.ule(x));
    });
    assert_eq!(unsigned, [0, 1]);
}

#[test]
fn overflow_tests_share_the_arithmetic() {
    let tests = [(OvfOp::Add, i64::MAX, 1, 1), (OvfOp::Sub, i64::MIN, 1, 1), (OvfOp::Mul, 1 << 62, 2, 1)];
    let safe = [(OvfOp::Add, 5, 1, 0), (OvfOp::Sub, 5, 1, 0), (OvfOp::Mul, 5, 2, 0)];
    for (op, x, y, expected) in tests.into_iter().chain(safe) {
        let (bin, exact) = match op {
            OvfOp::Add => (BinOp::Add, x.wrapping_add(y)),
            OvfOp::Sub => (BinOp::Sub, x.wrapping_sub(y)),
            OvfOp::Mul => (BinOp::Mul, x.wrapping_mul(y)),
        };
        let values = output::<i64, 4>(&i64s(&[x, y]), |b, f| {
            let (x, y) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
            b.store(f, OUT, x.bin(bin, y));
            b.store(f, OUT + 8, x.overflows(op, y).zext(Prim::I64));
            b.store(f, OUT + 16, x.splat(2).overflows(op, y.splat(2)).extract(1).zext(Prim::I64));
            b.store(f, OUT + 24, x.splat(2).bin(bin, y.splat(2)).extract(0));
        });
        assert_eq!(values, [exact, expected, expected, exact], "{}", op.name());
    }
}

#[test]
fn an_overflow_test_after_an_inner_use_does_not_reach_into_it() {
    let values = output::<i64, 2>(&i64s(&[i64::MAX, 1]), |b, f| {
        let (x, y) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
        b.if_(x.gt(y), || b.store(f, OUT, x + y));
        b.store(f, OUT + 8, x.overflows(OvfOp::Add, y).zext(Prim::I64));
    });
    assert_eq!(values, [i64::MIN, 1]);
}

#[test]
fn products_of_bytes() {
    fn expected(sum: i32, b: i32, c: i32) -> i32 {
        let products = b.to_le_bytes().into_iter().zip(c.to_le_bytes());
        products.fold(sum, |sum, (b, c)| sum.wrapping_add(i32::from(b) * i32::from(c as i8)))
    }
    // The largest products of both signs, sums that wrap, and what is in no order.
    let sums = [i32::MAX, i32::MIN, 0, 0, 1, -1, 7, 1000, -5, 6, 12, 13, 14, 15, 16, 17];
    let b: Vec<i32> = (0..16).map(|i: i32| if i < 3 { -1 } else { i.wrapping_mul(0x9E37_79B9_u32 as i32) }).collect();
    let c: Vec<i32> =
        (0..16).map(|i: i32| [0x7F7F_7F7F, i32::MIN, -1][i as usize % 3] ^ (i / 3 * 0x0102_0304)).collect();
    let input: Vec<u8> = sums.iter().chain(&b).chain(&c).flat_map(|x| x.to_ne_bytes()).collect();
    for lanes in [1, 2, 4, 8, 16] {
        let values = output::<i32, 16>(&input, |builder, f| {
            let ty = Ty::vector(Prim::I32, lanes);
            for i in (0..16).step_by(lanes.into()) {
                let at = |operand: i64| builder.load(ty, f, IN + 64 * operand + 4 * i);
                builder.store(f, OUT + 4 * i, at(0).dot4(at(1), at(2)));
            }
        });
        let expected: Vec<i32> = (0..16).map(|i| expected(sums[i], b[i], c[i])).collect();
        assert_eq!(values[..], expected, "{lanes} lanes");
    }
}

#[test]
fn wide_integers() {
    let (x, y) = (-170_141_183_460_469_231_731_687_303_715_884_i128, 1_000_000_007_i128);
    let input = bytes_of(&[x, y], i128::to_ne_bytes);
    let values = output::<i128, 8>(&input, |b, f| {
        let (x, y) = (b.load(Ty::I128, f, IN), b.load(Ty::I128, f, IN + 16));
        b.store(f, OUT, x + y);
        b.store(f, OUT + 16, x * y);
        b.store(f, OUT + 32, x / y);
        b.store(f, OUT + 48, x % y);
        b.store(f, OUT + 64, x.bin(BinOp::UDiv, y));
        b.store(f, OUT + 80, x.overflows(OvfOp::Mul, y).zext(Prim::I128));
        b.store(f, OUT + 96, b.int(Ty::I128, 1 << 100));
        let float = x.cast(CastOp::SiToFp, Prim::F64);
        b.store(f, OUT + 112, float.cast(CastOp::FpToSi, Prim::I128));
    });
    let unsigned = (x as u128 / y as u128) as i128;
    let product = x.wrapping_mul(y);
    let overflows = i128::from(x.checked_mul(y).is_none());
    assert_eq!(values, [x + y, product, x / y, x % y, unsigned, overflows, 1 << 100, x as f64 as i128]);
}

#[test]
fn conversions() {
    let values = output::<i64, 6>(&i64s(&[-2, 1]), |b, f| {
        let (x, y) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
        let narrow = x.cast(CastOp::Trunc, Prim::I8);
        b.store(f, OUT, narrow.sext(Prim::I64));
        b.store(f, OUT + 8, narrow.zext(Prim::I64));
        b.store(f, OUT + 16, x.lt(y).cast(CastOp::SExt, Prim::I64));
        b.store(f, OUT + 24, y.cast(CastOp::Trunc, Prim::Bool).zext(Prim::I64));
        b.store(f, OUT + 32, f.bitcast(Ty::I64).bitcast(Ty::PTR).eq(f).zext(Prim::I64));
        b.store(f, OUT + 40, x.cast(CastOp::UiToFp, Prim::F64).cast(CastOp::FpToSi, Prim::I64));
    });
    assert_eq!(values, [-2, 254, -1, 1, 1, i64::MAX]);
    let saturated = output::<i32, 4>(&f64s(&[1e10, -1e10, f64::NAN, -2.9]), |b, f| {
        b.store(f, OUT, b.load(Ty::vector(Prim::F64, 4), f, IN).cast(CastOp::FpToSi, Prim::I32));
    });
    assert_eq!(saturated, [i32::MAX, i32::MIN, 0, -2]);
    let clamped = output::<i32, 4>(&f64s(&[1e10, -1e10, f64::NAN, -2.9]), |b, f| {
        let x = b.load(Ty::vector(Prim::F64, 4), f, IN);
        let x = x.max(b.float(x.ty(), -7.5)).min(b.float(x.ty(), 1e9));
        b.store(f, OUT, x.cast(CastOp::FpToSi, Prim::I32));
    });
    assert_eq!(clamped, [1_000_000_000, -7, -7, -2]);
    let widest = output::<i128, 4>(&f64s(&[1e39, -1e39, f64::NAN, -2.9]), |b, f| {
        b.store(f, OUT, b.load(Ty::vector(Prim::F64, 4), f, IN).cast(CastOp::FpToSi, Prim::I128));
    });
    assert_eq!(widest, [i128::MAX, i128::MIN, 0, -2]);
}

#[test]
fn half_floats() {
    let input: Vec<u8> = [0x3f80u16, 0xc000, 0x3c00, 0xc000].iter().flat_map(|h| h.to_ne_bytes()).collect();
    let (bf16, f16) = (Ty::vector(Prim::BF16, 2), Ty::vector(Prim::F16, 2));
    let wide = output::<f32, 4>(&input, |b, f| {
        b.store(f, OUT, b.load(bf16, f, IN).cast(CastOp::FpExt, Prim::F32));
        b.store(f, OUT + 8, b.load(f16, f, IN + 4).cast(CastOp::FpExt, Prim::F32));
    });
    assert_eq!(wide, [1.0, -2.0, 1.0, -2.0]);
    // 1 + 3/256 lies between two values of bf16 and goes to the even one.
    let narrow = output::<u16, 4>(&f32s(&[1.0 + 3.0 / 256.0, -2.0]), |b, f| {
        let x = b.load(Ty::vector(Prim::F32, 2), f, IN);
        b.store(f, OUT, x.cast(CastOp::FpTrunc, Prim::BF16));
        b.store(f, OUT + 4, x.extract(1).cast(CastOp::FpTrunc, Prim::BF16));
        b.store(f, OUT + 6, x.extract(1).cast(CastOp::FpTrunc, Prim::F16));
    });
    assert_eq!(narrow, [0x3f82, 0xc000, 0xc000, 0xc000]);
    let constants = output::<u16, 2>(&[], |b, f| {
        b.store(f, OUT, b.float(Ty::scalar(Prim::BF16), 1.5));
        b.store(f, OUT + 2, b.float(Ty::scalar(Prim::F16), 1.5));
    });
    assert_eq!(constants, [0x3fc0, 0x3e00]);
}

#[test]
fn lanes() {
    let values = output::<i32, 8>(&i32s(&[10, 20, 30, 40]), |b, f| {
        let x = b.load(Ty::vector(Prim::I32, 4), f, IN);
        let y = x + b.iota(Ty::vector(Prim::I32, 4));
        b.store(f, OUT, y.insert(b.i32(7), 1));
        b.store(f, OUT + 16, x.gt(y.extract(1).splat(4)).select(x, y));
    });
    assert_eq!(values, [10, 7, 32, 43, 10, 21, 30, 40]);
    let selected = output::<i32, 4>(&i32s(&[10, 20, 30, 40]), |b, f| {
        let x = b.load(Ty::vector(Prim::I32, 4), f, IN);
        b.store(f, OUT, x.extract(0).lt(x.extract(1)).select(x, x + x));
    });
    assert_eq!(selected, [10, 20, 30, 40]);
}

#[test]
fn reductions() {
    let ints = output::<i32, 5>(&i32s(&[6, -3, 12, 9]), |b, f| {
        let x = b.load(Ty::vector(Prim::I32, 4), f, IN);
        let ops = [ReduceOp::Add, ReduceOp::Min, ReduceOp::Max, ReduceOp::And, ReduceOp::Or];
        for (i, op) in (0..).zip(ops) {
            b.store(f, OUT + 4 * i, x.reduce(op));
        }
    });
    assert_eq!(ints, [24, -3, 12, 6 & -3 & 12 & 9, 6 | -3 | 12 | 9]);
    let floats = output::<f32, 3>(&f32s(&[6.0, -3.0, 12.0, 9.0]), |b, f| {
        let x = b.load(Ty::vector(Prim::F32, 4), f, IN);
        for (i, op) in (0..).zip([ReduceOp::Add, ReduceOp::Min, ReduceOp::Max]) {
            b.store(f, OUT + 4 * i, x.reduce(op));
        }
    });
    assert_eq!(floats, [24.0, -3.0, 12.0]);
    let bools = output::<u8, 2>(&i32s(&[6, -3, 12, 9]), |b, f| {
        let x = b.load(Ty::vector(Prim::I32, 4), f, IN);
        let negative = x.lt(b.int(Ty::vector(Prim::I32, 4), 0));
        b.store(f, OUT, negative.reduce(ReduceOp::And));
        b.store(f, OUT + 1, negative.reduce(ReduceOp::Or));
    });
    assert_eq!(bools, [0, 1]);
}

#[test]
fn truth_values_are_bytes_in_memory_and_bits_as_integers() {
    let input = [1u8, 0, 1, 1, 0, 0, 0, 1];
    let values = output::<u8, 18>(&input, |b, f| {
        let mask = b.load(Ty::vector(Prim::Bool, 8), f, IN);
        b.store(f, OUT, !mask);
        b.store(f, OUT + 8, mask.bitcast(Ty::I8));
        b.store(f, OUT + 9, b.load(Ty::BOOL, f, IN));
        b.store(f, OUT + 10, mask.bitcast(Ty::I8).bitcast(Ty::vector(Prim::Bool, 8)));
    });
    let inverted: Vec<u8> = input.iter().map(|b| 1 - b).collect();
    assert_eq!(values[..8], inverted);
    assert_eq!(values[8..10], [0b1000_1101, 1]);
    assert_eq!(values[10..], input);
}

#[test]
fn masked_memory() {
    let masked = output::<i32, 16>(&i32s(&[1, 2, 3, 4, 5, 6, 7, 8]), |b, f| {
        let ty = Ty::vector(Prim::I32, 8);
        let odd = (b.iota(ty) & 1).eq(b.int(ty, 1));
        let x = b.masked_load(ty, f.at(IN), odd, false);
        b.store(f, OUT, x);
        b.masked_store(f.at(OUT + 32), odd, x * x);
    });
    assert_eq!(masked, [0, 2, 0, 4, 0, 6, 0, 8, 0, 4, 0, 16, 0, 36, 0, 64]);
}

#[test]
fn masked_truth_values() {
    let input = [1u8, 1, 0, 1];
    let values = output::<u8, 8>(&input, |b, f| {
        let ty = Ty::vector(Prim::Bool, 4);
        let mask = b.iota(Ty::vector(Prim::I32, 4)).lt(b.int(Ty::vector(Prim::I32, 4), 2));
        b.store(f, OUT, b.masked_load(ty, f.at(IN), mask, false));
        b.masked_store(f.at(OUT + 4), !mask, b.load(ty, f, IN));
    });
    assert_eq!(values, [1, 1, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn gathers() {
    let values = output::<i64, 8>(&i64s(&[10, 11, 12, 13, 14, 15]), |b, f| {
        for (out, prim) in [(OUT, Prim::I32), (OUT + 32, Prim::I64)] {
            let index = b.int(Ty::vector(prim, 4), 4) - b.iota(Ty::vector(prim, 4)) * 2;
            let mask = index.ge(b.int(Ty::vector(prim, 4), 0));
            b.store(f, out, b.gather(Ty::vector(Prim::I64, 4), f.at(IN), index, 8, mask, true));
        }
    });
    assert_eq!(values, [14, 12, 10, 0, 14, 12, 10, 0]);
}

#[test]
fn compress_stores() {
    let packed = output::<i32, 9>(&i32s(&[5, 3, 8, 1, 9, 2, 7, 4]), |b, f| {
        let ty = Ty::vector(Prim::I32, 8);
        let x = b.load(ty, f, IN);
        b.store(f, OUT, b.int(ty, -1));
        b.store(f, OUT + 32, b.i32(-1));
        b.compress_store(f.at(OUT), x.gt(b.int(ty, 4)), x);
    });
    assert_eq!(packed, [5, 8, 9, 7, -1, -1, -1, -1, -1]);
    let bytes: Vec<u8> = (0..64).collect();
    let packed = output::<u8, 64>(&bytes, |b, f| {
        let ty = Ty::vector(Prim::I8, 64);
        let x = b.load(ty, f, IN);
        b.compress_store(f.at(OUT), (x & 3).eq(b.int(ty, 2)), x);
    });
    let expected: [u8; 64] = std::array::from_fn(|i| if i < 16 { 4 * i as u8 + 2 } else { 0 });
    assert_eq!(packed, expected);
}

#[test]
fn atomics() {
    let values = output::<i64, 6>(&i64s(&[5, 6]), |b, f| {
        let (x, y) = (f.at(IN), f.at(IN + 8));
        b.store(f, OUT, b.atomic(RmwOp::Add, x, b.i64(3)));
        b.store(f, OUT + 8, b.atomic(RmwOp::Or, x, b.i64(16)));
        b.store(f, OUT + 16, b.atomic(RmwOp::Xchg, x, b.i64(1)));
        b.store(f, OUT + 24, b.cmpxchg(y, b.i64(6), b.i64(60)));
        b.store(f, OUT + 32, b.cmpxchg(y, b.i64(6), b.i64(61)));
        b.store(f, OUT + 40, b.atomic(RmwOp::Xchg, y, f).eq(b.null().at(60)).zext(Prim::I64));
    });
    assert_eq!(values, [5, 8, 24, 6, 60, 1]);
}

#[test]
fn addresses_and_stack() {
    let values = output::<i64, 3>(&i64s(&[1, 2, 3, 4, 5, 6]), |b, f| {
        let i = b.load(Ty::I64, f, IN);
        let row = f.at(IN).index(i, 24).at(8);
        b.prefetch(row);
        b.store(f, OUT, b.load(Ty::I64, row, 0));
        b.store(f, OUT + 8, b.load_invariant(Ty::I64, row, -8));
        let place = b.alloca(64, 64);
        b.store(place, 16, i);
        b.store(f, OUT + 16, b.load(Ty::I64, place, 16) + (place.bitcast(Ty::I64) & 63));
    });
    assert_eq!(values, [5, 4, 1]);
}

#[test]
fn for_loops_carry_values() {
    assert_eq!(output::<i64, 2>(&i64s(&[0, 10]), for_program), [18, 16]);
    assert_eq!(output::<i64, 2>(&i64s(&[0, 0]), for_program), [0, 1]);
    assert_eq!(output::<i64, 2>(&i64s(&[5, 2]), for_program), [0, 1]);
}

fn for_program<'b>(b: &'b Builder, f: V<'b>) {
    let (lo, hi) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
    let sums = b.for_carry(lo, hi, 3, &[b.i64(0), b.i64(1)], |i, c| vec![c[0] + i, c[1] * 2]);
    b.store(f, OUT, sums[0]);
    b.store(f, OUT + 8, sums[1]);
}

#[test]
fn nested_loops_and_branches() {
    let [count] = output::<i64, 1>(&i64s(&[50]), |b, f| {
        let n = b.load(Ty::I64, f, IN);
        let primes = b.for_carry(b.i64(2), n, 1, &[b.i64(0)], |i, c| {
            let divisors = b.for_carry(b.i64(2), i, 1, &[b.i64(0)], |j, d| {
                b.if_else((i % j).eq(b.i64(0)), || vec![d[0] + 1], || vec![d[0]])
            });
            b.if_else(divisors[0].eq(b.i64(0)), || vec![c[0] + 1], || vec![c[0]])
        });
        b.store(f, OUT, primes[0]);
    });
    assert_eq!(count, 15);
}

#[test]
fn while_loops() {
    let values = output::<i64, 2>(&i64s(&[27]), |b, f| {
        let start = [b.load(Ty::I64, f, IN), b.i64(0)];
        let last = b.while_(
            &start,
            |c| c[0].ne(b.i64(1)),
            |c| {
                let next = b.if_else((c[0] & 1).eq(b.i64(0)), || vec![c[0].lshr(1)], || vec![c[0] * 3 + 1]);
                vec![next[0], c[1] + 1]
            },
        );
        b.store(f, OUT, last[0]);
        b.store(f, OUT + 8, last[1]);
    });
    assert_eq!(values, [1, 111]);
}

fn division<'b>(b: &'b Builder, f: V<'b>) {
    let (x, y) = (b.load(Ty::I64, f, IN), b.load(Ty::I64, f, IN + 8));
    b.fail_if(x.lt(y), FailKind::OutOfRange, "x");
    b.for_(b.i64(0), x, |i| b.fail_if((i + y).eq(b.i64(0)), FailKind::DivisionByZero, "x / y"));
    b.store(f, OUT, x / y);
}

#[test]
fn failures_leave_with_their_code() {
    assert_eq!(run::<i64, 1>(&i64s(&[12, 3]), division), (0, [4]));
    assert_eq!(run::<i64, 1>(&i64s(&[1, 3]), division), (1, [0]));
    assert_eq!(run::<i64, 1>(&i64s(&[1, 0]), division), (2, [0]));
    assert_eq!(run::<i64, 1>(&i64s(&[9, -5]), division), (2, [0]));
    let (status, []) = run::<i64, 0>(&i64s(&[-1]), |b, f| b.check(b.load(Ty::I32, f, IN)));
    assert_eq!(status, -1);
}

/// `f1` fills `out[i] = i * i` through `f0`, which fails at the number in the input.
fn squares(functions: usize) -> (Module, FuncId) {
    let builder = ModuleBuilder::new();
    let mut last = None;
    for k in 0..functions {
        let body = builder.func(&format!("body{k}"), &FRAME_PARAMS, |b, p| {
            let bad = b.load_hoisted(Ty::I64, p[0], IN);
            b.for_(p[2], p[3], |i| {
                b.fail_if(i.eq(bad), FailKind::OutOfRange, "item");
                b.store(p[0].index(i, 8), OUT, i * i);
            });
        });
        last = Some(builder.func(&format!("main{k}"), &FRAME_PARAMS, |b, p| {
            b.par_for(body, p[0], b.i64(100), b.i64(7));
        }));
    }
    (builder.build(), last.expect("at least one function"))
}

#[test]
fn parallel_loops() {
    let (module, main) = squares(1);
    for level in LEVELS {
        let code = compile(&module, level, 1);
        let (status, frame) = call(&*code, main, &i64s(&[-1]));
        assert_eq!(status, 0);
        assert!((0..100).all(|i| i64::read(&frame.0[OUT as usize + 8 * i..]) == (i * i) as i64));
        assert_eq!(call(&*code, main, &i64s(&[33])).0, 1);
    }
}

fn listing(module: &Module, level: &str) -> Option<String> {
    let options = CompileOptions { level: OptLevel::Default, threads: 4 };
    Llvm::new().listing(module, &options, level).unwrap()
}

#[test]
fn parts_find_each_other() {
    let (module, main) = squares(60);
    let code = compile(&module, OptLevel::Default, 4);
    let (status, frame) = call(&*code, main, &i64s(&[-1]));
    assert_eq!((status, i64::read(&frame.0[OUT as usize + 8 * 99..])), (0, 99 * 99));
    assert_eq!(listing(&module, "llvm").unwrap().matches("define i32").count(), 120);
}

#[test]
fn listings_and_phases() {
    let (module, _) = squares(1);
    let code = compile(&module, OptLevel::Default, 0);
    assert!(listing(&module, "llvm").is_some_and(|l| l.contains("!invariant.load")));
    assert!(listing(&module, "llvm-raw").is_some_and(|l| l.contains("call i32 @qn_par_for")));
    assert!(listing(&module, "asm").is_some_and(|l| l.contains("qn_par_for")));
    assert_eq!(listing(&module, "graph"), None);
    let phases: Vec<&str> = code.compile_ms().iter().map(|p| p.0).collect();
    assert_eq!(phases, ["translate", "passes", "codegen", "link"]);
}

#[test]
fn unknown_runtime_functions_are_an_error() {
    let builder = ModuleBuilder::new();
    builder.func("main", &FRAME_PARAMS, |b, p| b.call_void("qn_no_such_function", &[p[0]]));
    let options = CompileOptions::default();
    let error = Llvm::new().compile(&builder.build(), &options).err().expect("nobody has that function");
    assert!(error.to_string().contains("qn_no_such_function"), "{error}");
}

#[test]
fn code_is_made_and_dropped_on_many_threads() {
    let (module, main) = squares(2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let code = compile(&module, OptLevel::None, 2);
                    assert_eq!(call(&*code, main, &i64s(&[-1])).0, 0);
                }
            });
        }
    });
}

#[test]
fn object_code_is_loaded_any_number_of_times() {
    let (module, main) = squares(60);
    let code = compile(&module, OptLevel::Default, 4).object_code().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let loaded: Vec<_> = (0..4).map(|_| Llvm::new().load(&code).unwrap()).collect();
                for code in &loaded {
                    let (status, frame) = call(&**code, main, &i64s(&[-1]));
                    assert_eq!((status, i64::read(&frame.0[OUT as usize + 8 * 99..])), (0, 99 * 99));
                }
            });
        }
    });
}

#[test]
fn object_code_for_another_machine_is_refused() {
    let (module, _) = squares(1);
    let code = compile(&module, OptLevel::Default, 0).object_code().unwrap();
    let refused = |change: &dyn Fn(&mut ObjectCode)| {
        let mut code = code.clone();
        change(&mut code);
        Llvm::new().load(&code).err().expect("code for another machine")
    };
    let error = refused(&|code| code.target.compiler = "LLVM 1.0.0".into());
    assert!(matches!(&error, BackendError::OtherCompiler { made, .. } if made == "LLVM 1.0.0"), "{error}");
    let error = refused(&|code| code.target.triple = "z80-cpm".into());
    assert!(matches!(&error, BackendError::OtherMachine { made, .. } if made == "z80-cpm"), "{error}");
    let error = refused(&|code| code.target.features.push("antigravity".into()));
    assert!(error.to_string().contains("needs antigravity, which"), "{error}");
    let error = refused(&|code| code.objects[0].truncate(100));
    assert!(matches!(error, BackendError::Failed { .. }), "{error}");
    let error = refused(&|code| code.functions[0].symbol.push('x'));
    assert!(error.to_string().contains("Symbols not found"), "{error}");
}
