//! The builder of low-level functions.
//!
//! A staged value [`V`] is `Copy` and carries its builder, so that generators read like the code they generate:
//! `b.if_(x.lt(y), || …)`, `a * b + c`. Every instruction goes through the laws of [`super::simplify`], pure ones
//! are shared within their scope, and what nothing needs is dropped when the function is finished; a generator can
//! therefore be written naively. Rust's own control flow leaves no trace in the program.

use super::inst::*;
use super::scopes::Scopes;
use super::simplify::{Simplified, simplify};
use super::ty::{Prim, Ty};
use std::cell::RefCell;
use std::rc::Rc;

struct State {
    func: Func,
    scopes: Scopes,
    /// Instructions that go before everything else in the entry block: constants and hoisted loads.
    prologue: Vec<Inst>,
}

/// Collects the functions of a module. Cheap to clone: all clones write into one module.
#[derive(Clone, Default)]
pub struct ModuleBuilder(Rc<RefCell<Module>>);

impl ModuleBuilder {
    /// An empty module.
    pub fn new() -> ModuleBuilder {
        ModuleBuilder::default()
    }

    /// Builds a function: `body` gets the builder and the parameters. The function's status is 0 unless a
    /// `fail_if` or `check` leaves it earlier.
    pub fn func(&self, name: &str, params: &[Ty], body: impl for<'b> FnOnce(&'b Builder, &[V<'b>])) -> FuncId {
        let builder = Builder::new(self.clone(), name, params);
        {
            let params: Vec<V<'_>> = builder.params();
            body(&builder, &params);
        }
        builder.finish()
    }

    /// Number of functions finished so far.
    pub fn len(&self) -> usize {
        self.0.borrow().funcs.len()
    }

    /// Has no function been finished yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The finished module.
    pub fn build(self) -> Module {
        match Rc::try_unwrap(self.0) {
            Ok(module) => module.into_inner(),
            Err(shared) => shared.borrow().clone(),
        }
    }
}

/// Builds one function. See the module documentation.
pub struct Builder {
    module: ModuleBuilder,
    state: RefCell<State>,
}

/// A staged value: known when the program runs. The operators follow [`BinOp`]; those that take an `i64` use a
/// constant of the other operand's type.
#[derive(Clone, Copy)]
pub struct V<'b> {
    b: &'b Builder,
    /// The value in the function.
    pub id: Value,
}

/// A place between two instructions. See [`Builder::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    block: Block,
    at: usize,
}

impl Builder {
    fn new(module: ModuleBuilder, name: &str, params: &[Ty]) -> Builder {
        let entry = Block(0);
        let mut func = Func {
            name: name.into(),
            cold: false,
            params: vec![],
            values: vec![],
            insts: vec![],
            blocks: vec![BlockData::default()],
            entry,
        };
        for (i, &ty) in params.iter().enumerate() {
            func.values.push(ValueData { ty, def: ValueDef::Param(i as u32) });
            func.params.push(Value(i as u32));
        }
        let state = State { func, scopes: Scopes::new(entry), prologue: vec![] };
        Builder { module, state: RefCell::new(state) }
    }

    /// The module that the function will belong to; further functions can be built while this one is.
    pub fn module(&self) -> &ModuleBuilder {
        &self.module
    }

    /// Says that the function runs on so little data that compiling it costs more than running it: a backend should
    /// compile it as fast as it can.
    pub fn mark_cold(&self) {
        self.state.borrow_mut().func.cold = true;
    }

