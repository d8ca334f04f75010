//! Every operation on the interpreter, against answers worked out by hand.
//!
//! Operands come from memory, so that the builder folds nothing.

use half::{bf16, f16};
use quearn_backends::interp::Interp;
use quearn_backends::runtime::{Run, RunConfig, RunError};
use quearn_backends::{Backend, BackendError, CompileOptions, abi};
use quearn_stage::low::build::ModuleBuilder;
use quearn_stage::low::*;

const FRAME: [Ty; 4] = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
/// Where programs find their operands, 64 bytes each.
const IN: i64 = abi::FRAME_SLOTS;
/// Where programs leave their results.
const OUT: i64 = 512;

#[repr(C, align(64))]
struct Frame([u8; 2048]);

/// A frame for the run with `input` in it.
fn frame(run: &Run, input: &[u8]) -> Frame {
    let mut frame = Frame([0; 2048]);
    let header = run.header();
    frame.0[..8].copy_from_slice(&header.run.expose_provenance().to_ne_bytes());
    frame.0[8..16].copy_from_slice(&header.workers.to_ne_bytes());
    frame.0[IN as usize..][..input.len()].copy_from_slice(input);
    frame
}

/// Runs what `body` builds; gives the status, what it left at `OUT`, and the error.
fn run_with(
    config: RunConfig,
    input: &[u8],
    body: impl for<'b> FnOnce(&'b Builder, V<'b>),
) -> (i32, Vec<u8>, Option<RunError>) {
    let builder = ModuleBuilder::new();
    let func = builder.func("main", &FRAME, |b, p| body(b, p[0]));
    let code = Interp.compile(&builder.build(), &CompileOptions::default()).expect("the module is well-formed");
    let run = Run::new(config);
    let mut frame = frame(&run, input);
    // SAFETY: the tests' programs stay within the frame.
    let status = unsafe { code.call(func, frame.0.as_mut_ptr(), &run) };
    (status, frame.0[OUT as usize..].to_vec(), run.take_error())
}

fn run(input: &[u8], body: impl for<'b> FnOnce(&'b Builder, V<'b>)) -> Vec<u8> {
    let (status, out, error) = run_with(RunConfig::default(), input, body);
    assert_eq!((status, error), (0, None));
    out
}

/// Operands as 64-byte slots.
fn slots(operands: &[Vec<u8>]) -> Vec<u8> {
    let slot = |bytes: &Vec<u8>| [&bytes[..], &vec![0; 64 - bytes.len()]].concat();
    operands.iter().flat_map(slot).collect()
}

/// Applies `f` to operands of type `ty`, given as bytes; its result, as bytes.
fn apply(
    ty: Ty,
    operands: &[Vec<u8>],
    f: impl for<'b> FnOnce(&'b Builder, &[V<'b>]) -> V<'b>,
) -> Result<Vec<u8>, RunError> {
    let mut bytes = 0;
    let (status, out, error) = run_with(RunConfig::default(), &slots(operands), |b, frame| {
        let args: Vec<V<'_>> = (0..operands.len()).map(|i| b.load(ty, frame, IN + 64 * i as i64)).collect();
        let result = f(b, &args);
        bytes = result.ty().bytes();
        b.store(frame, OUT, result);
    });
    assert_eq!(status, if error.is_some() { Module::RUNTIME_ERROR } else { 0 });
    error.map_or(Ok(out[..bytes].to_vec()), Err)
}

/// A Rust number and its type in programs.
trait Number: Copy + PartialEq + std::fmt::Debug {
    const PRIM: Prim;
    fn bytes(self) -> Vec<u8>;
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($ty:ty = $prim:ident),*) => {
        $(impl Number for $ty {
            const PRIM: Prim = Prim::$prim;
            fn bytes(self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }
            fn read(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("the bytes of one number"))
            }
        })*
    };
}

numbers! { i8 = I8, i16 = I16, i32 = I32, i64 = I64, i128 = I128, f16 = F16, bf16 = BF16, f32 = F32, f64 = F64 }

