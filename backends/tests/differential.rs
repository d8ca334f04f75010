//! Random programs on the interpreter and on LLVM, which have to leave the same bits in memory.
//!
//! A program is made from a list of random numbers by [`Generator`], so that shrinking the list shrinks the program.
//! It stays where its meaning is defined: divisors are made non-zero, shifts small, NaNs quiet, and the sign of a
//! zero that `min` and `max` may choose is removed. NaNs in the output count as equal.

#![cfg(any(feature = "llvm", feature = "llvm19"))]

use proptest::prelude::*;
use quearn_backends::interp::Interp;
use quearn_backends::llvm::Llvm;
use quearn_backends::runtime::{Run, RunConfig, thread_pool};
use quearn_backends::{Backend, CompileOptions, OptLevel, abi};
use quearn_stage::low::build::ModuleBuilder;
use quearn_stage::low::*;
use std::cell::{Cell, RefCell};

const FRAME: [Ty; 4] = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
/// Random bytes, aligned to 64, of which the first are 0 or 1.
const IN: i64 = abi::FRAME_SLOTS;
const IN_BYTES: i64 = 512;
const BOOL_BYTES: i64 = 64;
/// Integers that the program reads and writes as it goes.
const WORK: i64 = IN + IN_BYTES;
const WORK_BYTES: i64 = 512;
/// The final values, 64 bytes each.
const OUT: i64 = WORK + WORK_BYTES;
const OUT_SLOTS: usize = 64;
/// Iterations of the parallel loop, each with a result of 16 bytes.
const ITEMS: i64 = 50;
const FRAME_BYTES: usize = OUT as usize + 64 * OUT_SLOTS;

/// Types of values; vectors fill 16 to 64 bytes.
const TYPES: [Ty; 20] = [
    Ty::BOOL,
    Ty::I8,
    Ty::I16,
    Ty::I32,
    Ty::I64,
    Ty::I128,
    Ty::F32,
    Ty::F64,
    Ty::vector(Prim::I8, 16),
    Ty::vector(Prim::I16, 8),
    Ty::vector(Prim::I32, 8),
    Ty::vector(Prim::I32, 16),
    Ty::vector(Prim::I64, 4),
    Ty::vector(Prim::I64, 8),
    Ty::vector(Prim::F32, 8),
    Ty::vector(Prim::F32, 16),
    Ty::vector(Prim::F64, 4),
    Ty::vector(Prim::F64, 8),
    Ty::vector(Prim::Bool, 8),
    Ty::vector(Prim::Bool, 16),
];

const INTS: [Prim; 5] = [Prim::I8, Prim::I16, Prim::I32, Prim::I64, Prim::I128];
const FLOATS: [Prim; 2] = [Prim::F32, Prim::F64];

/// Builds a function from random choices.
struct Generator<'b, 'c> {
    b: &'b Builder,
    frame: V<'b>,
    choices: &'c [u16],
    used: Cell<usize>,
    /// Values that can be used here.
    pool: RefCell<Vec<V<'b>>>,
    /// May the program write to its working memory? Not where several workers would.
    alone: bool,
}