    fn v(&self, id: Value) -> V<'_> {
        V { b: self, id }
    }

    fn params(&self) -> Vec<V<'_>> {
        let n = self.state.borrow().func.params.len();
        (0..n).map(|i| self.v(Value(i as u32))).collect()
    }

    fn finish(self) -> FuncId {
        let ok = self.i32(0).id;
        let State { mut func, scopes, prologue } = self.state.into_inner();
        debug_assert_eq!(scopes.depth(), 0, "unbalanced scopes");
        let entry = &mut func.blocks[func.entry.index()];
        entry.insts.splice(0..0, prologue);
        entry.yields = vec![ok];
        drop_dead(&mut func);
        let mut module = self.module.0.borrow_mut();
        module.funcs.push(func);
        FuncId(module.funcs.len() as u32 - 1)
    }

    /// Emits `op`, simplified and shared; the single result has type `ty`.
    pub fn emit(&self, op: Op, ty: Ty) -> V<'_> {
        let simplified = simplify(&self.state.borrow().func, &op, ty);
        let op = match simplified {
            Simplified::Value(value) => return self.v(value),
            Simplified::Op(op) => op,
            Simplified::Keep => op,
        };
        let state = &mut *self.state.borrow_mut();
        let first = matches!(op, Op::Const(_) | Op::Alloca { .. });
        let pure = op.effect() == Effect::Pure;
        let key = (op, ty);
        if let (true, Some(found)) = (pure, state.scopes.find(&key)) {
            return self.v(found);
        }
        let (inst, results) = state.func.add_inst(key.0.clone(), &[ty]);
        let depth = if first { 0 } else { state.scopes.depth() };
        if first {
            state.prologue.push(inst);
        } else {
            state.push(inst);
        }
        if pure {
            state.scopes.share(key, results[0], depth);
        }
        self.v(results[0])
    }

    fn emit_many(&self, op: Op, tys: &[Ty]) -> Vec<V<'_>> {
        let mut state = self.state.borrow_mut();
        let (inst, results) = state.func.add_inst(op, tys);
        state.push(inst);
        results.into_iter().map(|id| self.v(id)).collect()
    }

    /// Runs `body` in a new block with parameters of the given types; returns the block.
    fn block<'b>(&'b self, params: &[Ty], body: impl FnOnce(Vec<V<'b>>) -> Vec<V<'b>>) -> Block {
        let (block, params) = {
            let state = &mut *self.state.borrow_mut();
            let block = state.func.add_block(params);
            state.scopes.open(block);
            (block, state.func.block(block).params.clone())
        };
        let yields = body(params.into_iter().map(|id| self.v(id)).collect());
        let mut state = self.state.borrow_mut();
        state.scopes.close();
        state.func.blocks[block.index()].yields = yields.iter().map(|v| v.id).collect();
        block
    }

    // Constants.

    /// An integer (or `Bool`, or null pointer) constant, truncated to the type; a splat for vectors.
    pub fn int(&self, ty: Ty, value: i128) -> V<'_> {
        self.emit(Op::Const(Const::Int(wrap(ty.prim, value))), ty)
    }

    /// A float constant of the type, rounded to it; a splat for vectors.
    pub fn float(&self, ty: Ty, value: f64) -> V<'_> {
        let value = if ty.prim == Prim::F32 { value as f32 as f64 } else { value };
        self.emit(Op::Const(Const::Float(value.to_bits())), ty)
    }

    /// An `i64` constant.
    pub fn i64(&self, value: i64) -> V<'_> {
        self.int(Ty::I64, value.into())
    }

    /// An `i32` constant.
    pub fn i32(&self, value: i32) -> V<'_> {
        self.int(Ty::I32, value.into())
    }

    /// A `Bool` constant.
    pub fn bool(&self, value: bool) -> V<'_> {
        self.int(Ty::BOOL, value.into())
    }

    /// An `f32` constant.
    pub fn f32(&self, value: f32) -> V<'_> {
        self.float(Ty::F32, value.into())
    }

    /// An `f64` constant.
    pub fn f64(&self, value: f64) -> V<'_> {
        self.float(Ty::F64, value)
    }

    /// The null pointer.
    pub fn null(&self) -> V<'_> {
        self.int(Ty::PTR, 0)
    }

    /// A zero of any type.
    pub fn zero(&self, ty: Ty) -> V<'_> {
        if ty.prim.is_float() { self.float(ty, 0.0) } else { self.int(ty, 0) }
    }

    /// `[0, 1, 2, …]` as an integer vector; zero for one lane.
    pub fn iota(&self, ty: Ty) -> V<'_> {
        if ty.is_vector() { self.emit(Op::Iota, ty) } else { self.zero(ty) }
    }

    /// Emits what `body` builds at the start of the function. It may use parameters, constants and stack memory only.
    pub fn in_prologue(&self, body: impl FnOnce()) {
        let block = self.block(&[], |_| {
            body();
            vec![]
        });
        let state = &mut *self.state.borrow_mut();
        let insts = std::mem::take(&mut state.func.blocks[block.index()].insts);
        state.prologue.extend(insts);
    }

    /// The current place in the function, for [`Builder::at_mark`].
    pub fn mark(&self) -> Mark {
        let state = self.state.borrow();
        let block = state.scopes.here();
        Mark { block, at: state.func.blocks[block.index()].insts.len() }
    }

    /// Emits what `body` builds at an earlier place. It may use what was there already, constants and stack memory only.
    pub fn at_mark(&self, mark: Mark, body: impl FnOnce()) {
        let block = self.block(&[], |_| {
            body();
            vec![]
        });
        let state = &mut *self.state.borrow_mut();
        let insts = std::mem::take(&mut state.func.blocks[block.index()].insts);
        state.func.blocks[mark.block.index()].insts.splice(mark.at..mark.at, insts);
    }

    /// The staged value of an id that this builder gave.
    pub fn value(&self, id: Value) -> V<'_> {
        debug_assert!(id.index() < self.state.borrow().func.values.len());
        self.v(id)
    }

    // Memory.

    /// Reads a `ty` at `ptr + offset`, naturally aligned by its element.
    pub fn load<'b>(&'b self, ty: Ty, ptr: V<'b>, offset: i64) -> V<'b> {
        self.emit(Op::Load { ptr: ptr.id, offset, align: ty.prim.bytes() as u16, invariant: false }, ty)
    }

    /// Like [`Builder::load`], from memory that nothing writes while the function runs.
    pub fn load_invariant<'b>(&'b self, ty: Ty, ptr: V<'b>, offset: i64) -> V<'b> {
        self.emit(Op::Load { ptr: ptr.id, offset, align: ty.prim.bytes() as u16, invariant: true }, ty)
    }

    /// Like [`Builder::load_invariant`], moved to the start of the function: `ptr` must be a parameter, and the
    /// memory readable whenever the function runs.
    pub fn load_hoisted<'b>(&'b self, ty: Ty, ptr: V<'b>, offset: i64) -> V<'b> {
        let state = &mut *self.state.borrow_mut();
        debug_assert!(matches!(state.func.values[ptr.id.index()].def, ValueDef::Param(_)));
        let key = (Op::Load { ptr: ptr.id, offset, align: ty.prim.bytes() as u16, invariant: true }, ty);
        if let Some(found) = state.scopes.find_outermost(&key) {
            return self.v(found);
        }
        let (inst, results) = state.func.add_inst(key.0.clone(), &[ty]);
        state.prologue.push(inst);
        state.scopes.share(key, results[0], 0);
        self.v(results[0])
    }

    /// Writes `value` at `ptr + offset`, naturally aligned by its element.
    pub fn store<'b>(&'b self, ptr: V<'b>, offset: i64, value: V<'b>) {
        let align = value.ty().prim.bytes() as u16;
        let (ptr, offset) = self.fold_address(ptr.id, offset);
        self.emit_many(Op::Store { ptr, offset, align, value: value.id }, &[]);
    }

    fn fold_address(&self, ptr: Value, offset: i64) -> (Value, i64) {
        super::simplify::fold_address(&self.state.borrow().func, ptr, offset)
    }

    /// Reads the lanes of `ty` where `mask` is true; zero elsewhere.
    pub fn masked_load<'b>(&'b self, ty: Ty, ptr: V<'b>, mask: V<'b>, invariant: bool) -> V<'b> {
        self.emit(Op::MaskedLoad { ptr: ptr.id, mask: mask.id, invariant }, ty)
    }

    /// Writes the lanes where `mask` is true.
    pub fn masked_store<'b>(&'b self, ptr: V<'b>, mask: V<'b>, value: V<'b>) {
        self.emit_many(Op::MaskedStore { ptr: ptr.id, mask: mask.id, value: value.id }, &[]);
    }

    /// Writes the lanes where `mask` is true without gaps, from `ptr` on.
    pub fn compress_store<'b>(&'b self, ptr: V<'b>, mask: V<'b>, value: V<'b>) {
        self.emit_many(Op::CompressStore { ptr: ptr.id, mask: mask.id, value: value.id }, &[]);
    }

    /// Reads `base[index[lane] * scale bytes]` where `mask` is true; zero elsewhere.
    pub fn gather<'b>(&'b self, ty: Ty, base: V<'b>, index: V<'b>, scale: u8, mask: V<'b>, invariant: bool) -> V<'b> {
        self.emit(Op::Gather { base: base.id, index: index.id, scale, mask: mask.id, invariant }, ty)
    }

    /// Asks for the cache line at `ptr`.
    pub fn prefetch(&self, ptr: V<'_>) {
        self.emit_many(Op::Prefetch { ptr: ptr.id, far: false }, &[]);
    }

    /// Asks for the cache line at `ptr`, but not into the first-level cache: it is needed later.
    pub fn prefetch_far(&self, ptr: V<'_>) {
        self.emit_many(Op::Prefetch { ptr: ptr.id, far: true }, &[]);
    }

    /// Stack memory for the time the function runs, uninitialised.
    pub fn alloca(&self, bytes: u32, align: u16) -> V<'_> {
        self.emit(Op::Alloca { bytes, align }, Ty::PTR)
    }

    /// Atomic read-modify-write; gives the old value.
    pub fn atomic<'b>(&'b self, op: RmwOp, ptr: V<'b>, value: V<'b>) -> V<'b> {
        self.emit(Op::AtomicRmw { op, ptr: ptr.id, value: value.id }, value.ty())
    }

    /// Atomic compare-and-exchange; gives the old value.
    pub fn cmpxchg<'b>(&'b self, ptr: V<'b>, expected: V<'b>, new: V<'b>) -> V<'b> {
        self.emit(Op::CmpXchg { ptr: ptr.id, expected: expected.id, new: new.id }, new.ty())
    }

    // Calls and failures.

    /// Calls a runtime function that gives a value.
    pub fn call<'b>(&'b self, name: &str, ret: Ty, args: &[V<'b>]) -> V<'b> {
        let tys: Vec<Ty> = args.iter().map(|a| a.ty()).collect();
        let callee = self.module.0.borrow_mut().declare(name, &tys, Some(ret));
        self.emit(Op::Call { callee, args: args.iter().map(|a| a.id).collect() }, ret)
    }

    /// Calls a runtime function that gives nothing.
    pub fn call_void<'b>(&'b self, name: &str, args: &[V<'b>]) {
        let tys: Vec<Ty> = args.iter().map(|a| a.ty()).collect();
        let callee = self.module.0.borrow_mut().declare(name, &tys, None);
        self.emit_many(Op::Call { callee, args: args.iter().map(|a| a.id).collect() }, &[]);
    }

    /// Leaves the function with an error when `cond` is true; `message` names the place in the user's terms.
    pub fn fail_if(&self, cond: V<'_>, kind: FailKind, message: &str) {
        if cond.as_int() == Some(0) {
            return;
        }
        let code = self.module.0.borrow_mut().site(kind, message);
        self.emit_many(Op::FailIf { cond: cond.id, code }, &[]);
    }

    /// Leaves the function with the failure that the runtime has recorded when `cond` is true.
    pub fn fail_if_runtime(&self, cond: V<'_>) {
        if cond.as_int() == Some(0) {
            return;
        }
        self.emit_many(Op::FailIf { cond: cond.id, code: Module::RUNTIME_ERROR }, &[]);
    }

    /// Leaves the function with `status` when it is not zero.
    pub fn check(&self, status: V<'_>) {
        self.emit_many(Op::Check { status: status.id }, &[]);
    }

    /// Calls `func(frame, worker, lo, hi)` over `0..n` in parallel, `grain` items a call, and hands up a failure.
    pub fn par_for<'b>(&'b self, func: FuncId, frame: V<'b>, n: V<'b>, grain: V<'b>) {
        let status = self.emit(Op::ParFor { func, frame: frame.id, n: n.id, grain: grain.id }, Ty::I32);
        self.check(status);
    }

    // Structured control flow.

    /// Runs `then` when `cond` is true.
    pub fn if_<'b>(&'b self, cond: V<'b>, then: impl FnOnce()) {
        self.if_else(
            cond,
            || {
                then();
                vec![]
            },
            Vec::new,
        );
    }

    /// Runs one of two branches and gives what it yields; both yield the same types.
    pub fn if_else<'b>(
        &'b self,
        cond: V<'b>,
        then: impl FnOnce() -> Vec<V<'b>>,
        els: impl FnOnce() -> Vec<V<'b>>,
    ) -> Vec<V<'b>> {
        match cond.as_int() {
            Some(0) => return els(),
            Some(_) => return then(),
            None => {}
        }
        let then = self.block(&[], |_| then());
        let els = self.block(&[], |_| els());
        let tys = self.yield_types(then);
        debug_assert_eq!(tys, self.yield_types(els), "the branches of an if yield different types");
        self.emit_many(Op::If { cond: cond.id, then, els }, &tys)
    }

    fn yield_types(&self, block: Block) -> Vec<Ty> {
        let state = self.state.borrow();
        state.func.block(block).yields.iter().map(|&v| state.func.ty(v)).collect()
    }

    /// Counts from `lo` to `hi` (exclusive) by 1.
    pub fn for_<'b>(&'b self, lo: V<'b>, hi: V<'b>, body: impl FnOnce(V<'b>)) {
        self.for_carry(lo, hi, 1, &[], |i, _| {
            body(i);
            vec![]
        });
    }

    /// Counts from `lo` to `hi` (exclusive) by `step` and carries values from one round to the next.
    pub fn for_carry<'b>(
        &'b self,
        lo: V<'b>,
        hi: V<'b>,
        step: i64,
        init: &[V<'b>],
        body: impl FnOnce(V<'b>, &[V<'b>]) -> Vec<V<'b>>,
    ) -> Vec<V<'b>> {
        assert!(step > 0, "a for loop counts upward");
        if let (Some(l), Some(h)) = (lo.as_int(), hi.as_int()) {
            if l >= h {
                return init.to_vec();
            }
            if l + i128::from(step) >= h {
                return body(lo, init);
            }
        }
        let carried: Vec<Ty> = init.iter().map(|v| v.ty()).collect();
        let params: Vec<Ty> = std::iter::once(Ty::I64).chain(carried.iter().copied()).collect();
        let body = self.block(&params, |p| body(p[0], &p[1..]));
        debug_assert_eq!(self.yield_types(body), carried, "a loop body yields other types than it carries");
        let op = Op::For { lo: lo.id, hi: hi.id, step, init: init.iter().map(|v| v.id).collect(), body };
        self.emit_many(op, &carried)
    }

    /// While `cond` of the carried values holds, `body` gives the next ones.
    pub fn while_<'b>(
        &'b self,
        init: &[V<'b>],
        cond: impl FnOnce(&[V<'b>]) -> V<'b>,
        body: impl FnOnce(&[V<'b>]) -> Vec<V<'b>>,
    ) -> Vec<V<'b>> {
        let carried: Vec<Ty> = init.iter().map(|v| v.ty()).collect();
        let cond = self.block(&carried, |p| vec![cond(&p)]);
        let body = self.block(&carried, |p| body(&p));
        debug_assert_eq!(self.yield_types(body), carried, "a loop body yields other types than it carries");
        self.emit_many(Op::While { init: init.iter().map(|v| v.id).collect(), cond, body }, &carried)
    }
}

impl State {
    fn push(&mut self, inst: Inst) {
        let block = self.scopes.here();
        self.func.blocks[block.index()].insts.push(inst);
    }
}

impl Func {
    /// Adds an instruction that is in no block yet.
    pub(super) fn add_inst(&mut self, op: Op, tys: &[Ty]) -> (Inst, Vec<Value>) {
        let inst = Inst(self.insts.len() as u32);
        let results: Vec<Value> =
            tys.iter().enumerate().map(|(i, &ty)| self.add_value(ty, ValueDef::Result(inst, i as u32))).collect();
        self.insts.push(InstData { op, results: results.clone() });
        (inst, results)
    }

    /// Adds an empty block with parameters.
    pub(super) fn add_block(&mut self, params: &[Ty]) -> Block {
        let block = Block(self.blocks.len() as u32);
        let params = (0..).zip(params).map(|(i, &ty)| self.add_value(ty, ValueDef::BlockParam(block, i))).collect();
        self.blocks.push(BlockData { params, ..BlockData::default() });
        block
    }

    fn add_value(&mut self, ty: Ty, def: ValueDef) -> Value {
        self.values.push(ValueData { ty, def });
        Value(self.values.len() as u32 - 1)
    }
}

/// Removes instructions whose results nothing needs and that do nothing else.
fn drop_dead(func: &mut Func) {
    let mut live = vec![false; func.values.len()];
    let mut keep = vec![false; func.insts.len()];
    mark(func, func.entry, &mut live, &mut keep);
    for block in &mut func.blocks {
        block.insts.retain(|i| keep[i.index()]);
    }
}

/// Marks what `block` needs, last instruction first; definitions come before uses, so that one pass is enough.
fn mark(func: &Func, block: Block, live: &mut [bool], keep: &mut [bool]) {
    for v in &func.block(block).yields {
        live[v.index()] = true;
    }
    for &inst in func.block(block).insts.iter().rev() {
        let data = func.inst(inst);
        let needed = has_effect(func, inst) || data.results.iter().any(|r| live[r.index()]);
        if !needed {
            continue;
        }
        keep[inst.index()] = true;
        for b in data.op.blocks() {
            mark(func, b, live, keep);
        }
        for v in data.op.operands() {
            live[v.index()] = true;
        }
    }
}

fn has_effect(func: &Func, inst: Inst) -> bool {
    match &func.inst(inst).op {
        // A while loop may not end, which is an effect of its own.
        op @ (Op::If { .. } | Op::For { .. }) => {
            op.blocks().iter().any(|&b| func.block(b).insts.iter().any(|&i| has_effect(func, i)))
        }
        op => op.effect() == Effect::Write,
    }
}

/// Sign-extends the low bits of an integer constant, the canonical form of [`Const::Int`].
pub fn wrap(prim: Prim, value: i128) -> i128 {
    match prim {
        Prim::Bool => value & 1,
        Prim::Ptr => value as i64 as i128,
        _ => match prim.int_bits() {
            Some(bits) if bits < 128 => (value << (128 - bits)) >> (128 - bits),
            _ => value,
        },
    }
}

impl<'b> V<'b> {
    /// The builder that the value belongs to.
    pub fn builder(self) -> &'b Builder {
        self.b
    }

    /// Type.
    pub fn ty(self) -> Ty {
        self.b.state.borrow().func.ty(self.id)
    }

    /// The integer, if the value is an integer constant: present when the program is generated.
    pub fn as_int(self) -> Option<i128> {
        match self.b.state.borrow().func.as_const(self.id) {
            Some(Const::Int(i)) => Some(i),
            _ => None,
        }
    }

    /// The constants between which the value is kept, if it is a float that was clamped ([`Func::clamp`]).
    pub fn clamp(self) -> Option<[f64; 2]> {
        self.b.state.borrow().func.clamp(self.id)
    }

    /// A constant of this value's type.
    pub fn same(self, value: i64) -> V<'b> {
        let ty = self.ty();
        if ty.prim.is_float() { self.b.float(ty, value as f64) } else { self.b.int(ty, value.into()) }
    }

    /// A lane-wise operation of one operand.
    pub fn un(self, op: UnOp) -> V<'b> {
        self.b.emit(Op::Un(op, self.id), self.ty())
    }

    /// A lane-wise operation of two operands of one type.
    pub fn bin(self, op: BinOp, rhs: V<'b>) -> V<'b> {
        let ty = self.ty();
        debug_assert_eq!(ty, rhs.ty(), "operands of {}", op.name());
        self.b.emit(Op::Bin(op, self.id, rhs.id), ty)
    }

    /// A lane-wise comparison.
    pub fn cmp(self, op: CmpOp, rhs: V<'b>) -> V<'b> {
        debug_assert_eq!(self.ty(), rhs.ty(), "operands of cmp {}", op.name());
        self.b.emit(Op::Cmp(op, self.id, rhs.id), self.ty().with_prim(Prim::Bool))
    }

    /// Does the signed operation overflow?
    pub fn overflows(self, op: OvfOp, rhs: V<'b>) -> V<'b> {
        self.b.emit(Op::Ovf(op, self.id, rhs.id), self.ty().with_prim(Prim::Bool))
    }

    /// A conversion to `prim`, lane by lane.
    pub fn cast(self, op: CastOp, prim: Prim) -> V<'b> {
        let ty = self.ty();
        if ty.prim == prim && op != CastOp::Bitcast {
            return self;
        }
        self.b.emit(Op::Cast(op, self.id), ty.with_prim(prim))
    }

    /// The bits as another type of the same size.
    pub fn bitcast(self, ty: Ty) -> V<'b> {
        if self.ty() == ty { self } else { self.b.emit(Op::Cast(CastOp::Bitcast, self.id), ty) }
    }

    /// Sign-extended (or unchanged) to a wider integer, or truncated to a narrower one.
    pub fn sext(self, prim: Prim) -> V<'b> {
        let narrower = prim.int_bits() < self.ty().prim.int_bits();
        self.cast(if narrower { CastOp::Trunc } else { CastOp::SExt }, prim)
    }

    /// Zero-extended (or unchanged) to a wider integer, or truncated to a narrower one.
    pub fn zext(self, prim: Prim) -> V<'b> {
        let narrower = prim.int_bits() < self.ty().prim.int_bits();
        self.cast(if narrower { CastOp::Trunc } else { CastOp::ZExt }, prim)
    }

    /// `a` where this `Bool` is true, `b` elsewhere.
    pub fn select(self, a: V<'b>, b: V<'b>) -> V<'b> {
        debug_assert_eq!(a.ty(), b.ty(), "arms of select");
        self.b.emit(Op::Select(self.id, a.id, b.id), a.ty())
    }

    /// `self * b + c` with one rounding.
    pub fn fma(self, b: V<'b>, c: V<'b>) -> V<'b> {
        self.b.emit(Op::Fma(self.id, b.id, c.id), self.ty())
    }

    /// `self + sum(b[i] * c[i])` over the four bytes of each lane, those of `b` unsigned, those of `c` signed; all are `i32`,
    /// sums wrap.
    pub fn dot4(self, b: V<'b>, c: V<'b>) -> V<'b> {
        self.b.emit(Op::Dot4(self.id, b.id, c.id), self.ty())
    }

    /// The scalar in every lane; unchanged for one lane.
    pub fn splat(self, lanes: u16) -> V<'b> {
        let ty = self.ty();
        if lanes == 1 { self } else { self.b.emit(Op::Splat(self.id), Ty::vector(ty.prim, lanes)) }
    }

    /// One lane.
    pub fn extract(self, lane: u16) -> V<'b> {
        self.b.emit(Op::Extract(self.id, lane), Ty::scalar(self.ty().prim))
    }

    /// The vector with one lane replaced.
    pub fn insert(self, scalar: V<'b>, lane: u16) -> V<'b> {
        self.b.emit(Op::Insert(self.id, scalar.id, lane), self.ty())
    }

    /// A horizontal reduction; unchanged for one lane.
    pub fn reduce(self, op: ReduceOp) -> V<'b> {
        let ty = self.ty();
        if ty.is_vector() { self.b.emit(Op::Reduce(op, self.id), Ty::scalar(ty.prim)) } else { self }
    }

    /// The address `offset` bytes on.
    pub fn at(self, offset: i64) -> V<'b> {
        self.b.emit(Op::PtrAdd { base: self.id, index: None, scale: 1, offset }, Ty::PTR)
    }

    /// The address `index * scale` bytes on; `index` is an `i64`.
    pub fn index(self, index: V<'b>, scale: i64) -> V<'b> {
        debug_assert_eq!(index.ty(), Ty::I64);
        if scale == 0 {
            return self;
        }
        self.b.emit(Op::PtrAdd { base: self.id, index: Some(index.id), scale, offset: 0 }, Ty::PTR)
    }

    /// Is the pointer null?
    pub fn is_null(self) -> V<'b> {
        self.eq(self.b.null())
    }

    /// Signed minimum.
    pub fn min(self, rhs: V<'b>) -> V<'b> {
        self.bin(BinOp::Min, rhs)
    }

    /// Signed maximum.
    pub fn max(self, rhs: V<'b>) -> V<'b> {
        self.bin(BinOp::Max, rhs)
    }

    /// Logical shift right by a constant.
    pub fn lshr(self, bits: i64) -> V<'b> {
        self.bin(BinOp::LShr, self.same(bits))
    }

    /// Shift left by a constant.
    #[allow(
        clippy::should_implement_trait,
        reason = "the operators take staged values and i64 alike, this one a constant"
    )]
    pub fn shl(self, bits: i64) -> V<'b> {
        self.bin(BinOp::Shl, self.same(bits))
    }
}