impl Number for bool {
    const PRIM: Prim = Prim::Bool;
    fn bytes(self) -> Vec<u8> {
        vec![self.into()]
    }
    fn read(bytes: &[u8]) -> Self {
        assert!(bytes[0] < 2, "a bool is one bit");
        bytes[0] == 1
    }
}

/// `f` of scalars.
fn try_scalar<T: Number, R: Number>(
    operands: &[T],
    f: impl for<'b> FnOnce(&'b Builder, &[V<'b>]) -> V<'b>,
) -> Result<R, RunError> {
    let operands: Vec<Vec<u8>> = operands.iter().map(|x| x.bytes()).collect();
    apply(Ty::scalar(T::PRIM), &operands, f).map(|bytes| R::read(&bytes))
}

fn scalar<T: Number, R: Number>(operands: &[T], f: impl for<'b> FnOnce(&'b Builder, &[V<'b>]) -> V<'b>) -> R {
    try_scalar(operands, f).expect("the operation is defined")
}

/// `f` of vectors.
fn vector<T: Number, R: Number, const N: usize>(
    operands: &[[T; N]],
    f: impl for<'b> FnOnce(&'b Builder, &[V<'b>]) -> V<'b>,
) -> Vec<R> {
    let operands: Vec<Vec<u8>> = operands.iter().map(|v| v.iter().flat_map(|x| x.bytes()).collect()).collect();
    let bytes = apply(Ty::vector(T::PRIM, N as u16), &operands, f).expect("the operation is defined");
    bytes.chunks(R::PRIM.bytes()).map(R::read).collect()
}

fn un<T: Number>(op: UnOp, a: T) -> T {
    scalar(&[a], |_, v| v[0].un(op))
}

fn bin<T: Number>(op: BinOp, a: T, b: T) -> T {
    scalar(&[a, b], |_, v| v[0].bin(op, v[1]))
}

fn cmp<T: Number>(op: CmpOp, a: T, b: T) -> bool {
    scalar(&[a, b], |_, v| v[0].cmp(op, v[1]))
}

fn ovf<T: Number>(op: OvfOp, a: T, b: T) -> bool {
    scalar(&[a, b], |_, v| v[0].overflows(op, v[1]))
}

fn cast<T: Number, R: Number>(op: CastOp, a: T) -> R {
    scalar(&[a], |_, v| v[0].cast(op, R::PRIM))
}

#[test]
fn integer_operations_of_one_operand() {
    assert_eq!(un(UnOp::Neg, i8::MIN), i8::MIN);
    assert_eq!(un(UnOp::Neg, 5i128), -5);
    assert_eq!(un(UnOp::Not, 5i16), !5);
    assert!(!un(UnOp::Not, true));
    assert_eq!(un(UnOp::Abs, i32::MIN), i32::MIN);
    assert_eq!(un(UnOp::Abs, -7i64), 7);
    assert_eq!((un(UnOp::Ctz, 0i8), un(UnOp::Ctz, 8i32), un(UnOp::Ctz, 0i128)), (8, 3, 128u8 as i128));
    assert_eq!((un(UnOp::Clz, 0i16), un(UnOp::Clz, 1i64), un(UnOp::Clz, -1i8)), (16, 63, 0));
    assert_eq!((un(UnOp::Popcnt, -1i8), un(UnOp::Popcnt, 7i128)), (8, 3));
}

#[test]
fn float_operations_of_one_operand() {
    assert_eq!(un(UnOp::Neg, 0.0f32).to_bits(), (-0.0f32).to_bits());
    assert_eq!(un(UnOp::Abs, -2.5f64), 2.5);
    assert_eq!(un(UnOp::Sqrt, 2.25f32), 1.5);
    assert!(un(UnOp::Sqrt, -1.0f64).is_nan());
    assert_eq!((un(UnOp::Exp, 0.0f64), un(UnOp::Log, 1.0f32)), (1.0, 0.0));
    assert_eq!((un(UnOp::Sin, 0.0f32), un(UnOp::Cos, 0.0f64)), (0.0, 1.0));
    assert_eq!((un(UnOp::Floor, -1.5f64), un(UnOp::Ceil, -1.5f32)), (-2.0, -1.0));
    assert_eq!((un(UnOp::Round, 2.5f64), un(UnOp::Round, 3.5f32)), (2.0, 4.0));
}

#[test]
fn integers_wrap() {
    assert_eq!(bin(BinOp::Add, 127i8, 1), -128);
    assert_eq!(bin(BinOp::Sub, i32::MIN, 1), i32::MAX);
    assert_eq!(bin(BinOp::Mul, i128::MAX, 2), -2);
    assert_eq!((bin(BinOp::Div, -7i64, 2), bin(BinOp::Rem, -7i64, 2)), (-3, -1));
    assert_eq!((bin(BinOp::UDiv, -1i8, 2), bin(BinOp::URem, -1i16, 10)), (127, 5));
    assert_eq!((bin(BinOp::And, 6i8, 3), bin(BinOp::Or, 6i16, 3), bin(BinOp::Xor, 6i32, -1)), (2, 7, -7));
    assert_eq!(
        (bin(BinOp::And, true, false), bin(BinOp::Or, true, false), bin(BinOp::Xor, true, true)),
        (false, true, false)
    );
    assert_eq!((bin(BinOp::Shl, 3i8, 7), bin(BinOp::Shl, 1i128, 127)), (-128, i128::MIN));
    assert_eq!((bin(BinOp::LShr, -1i16, 12), bin(BinOp::AShr, -256i32, 4)), (15, -16));
    assert_eq!((bin(BinOp::Min, -1i8, 1), bin(BinOp::Max, -1i128, 1)), (-1, 1));
}

#[test]
fn floats_follow_ieee() {
    assert_eq!((bin(BinOp::Add, 0.1f64, 0.2), bin(BinOp::Sub, 1.0f32, 0.75)), (0.1 + 0.2, 0.25));
    assert_eq!((bin(BinOp::Mul, 3.0f32, 0.5), bin(BinOp::Div, 1.0f64, 0.0)), (1.5, f64::INFINITY));
    assert_eq!((bin(BinOp::Rem, -7.5f64, 2.0), bin(BinOp::Pow, 2.0f32, 10.0)), (-1.5, 1024.0));
    assert_eq!((bin(BinOp::Min, f64::NAN, 1.0), bin(BinOp::Max, 1.0f32, f32::NAN)), (1.0, 1.0));
    assert_eq!(scalar::<f32, f32>(&[1e30, 1e30, f32::NEG_INFINITY], |_, v| v[0].fma(v[1], v[2])), f32::NEG_INFINITY);
    let tiny = f64::EPSILON;
    assert_eq!(scalar::<f64, f64>(&[1.0 + tiny, 1.0 - tiny, -1.0], |_, v| v[0].fma(v[1], v[2])), -tiny * tiny);
}

#[test]
fn undefined_results_are_errors() {
    let undefined = |op, a: i32, b: i32| try_scalar::<i32, i32>(&[a, b], |_, v| v[0].bin(op, v[1])).unwrap_err();
    for op in [BinOp::Div, BinOp::Rem, BinOp::UDiv, BinOp::URem] {
        assert!(matches!(undefined(op, 1, 0), RunError::Internal(_)));
    }
    for op in [BinOp::Shl, BinOp::LShr, BinOp::AShr] {
        assert!(matches!(undefined(op, 1, 32), RunError::Internal(_)));
        assert!(matches!(undefined(op, 1, -1), RunError::Internal(_)));
    }
    assert_eq!(undefined(BinOp::Div, i32::MIN, -1), RunError::Internal("undefined result of div in main".into()));
    let null = run_with(RunConfig::default(), &[], |b, frame| {
        let null = b.load(Ty::PTR, frame, IN);
        b.store(frame, OUT, b.load(Ty::I64, null, 8));
    });
    assert!(matches!(null, (Module::RUNTIME_ERROR, _, Some(RunError::Internal(_)))));
}

#[test]
fn comparisons() {
    assert!(cmp(CmpOp::Eq, 3i8, 3) && cmp(CmpOp::Ne, 3i128, 4) && !cmp(CmpOp::Eq, true, false));
    assert!(cmp(CmpOp::Lt, -1i16, 0) && cmp(CmpOp::Le, 0i32, 0) && cmp(CmpOp::Gt, 0i64, -1) && cmp(CmpOp::Ge, 1i8, 1));
    assert!(!cmp(CmpOp::Ult, -1i8, 0) && cmp(CmpOp::Ule, 0i128, -1) && cmp(CmpOp::Ult, false, true));
    let nan = f64::NAN;
    assert!([CmpOp::Eq, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge].iter().all(|&op| !cmp(op, nan, 1.0)));
    assert!(cmp(CmpOp::Ne, nan, nan) && cmp(CmpOp::Eq, 0.0f32, -0.0) && cmp(CmpOp::Lt, -1.0f64, 0.0));
}

#[test]
fn overflow_tests() {
    assert!(ovf(OvfOp::Add, 127i8, 1) && !ovf(OvfOp::Add, 126i8, 1));
    assert!(ovf(OvfOp::Sub, i64::MIN, 1) && !ovf(OvfOp::Sub, i64::MIN, 0));
    assert!(ovf(OvfOp::Mul, i128::MAX, 2) && ovf(OvfOp::Mul, 1i32 << 16, 1 << 15) && !ovf(OvfOp::Mul, 181i16, 181));
}

#[test]
fn integer_casts() {
    assert_eq!((cast::<i8, i32>(CastOp::SExt, -1), cast::<bool, i16>(CastOp::SExt, true)), (-1, -1));
    assert_eq!((cast::<i8, i32>(CastOp::ZExt, -1), cast::<bool, i128>(CastOp::ZExt, true)), (255, 1));
    assert_eq!((cast::<i64, i8>(CastOp::Trunc, 0x1ff), cast::<i32, bool>(CastOp::Trunc, 2)), (-1, false));
    assert_eq!((cast::<i64, f64>(CastOp::SiToFp, -3), cast::<i8, f32>(CastOp::UiToFp, -1)), (-3.0, 255.0));
    assert_eq!(cast::<i128, f64>(CastOp::UiToFp, -1), u128::MAX as f64);
    assert_eq!(cast::<i32, f32>(CastOp::SiToFp, 16_777_217), 16_777_216.0);
    // Halfway between two bf16 but for the last bit: rounding twice would go to the even neighbour below.
    assert_eq!(cast::<i64, bf16>(CastOp::SiToFp, (257 << 50) + 1), bf16::from_f32(258.0 * 2f32.powi(50)));
    assert_eq!(cast::<i16, f16>(CastOp::SiToFp, -2049), f16::from_f32(-2048.0));
}

#[test]
fn float_casts() {
    assert_eq!((cast::<f64, i32>(CastOp::FpToSi, -1.9), cast::<f64, i8>(CastOp::FpToSi, 1e9)), (-1, 127));
    assert_eq!((cast::<f32, i64>(CastOp::FpToSi, f32::NAN), cast::<f32, i128>(CastOp::FpToSi, -2.0)), (0, -2));
    assert_eq!((cast::<f16, f32>(CastOp::FpExt, f16::from_f32(1.5)), cast::<f32, f64>(CastOp::FpExt, 0.5)), (1.5, 0.5));
    assert_eq!(cast::<bf16, f64>(CastOp::FpExt, bf16::from_f32(-3.0)), -3.0);
    assert_eq!(cast::<f64, f32>(CastOp::FpTrunc, 0.1), 0.1f32);
    assert_eq!(cast::<f32, bf16>(CastOp::FpTrunc, 1.0039), bf16::from_f32(1.0039));
    // Just above halfway between two halves: going through f32 would round it down.
    assert_eq!(cast::<f64, f16>(CastOp::FpTrunc, 2_049.000_000_01), f16::from_f32(2050.0));
    assert_eq!(cast::<f16, i32>(CastOp::FpToSi, f16::from_f32(-7.9)), -7);
}

#[test]
fn bitcasts_keep_the_bits() {
    assert_eq!(scalar::<f32, i32>(&[1.0], |_, v| v[0].bitcast(Ty::I32)), 0x3f80_0000);
    let halves = vector::<i32, i16, 2>(&[[0x0001_0002, -1]], |_, v| v[0].bitcast(Ty::vector(Prim::I16, 4)));
    assert_eq!(halves, [2, 1, -1, -1]);
    let mask =
        vector::<bool, i8, 8>(&[[true, false, true, false, false, false, false, true]], |_, v| v[0].bitcast(Ty::I8));
    assert_eq!(mask, [0b1000_0101u8 as i8]);
    let bits = scalar::<i64, i64>(&[0x1234], |_, v| v[0].bitcast(Ty::PTR).bitcast(Ty::I64));
    assert_eq!(bits, 0x1234);
}

#[test]
fn vectors_work_lane_by_lane() {
    let (a, b) = ([1i32, -2, i32::MAX, 4], [10, 20, 1, -4]);
    assert_eq!(vector::<_, i32, 4>(&[a, b], |_, v| v[0] + v[1]), [11, 18, i32::MIN, 0]);
    assert_eq!(vector::<_, bool, 4>(&[a, b], |_, v| v[0].lt(v[1])), [true, true, false, false]);
    assert_eq!(vector::<_, i32, 4>(&[a, b], |_, v| v[0].lt(v[1]).select(v[1], v[0])), [10, 20, i32::MAX, 4]);
    assert_eq!(vector::<_, i32, 4>(&[a, b], |_, v| v[0].extract(1).lt(v[0].same(0).extract(0)).select(v[0], v[1])), a);
    assert_eq!(vector::<_, i32, 4>(&[a], |_, v| v[0].extract(3).splat(4)), [4; 4]);
    assert_eq!(vector::<_, i32, 4>(&[a], |_, v| v[0].insert(v[0].extract(0), 2)), [1, -2, 1, 4]);
    assert_eq!(vector::<_, i32, 4>(&[a], |b, v| v[0] + b.iota(v[0].ty())), [1, -1, i32::MIN + 1, 7]);
}

#[test]
fn reductions() {
    let reduce = |op, lanes: [i16; 4]| vector::<i16, i16, 4>(&[lanes], |_, v| v[0].reduce(op))[0];
    assert_eq!(reduce(ReduceOp::Add, [i16::MAX, 1, 2, 3]), i16::MIN + 5);
    assert_eq!((reduce(ReduceOp::Min, [3, -1, 2, 0]), reduce(ReduceOp::Max, [3, -1, 2, 0])), (-1, 3));
    assert_eq!((reduce(ReduceOp::And, [7, 6, 14, 2]), reduce(ReduceOp::Or, [1, 2, 4, 8])), (2, 15));
    assert_eq!(vector::<f32, f32, 2>(&[[1.5, 2.0]], |_, v| v[0].reduce(ReduceOp::Add)), [3.5]);
    assert_eq!(vector::<f64, f64, 2>(&[[f64::NAN, 2.0]], |_, v| v[0].reduce(ReduceOp::Max)), [2.0]);
    assert_eq!(vector::<bool, bool, 2>(&[[true, false]], |_, v| v[0].reduce(ReduceOp::Or)), [true]);
}

#[test]
fn masked_memory() {
    let input = slots(&[[1i32, 2, 3, 4].iter().flat_map(|x| x.bytes()).collect(), vec![1, 0, 0, 1]]);
    let out = run(&input, |b, frame| {
        let ty = Ty::vector(Prim::I32, 4);
        let mask = b.load(ty.with_prim(Prim::Bool), frame, IN + 64);
        let all = b.load(ty, frame, IN);
        let some = b.masked_load(ty, frame.at(IN), mask, false);
        b.store(frame, OUT, some);
        b.masked_store(frame.at(OUT + 16), mask, all + 10);
        b.compress_store(frame.at(OUT + 32), mask, all);
        let backwards = b.i32(3).splat(4) - b.iota(ty);
        b.store(frame, OUT + 48, b.gather(ty, frame.at(IN), backwards, 4, mask, false));
        // No lane is active: the null pointer is not touched.
        let none = mask & !mask;
        b.store(frame, OUT + 64, b.masked_load(ty, b.null(), none, false));
    });
    let lanes: Vec<i32> = out[..80].chunks(4).map(i32::read).collect();
    assert_eq!(lanes, [1, 0, 0, 4, 11, 0, 0, 14, 1, 4, 0, 0, 4, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn addresses_and_stack() {
    let input = slots(&[7i64.bytes(), (-2i64).bytes()]);
    let out = run(&input, |b, frame| {
        let stack = b.alloca(64, 64);
        let index = b.load(Ty::I64, frame, IN + 64);
        let high = stack.at(48);
        b.store(high.index(index, 8), 0, b.load(Ty::I64, frame, IN));
        b.store(frame, OUT, b.load(Ty::I64, stack, 32));
        b.store(frame, OUT + 8, stack.bitcast(Ty::I64) & 63);
        b.store(frame, OUT + 16, stack.is_null());
    });
    assert_eq!((i64::read(&out[..8]), i64::read(&out[8..16]), out[16]), (7, 0, 0));
}

#[test]
fn atomics() {
    let out = run(&[], |b, frame| {
        let place = frame.at(OUT);
        let one = b.load(Ty::I32, frame, IN) + 1;
        b.atomic(RmwOp::Add, place, one + 6);
        b.atomic(RmwOp::Or, place, one + 7);
        b.store(frame, OUT + 4, b.atomic(RmwOp::Xchg, place, one));
        b.store(frame, OUT + 8, b.cmpxchg(place, one, one + 4));
        b.store(frame, OUT + 12, b.cmpxchg(place, one, one + 8));
    });
    assert_eq!(out[..16].chunks(4).map(i32::read).collect::<Vec<_>>(), [5, 15, 1, 5]);
}

#[test]
fn loops_and_branches() {
    let out = run(&10i64.bytes(), |b, frame| {
        let n = b.load(Ty::I64, frame, IN);
        // The carried values change places, so copies must not meet.
        let fibonacci = b.for_carry(b.i64(0), n, 1, &[b.i64(0), b.i64(1)], |_, c| vec![c[1], c[0] + c[1]]);
        b.store(frame, OUT, fibonacci[0]);
        let steps = b.while_(&[n, b.i64(0)], |c| c[0].gt(b.i64(1)), |c| vec![c[0].lshr(1), c[1] + 1]);
        b.store(frame, OUT + 8, steps[1]);
        let sign = b.if_else(n.lt(b.i64(0)), || vec![b.i64(-1)], || vec![n * 2]);
        b.store(frame, OUT + 16, sign[0]);
        b.store(frame, OUT + 24, b.for_carry(n, b.i64(0), 1, &[n], |_, _| vec![b.i64(0)])[0]);
        let last = b.for_carry(b.i64(i64::MAX - 2), b.i64(i64::MAX), 2, &[n], |i, _| vec![i]);
        b.store(frame, OUT + 32, last[0]);
    });
    let words: Vec<i64> = out[..40].chunks(8).map(i64::read).collect();
    assert_eq!(words, [55, 3, 20, 10, i64::MAX - 2]);
}

#[test]
fn failures_leave_the_function() {
    let input = 1i64.bytes();
    let failing = |code: i64| {
        run_with(RunConfig::default(), &input, |b, frame| {
            let one = b.load(Ty::I64, frame, IN);
            b.for_(b.i64(0), one, |_| {
                b.fail_if(one.eq(b.i64(code)), FailKind::Overflow, "the sum");
                b.check(one.sext(Prim::I32) * (code - 3));
            });
            b.store(frame, OUT, one);
        })
    };
    let (status, out, error) = failing(1);
    assert_eq!((status, out[0], error), (1, 0, None));
    assert_eq!(failing(7).0, 4);
    assert_eq!((failing(3).0, failing(3).1[0]), (0, 1));
}

#[test]
fn runtime_functions_are_called() {
    let config = RunConfig { budget: 1000, operators: vec!["scan".to_string()].into(), ..RunConfig::default() };
    let alloc = |bytes: i64| {
        run_with(config.clone(), &bytes.bytes(), |b, frame| {
            let (run, bytes) = (b.load(Ty::PTR, frame, abi::FRAME_RUN), b.load(Ty::I64, frame, IN));
            let memory = b.call("qn_alloc", Ty::PTR, &[run, bytes, b.i64(0)]);
            b.fail_if_runtime(memory.is_null());
            b.store(memory, 8, bytes);
            b.store(frame, OUT, b.load(Ty::I64, memory, 8));
            b.call_void("qn_free", &[run, memory]);
        })
    };
    let (status, out, error) = alloc(64);
    assert_eq!((status, i64::read(&out[..8]), error), (0, 64, None));
    let (status, _, error) = alloc(5000);
    assert_eq!(status, Module::RUNTIME_ERROR);
    assert!(error.unwrap().to_string().contains("scan"));
}

#[test]
fn unknown_functions_are_refused() {
    for (name, args) in [("qn_nothing", 1), ("qn_alloc", 1)] {
        let builder = ModuleBuilder::new();
        builder.func("main", &FRAME, |b, p| b.call_void(name, &vec![p[0]; args]));
        let refused = Interp.compile(&builder.build(), &CompileOptions::default());
        assert!(matches!(refused, Err(BackendError::Failed { backend: "interp", .. })));
    }
}

/// Counts items per worker at `OUT + 8 * worker`; fails or cancels where the input says so.
fn parallel(workers: usize, n: i64, grain: i64, fail_at: i64) -> (i32, Vec<i64>) {
    let builder = ModuleBuilder::new();
    let inner = builder.func("inner", &FRAME, |b, p| {
        b.fail_if(p[2].eq(b.i64(fail_at)), FailKind::BadCast, "item");
        let place = p[0].index(p[1], 8).at(OUT);
        b.store(place, 0, b.load(Ty::I64, place, 0) + p[3] - p[2]);
    });
    // A loop in a loop keeps the worker.
    let outer = builder.func("outer", &FRAME, |b, p| {
        b.par_for(inner, p[0], p[3] - p[2], b.i64(1));
    });
    let func = builder.func("main", &FRAME, |b, p| {
        b.par_for(if fail_at < 0 { outer } else { inner }, p[0], b.i64(n), b.i64(grain));
    });
    let code = Interp.compile(&builder.build(), &CompileOptions::default()).unwrap();
    let run = Run::new(RunConfig { workers, ..RunConfig::default() });
    let mut frame = frame(&run, &[]);
    // SAFETY: there is room for the counts of all workers.
    let status = unsafe { code.call(func, frame.0.as_mut_ptr(), &run) };
    (status, frame.0[OUT as usize..][..8 * workers].chunks(8).map(i64::read).collect())
}

#[test]
fn parallel_loops_rotate_workers() {
    assert_eq!(parallel(3, 10, 2, -1), (0, vec![4, 4, 2]));
    assert_eq!(parallel(1, 10, 100, -1), (0, vec![10]));
    assert_eq!(parallel(2, 0, 1, -1), (0, vec![0, 0]));
    assert_eq!(parallel(2, 10, 2, 4), (1, vec![2, 2]));
}

#[test]
fn cancellation_stops_parallel_loops() {
    let config = RunConfig { cancel: std::sync::Arc::new(true.into()), ..RunConfig::default() };
    let builder = ModuleBuilder::new();
    let inner = builder.func("inner", &FRAME, |_, _| {});
    let func = builder.func("main", &FRAME, |b, p| b.par_for(inner, p[0], b.i64(1), b.i64(1)));
    let code = Interp.compile(&builder.build(), &CompileOptions::default()).unwrap();
    let run = Run::new(config);
    // SAFETY: the program does not touch the frame.
    let status = unsafe { code.call(func, frame(&run, &[]).0.as_mut_ptr(), &run) };
    assert_eq!((status, run.take_error()), (Module::RUNTIME_ERROR, Some(RunError::Cancelled)));
}