impl<'b> Generator<'b, '_> {
    /// A choice among `n`; 0 when there are no choices left.
    fn choose(&self, n: usize) -> usize {
        let at = self.used.replace(self.used.get() + 1);
        self.choices.get(at).map_or(0, |&choice| choice as usize % n)
    }

    fn pick<T: Copy>(&self, items: &[T]) -> T {
        items[self.choose(items.len())]
    }

    fn is_done(&self) -> bool {
        self.used.get() >= self.choices.len()
    }

    fn keep(&self, value: V<'b>) {
        self.pool.borrow_mut().push(value);
    }

    /// A value of that type: an earlier one, a constant, or from memory.
    fn value(&self, ty: Ty) -> V<'b> {
        let fitting: Vec<V<'b>> = self.pool.borrow().iter().copied().filter(|v| v.ty() == ty).collect();
        match self.choose(8) {
            0 => self.constant(ty),
            1 | 2 => self.input(ty),
            _ if fitting.is_empty() => self.input(ty),
            _ => fitting[fitting.len() - 1 - self.choose(fitting.len().min(4))],
        }
    }

    fn constant(&self, ty: Ty) -> V<'b> {
        let small = [0, 1, -1, 2, 3, 10, 127, -128, 1 << 15, i64::MAX, i64::MIN];
        let value = self.pick(&small);
        if ty.prim.is_float() { self.b.float(ty, value as f64 / 4.0) } else { self.b.int(ty, value.into()) }
    }

    fn input(&self, ty: Ty) -> V<'b> {
        let bytes = if ty.prim == Prim::Bool { BOOL_BYTES } else { IN_BYTES };
        let at = IN + self.offset(ty, bytes);
        let value = if self.choose(2) == 0 {
            self.b.load(ty, self.frame, at)
        } else {
            self.b.load_invariant(ty, self.frame, at)
        };
        if ty.prim.is_float() { self.number(value) } else { value }
    }

    /// A place for a value in memory of that many bytes.
    fn offset(&self, ty: Ty, bytes: i64) -> i64 {
        let element = ty.prim.bytes() as i64;
        let places = (bytes - ty.bytes() as i64) / element + 1;
        self.choose(places as usize) as i64 * element
    }

    /// The value, or 1.5 where it is not a number.
    fn number(&self, value: V<'b>) -> V<'b> {
        value.eq(value).select(value, self.b.float(value.ty(), 1.5))
    }

    /// A random type with an element from `prims`.
    fn ty_of(&self, prims: &[Prim]) -> Ty {
        let types: Vec<Ty> = TYPES.iter().copied().filter(|ty| prims.contains(&ty.prim)).collect();
        self.pick(&types)
    }

    fn vector_of(&self, prims: &[Prim]) -> Ty {
        let types: Vec<Ty> = TYPES.iter().copied().filter(|ty| ty.is_vector() && prims.contains(&ty.prim)).collect();
        self.pick(&types)
    }

    fn expression(&self) -> V<'b> {
        match self.choose(16) {
            0..4 => self.int_binary(),
            4 => self.int_unary(),
            5..8 => self.float_arithmetic(),
            8 => self.comparison(),
            9 => self.select(),
            10 | 11 => self.conversion(),
            12 => self.bits(),
            13 => self.lanes(),
            14 => self.address(),
            _ => self.masked_read(),
        }
    }

    fn int_binary(&self) -> V<'b> {
        if self.choose(6) == 0 {
            let ty = self.ty_of(&[Prim::Bool]);
            return self.value(ty).bin(self.pick(&[BinOp::And, BinOp::Or, BinOp::Xor]), self.value(ty));
        }
        let ops: Vec<BinOp> = BinOp::ALL.iter().copied().filter(|op| *op != BinOp::Pow).collect();
        let op = self.pick(&ops);
        let ty = self.ty_of(&INTS);
        let (a, b) = (self.value(ty), self.value(ty));
        match op {
            BinOp::Div | BinOp::Rem => a.bin(op, (b.eq(b.same(0)) | b.eq(b.same(-1))).select(b.same(3), b)),
            BinOp::UDiv | BinOp::URem => a.bin(op, b.eq(b.same(0)).select(b.same(7), b)),
            BinOp::Shl | BinOp::LShr | BinOp::AShr => a.bin(op, b & (ty.prim.bytes() as i64 * 8 - 1)),
            _ => a.bin(op, b),
        }
    }

    fn int_unary(&self) -> V<'b> {
        if self.choose(8) == 0 {
            let ty = self.ty_of(&[Prim::I32]);
            return self.value(ty).dot4(self.value(ty), self.value(ty));
        }
        let ops = [UnOp::Neg, UnOp::Not, UnOp::Abs, UnOp::Ctz, UnOp::Clz, UnOp::Popcnt];
        self.value(self.ty_of(&INTS)).un(self.pick(&ops))
    }

    fn float_arithmetic(&self) -> V<'b> {
        let ty = self.ty_of(&FLOATS);
        let a = self.value(ty);
        let unary = [UnOp::Neg, UnOp::Abs, UnOp::Sqrt, UnOp::Floor, UnOp::Ceil, UnOp::Round];
        match self.choose(10) {
            0 | 1 => a.un(self.pick(&unary)),
            2 => a.fma(self.value(ty), self.value(ty)),
            // Adding zero leaves the positive one of the two zeros that `min` may give.
            3 => a.bin(self.pick(&[BinOp::Min, BinOp::Max]), self.value(ty)) + self.b.float(ty, 0.0),
            4 => a.bin(BinOp::Rem, self.value(ty)),
            _ => a.bin(self.pick(&[BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Div]), self.value(ty)),
        }
    }

    fn comparison(&self) -> V<'b> {
        let all: Vec<Prim> = INTS.into_iter().chain(FLOATS).collect();
        let ty = self.ty_of(&all);
        let (a, b) = (self.value(ty), self.value(ty));
        if ty.prim.is_float() {
            return a.cmp(self.pick(&[CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge]), b);
        }
        if self.choose(2) == 0 { a.cmp(self.pick(CmpOp::ALL), b) } else { a.overflows(self.pick(OvfOp::ALL), b) }
    }

    fn select(&self) -> V<'b> {
        let ty = self.pick(&TYPES);
        let lanewise = ty.lanes == 8 || ty.lanes == 16;
        let cond = if lanewise { ty.with_prim(Prim::Bool) } else { Ty::BOOL };
        self.value(cond).select(self.value(ty), self.value(ty))
    }

    fn conversion(&self) -> V<'b> {
        let to = self.ty_of(&INTS);
        match self.choose(8) {
            0 => self.value(self.ty_of(&INTS)).cast_to_int(self.pick(&INTS), self.choose(2) == 0),
            1 => self.value(self.ty_of(&[Prim::Bool])).cast(self.pick(&[CastOp::SExt, CastOp::ZExt]), to.prim),
            2 => self.value(to).cast(CastOp::Trunc, Prim::Bool),
            3 => self.value(self.ty_of(&INTS)).cast(self.pick(&[CastOp::SiToFp, CastOp::UiToFp]), self.pick(&FLOATS)),
            4 => self.value(self.ty_of(&FLOATS)).cast(CastOp::FpToSi, self.pick(&INTS)),
            5 => self.value(self.ty_of(&[Prim::F64])).cast(CastOp::FpTrunc, Prim::F32),
            6 => self.value(self.ty_of(&[Prim::F32])).cast(CastOp::FpExt, Prim::F64),
            _ => self.half(),
        }
    }

    /// There and back through a narrow float, or from one in memory.
    fn half(&self) -> V<'b> {
        let narrow = self.pick(&[Prim::F16, Prim::BF16]);
        let wide = self.pick(&FLOATS);
        if self.choose(2) == 0 {
            let ty = Ty::vector(narrow, self.pick(&[1, 8, 16]));
            let loaded = self.b.load(ty, self.frame, IN + self.offset(ty, IN_BYTES));
            return self.number(loaded.cast(CastOp::FpExt, wide));
        }
        let value = self.value(self.ty_of(&[wide]));
        // The processor's conversion to bf16 takes subnormal numbers for zero, that of other backends need not.
        let normal = value.un(UnOp::Abs).gt(self.b.float(value.ty(), 2e-38));
        let value = normal.select(value, self.b.zero(value.ty()));
        self.number(value.cast(CastOp::FpTrunc, narrow).cast(CastOp::FpExt, self.pick(&FLOATS)))
    }

    fn bits(&self) -> V<'b> {
        let from = self.pick(&TYPES);
        let size = |ty: Ty| if ty.prim == Prim::Bool { ty.lanes as usize } else { ty.bytes() * 8 };
        let targets: Vec<Ty> = TYPES.iter().copied().filter(|ty| size(*ty) == size(from) && *ty != from).collect();
        let value = self.value(from);
        let value = if from.prim.is_float() { self.number(value) } else { value };
        if targets.is_empty() {
            return value;
        }
        let cast = value.bitcast(self.pick(&targets));
        if cast.ty().prim.is_float() { self.number(cast) } else { cast }
    }

    fn lanes(&self) -> V<'b> {
        let all: Vec<Prim> = INTS.into_iter().chain(FLOATS).chain([Prim::Bool]).collect();
        let ty = self.vector_of(&all);
        let lane = self.choose(ty.lanes.into()) as u16;
        match self.choose(5) {
            0 => self.value(Ty::scalar(ty.prim)).splat(ty.lanes),
            1 => self.value(ty).extract(lane),
            2 => self.value(ty).insert(self.value(Ty::scalar(ty.prim)), lane),
            3 if ty.prim.is_int() && ty.prim != Prim::Bool => self.b.iota(ty),
            _ => self.reduce(ty),
        }
    }

    fn reduce(&self, ty: Ty) -> V<'b> {
        match ty.prim {
            Prim::Bool => self.value(ty).reduce(self.pick(&[ReduceOp::And, ReduceOp::Or])),
            // The sum of floats may be associated in any way.
            prim if prim.is_float() => {
                let least = self.number(self.value(ty)).reduce(self.pick(&[ReduceOp::Min, ReduceOp::Max]));
                least + self.b.float(least.ty(), 0.0)
            }
            _ => self.value(ty).reduce(self.pick(ReduceOp::ALL)),
        }
    }

    /// A scalar from a computed address.
    fn address(&self) -> V<'b> {
        let ty = self.ty_of(&INTS);
        let index = self.value(Ty::I64) & 15;
        let place = self.frame.at(IN).index(index, 16).at(self.choose(4) as i64 * 16);
        self.b.load(Ty::scalar(ty.prim), place, 0)
    }

    fn masked_read(&self) -> V<'b> {
        let ty = self.maskable();
        let mask = self.value(ty.with_prim(Prim::Bool));
        let read = match self.choose(2) {
            0 => self.b.masked_load(ty, self.frame.at(IN + self.offset(ty, IN_BYTES)), mask, self.choose(2) == 0),
            _ => {
                let index = Ty::vector(self.pick(&[Prim::I32, Prim::I64]), ty.lanes);
                let index = if TYPES.contains(&index) { self.value(index) } else { self.b.iota(index) };
                self.b.gather(ty, self.frame.at(IN), index & 31, ty.prim.bytes() as u8, mask, self.choose(2) == 0)
            }
        };
        if ty.prim.is_float() { self.number(read) } else { read }
    }

    /// A vector type with masks in the pool.
    fn maskable(&self) -> Ty {
        let types = [(Prim::I8, 16), (Prim::I16, 8), (Prim::I32, 8), (Prim::I32, 16), (Prim::I64, 8), (Prim::F32, 16)];
        let (prim, lanes) = self.pick(&types);
        Ty::vector(prim, lanes)
    }

    fn statement(&self, depth: usize) {
        match self.choose(12) {
            0 if depth > 0 => self.branch(depth - 1),
            1 if depth > 0 => self.counted(depth - 1),
            2 if depth > 0 => self.tested(depth - 1),
            3 | 4 if self.alone => self.write(),
            5 if self.alone => self.atomic(),
            6 if self.choose(4) == 0 => self.b.fail_if(self.value(Ty::BOOL), FailKind::Overflow, "here"),
            _ => {
                let value = self.expression();
                self.keep(value);
            }
        }
    }

    /// Statements whose values end with them; then `make` gives the results.
    fn body<R>(&self, depth: usize, make: impl FnOnce() -> R) -> R {
        let before = self.pool.borrow().len();
        (0..1 + self.choose(6)).filter(|_| !self.is_done()).for_each(|_| self.statement(depth));
        let result = make();
        self.pool.borrow_mut().truncate(before);
        result
    }

    fn branch(&self, depth: usize) {
        let (first, second) = (self.pick(&TYPES), self.pick(&TYPES));
        let results = || vec![self.value(first), self.value(second)];
        let arm = || self.body(depth, results);
        self.b.if_else(self.value(Ty::BOOL), arm, arm).into_iter().for_each(|v| self.keep(v));
    }

    fn carried(&self) -> Vec<V<'b>> {
        (0..self.choose(4)).map(|_| self.value(self.pick(&TYPES))).collect()
    }

    fn next(&self, init: &[V<'b>]) -> Vec<V<'b>> {
        init.iter().map(|v| self.value(v.ty())).collect()
    }

    fn counted(&self, depth: usize) {
        let lo = self.value(Ty::I64) & 3;
        let hi = if self.choose(2) == 0 { self.value(Ty::I64) & 7 } else { self.b.i64(5) };
        let init = self.carried();
        let step = 1 + self.choose(3) as i64;
        let results = self.b.for_carry(lo, hi, step, &init, |i, carried| {
            let before = self.pool.borrow().len();
            self.keep(i);
            carried.iter().for_each(|&v| self.keep(v));
            let next = self.body(depth, || self.next(&init));
            self.pool.borrow_mut().truncate(before);
            next
        });
        results.into_iter().for_each(|v| self.keep(v));
    }

    fn tested(&self, depth: usize) {
        let rest = self.carried();
        let init: Vec<V<'b>> = std::iter::once(self.value(Ty::I64) & 7).chain(rest).collect();
        let test = |carried: &[V<'b>]| self.body(0, || carried[0].gt(self.b.i64(0)));
        let results = self.b.while_(&init, test, |carried| {
            let before = self.pool.borrow().len();
            carried.iter().for_each(|&v| self.keep(v));
            let next = self.body(depth, || self.next(&init[1..]));
            self.pool.borrow_mut().truncate(before);
            std::iter::once(carried[0] - 1).chain(next).collect()
        });
        results.into_iter().for_each(|v| self.keep(v));
    }

    fn write(&self) {
        let work = |ty| WORK + self.offset(ty, WORK_BYTES);
        match self.choose(4) {
            0 => {
                let ty = self.ty_of(&INTS);
                self.b.store(self.frame, work(ty), self.value(ty));
            }
            1 => {
                let ty = self.ty_of(&INTS);
                self.keep(self.b.load(ty, self.frame, work(ty)));
            }
            kind => {
                let ty = self.maskable();
                let (place, value) = (self.frame.at(work(ty)), self.value(ty));
                let value = if ty.prim.is_float() { self.number(value) } else { value };
                let mask = self.value(ty.with_prim(Prim::Bool));
                if kind == 2 {
                    self.b.masked_store(place, mask, value)
                } else {
                    self.b.compress_store(place, mask, value)
                }
            }
        }
    }

    fn atomic(&self) {
        let ty = Ty::scalar(self.pick(&[Prim::I8, Prim::I16, Prim::I32, Prim::I64]));
        let place = self.frame.at(WORK + self.offset(ty, WORK_BYTES));
        let value = self.value(ty);
        let old = match self.choose(4) {
            0 => self.b.cmpxchg(place, self.value(ty), value),
            _ => self.b.atomic(self.pick(RmwOp::ALL), place, value),
        };
        self.keep(old);
    }
}

trait CastToInt<'b> {
    fn cast_to_int(self, to: Prim, signed: bool) -> V<'b>;
}

impl<'b> CastToInt<'b> for V<'b> {
    fn cast_to_int(self, to: Prim, signed: bool) -> V<'b> {
        if signed { self.sext(to) } else { self.zext(to) }
    }
}