macro_rules! compare {
    ($($method:ident $op:ident;)*) => {
        impl<'b> V<'b> {
            $(
                #[doc = concat!("Comparison; see [`CmpOp::", stringify!($op), "`].")]
                #[allow(clippy::should_implement_trait, reason = "the result is staged, so PartialEq cannot serve")]
                pub fn $method(self, rhs: V<'b>) -> V<'b> {
                    self.cmp(CmpOp::$op, rhs)
                }
            )*
        }
    };
}

compare! { eq Eq; ne Ne; lt Lt; le Le; gt Gt; ge Ge; ult Ult; ule Ule; }

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => {
        $(
            impl<'b> std::ops::$trait for V<'b> {
                type Output = V<'b>;
                fn $method(self, rhs: V<'b>) -> V<'b> {
                    self.bin(BinOp::$op, rhs)
                }
            }
            impl<'b> std::ops::$trait<i64> for V<'b> {
                type Output = V<'b>;
                fn $method(self, rhs: i64) -> V<'b> {
                    self.bin(BinOp::$op, self.same(rhs))
                }
            }
        )*
    };
}

operators! { Add add Add; Sub sub Sub; Mul mul Mul; Div div Div; Rem rem Rem; BitAnd bitand And; BitOr bitor Or; BitXor bitxor Xor; }

impl<'b> std::ops::Neg for V<'b> {
    type Output = V<'b>;
    fn neg(self) -> V<'b> {
        self.un(UnOp::Neg)
    }
}

impl<'b> std::ops::Not for V<'b> {
    type Output = V<'b>;
    fn not(self) -> V<'b> {
        self.un(UnOp::Not)
    }
}