fn generator<'b, 'c>(b: &'b Builder, p: &[V<'b>], choices: &'c [u16], alone: bool) -> Generator<'b, 'c> {
    let pool = RefCell::new(p[1..].to_vec());
    Generator { b, frame: p[0], choices, used: Cell::new(0), pool, alone }
}

/// A program of one function that leaves its last values at `OUT`; their types.
fn sequential(choices: &[u16]) -> (Module, FuncId, Vec<Ty>) {
    let builder = ModuleBuilder::new();
    let mut outputs = vec![];
    let func = builder.func("main", &FRAME, |b, p| {
        let g = generator(b, p, choices, true);
        while !g.is_done() {
            g.statement(3);
        }
        let pool = g.pool.borrow();
        let last = pool.iter().rev().take(OUT_SLOTS);
        last.enumerate().for_each(|(i, &value)| b.store(p[0], OUT + 64 * i as i64, value));
        outputs = pool.iter().rev().take(OUT_SLOTS).map(|v| v.ty()).collect();
    });
    (builder.build(), func, outputs)
}

/// A program whose parallel loop leaves a value for every item.
fn parallel(choices: &[u16]) -> (Module, FuncId, Vec<Ty>) {
    let builder = ModuleBuilder::new();
    let body = builder.func("body", &FRAME, |b, p| {
        b.for_(p[2], p[3], |i| {
            let g = generator(b, &[p[0], i], choices, false);
            let ty = Ty::scalar(g.pick(&INTS));
            while !g.is_done() {
                g.statement(2);
            }
            b.store(p[0].index(i, 64), OUT, g.value(ty).sext(Prim::I128));
        });
    });
    let func = builder.func("main", &FRAME, |b, p| b.par_for(body, p[0], b.i64(ITEMS), b.i64(3)));
    (builder.build(), func, vec![Ty::I128; ITEMS as usize])
}

#[repr(C, align(64))]
struct Frame([u8; FRAME_BYTES]);

/// Runs the program on the input; its status and memory, without what is not to be compared.
fn run(
    backend: &dyn Backend,
    level: OptLevel,
    config: RunConfig,
    (module, func, outputs): &(Module, FuncId, Vec<Ty>),
    input: &[u8],
) -> (i32, Vec<u8>) {
    let options = CompileOptions { level, ..CompileOptions::default() };
    let code = backend.compile(module, &options).expect("the module compiles");
    let run = Run::new(config);
    let mut frame = Box::new(Frame([0; FRAME_BYTES]));
    frame.0[..8].copy_from_slice(&run.header().run.expose_provenance().to_ne_bytes());
    frame.0[8..16].copy_from_slice(&run.header().workers.to_ne_bytes());
    frame.0[IN as usize..][..input.len()].copy_from_slice(input);
    // SAFETY: generated programs stay within the frame.
    let status = unsafe { code.call(*func, frame.0.as_mut_ptr(), &run) };
    assert_eq!(run.take_error(), None, "a generated program is defined");
    let mut memory = frame.0[IN as usize..].to_vec();
    for (i, ty) in outputs.iter().enumerate().filter(|(_, ty)| ty.prim.is_float()) {
        let slot = &mut memory[(OUT - IN) as usize + 64 * i..][..ty.bytes()];
        slot.chunks_mut(ty.prim.bytes()).for_each(unify_nan);
    }
    (status, memory)
}

/// All NaNs are one.
fn unify_nan(bytes: &mut [u8]) {
    let nan = match *bytes {
        [a, b, c, d] => f32::from_ne_bytes([a, b, c, d]).is_nan(),
        [a, b, c, d, e, f, g, h] => f64::from_ne_bytes([a, b, c, d, e, f, g, h]).is_nan(),
        _ => unreachable!("a float of {} bytes", bytes.len()),
    };
    if nan {
        bytes.fill(0xff);
    }
}

/// Bytes that print on one line.
#[derive(Clone)]
struct Input(Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Choices that print on one line.
#[derive(Clone)]
struct Choices(Vec<u16>);

impl std::fmt::Debug for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn choices(most: usize) -> impl Strategy<Value = Choices> {
    proptest::collection::vec(any::<u16>(), 10..most).prop_map(Choices)
}

fn inputs() -> impl Strategy<Value = Input> {
    let byte = prop_oneof![2 => Just(0u8), 1 => Just(0xff), 1 => Just(0x80), 1 => Just(0x7f), 8 => any::<u8>()];
    // Whole floats as well, which random bytes seldom give a useful exponent.
    let float = (-1000i32..1000).prop_map(|x| (x as f32 / 8.0).to_ne_bytes().to_vec());
    let double = (-1000i32..1000).prop_map(|x| (f64::from(x) / 8.0).to_ne_bytes().to_vec());
    let piece = prop_oneof![4 => proptest::collection::vec(byte, 8), 1 => float.prop_map(|f| [&f[..], &f].concat()), 1 => double];
    proptest::collection::vec(piece, IN_BYTES as usize / 8).prop_map(|pieces| {
        let mut bytes = pieces.concat();
        bytes[..BOOL_BYTES as usize].iter_mut().for_each(|byte| *byte &= 1);
        Input(bytes)
    })
}

fn agree(program: &(Module, FuncId, Vec<Ty>), input: &[u8], workers: usize) -> Result<(), TestCaseError> {
    let config = |pool| RunConfig { workers, pool, ..RunConfig::default() };
    let expected = run(&Interp, OptLevel::None, config(None), program, input);
    for level in [OptLevel::None, OptLevel::Default, OptLevel::Aggressive] {
        let pool = (workers > 1).then(|| thread_pool(workers).expect("threads start"));
        let actual = run(&Llvm::new(), level, config(pool), program, input);
        prop_assert_eq!(actual.0, expected.0, "status at {:?} of\n{}", level, program.0);
        let differing = actual.1.iter().zip(&expected.1).position(|(a, b)| a != b);
        // After a failure in parallel, which items are done is open.
        if workers == 1 || expected.0 == 0 {
            prop_assert_eq!(differing, None, "first differing byte at {:?} of\n{}", level, program.0);
        }
    }
    Ok(())
}

/// Enough cases for every run of the tests; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 48 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 1000, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn programs_agree(choices in choices(400), input in inputs()) {
        agree(&sequential(&choices.0), &input.0, 1)?;
    }

    #[test]
    fn parallel_programs_agree(choices in choices(120), input in inputs()) {
        agree(&parallel(&choices.0), &input.0, 2)?;
    }
}
