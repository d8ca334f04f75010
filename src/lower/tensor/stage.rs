//! Stages as functions of the low-level program.
//!
//! A stage's function gets a *record* instead of the program's frame: the header of a frame, then the addresses, extents
//! and numbers that the stage needs, in the order in which its code first asks for them. Stages that differ in those
//! only (the same layer of a network, again and again) share one function.

use super::contract;
use super::eval::{Env, Eval};
use super::nest::Nest;
use super::plan::{Kind, Place, Plan, Stage};
use super::scatter;
use super::spec::{BufferId, Size, Spec};
use crate::lower::Cx;
use crate::lower::error::LowerError;
use quearn_backends::abi;
use quearn_stage::low::{
    Block, Builder, Extern, FailSite, FuncId, Inst, Module, ModuleBuilder, Op, Prim, Ty, V, Value,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// What a record holds at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// Address of a buffer.
    Buffer(BufferId),
    /// An extent.
    Size(Size),
    /// A number.
    Number(i64),
    /// The direction in which weights are run through, 1 for backwards.
    Turn(bool),
}

/// A stage that has been written as a function.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The function.
    pub func: FuncId,
    /// What its record holds.
    pub params: Vec<Param>,
}

/// A stage as code.
#[derive(Clone, Debug)]
pub enum Code {
    /// A function.
    Call(Compiled),
    /// Those of the stages inside, which are called at each step.
    Steps(Vec<Code>),
}

impl Code {
    /// What the records of its functions hold.
    pub fn params(&self) -> Vec<Param> {
        match self {
            Code::Call(compiled) => compiled.params.clone(),
            Code::Steps(inner) => inner.iter().flat_map(Code::params).collect(),
        }
    }

    /// The most that one of its records holds.
    pub fn widest(&self) -> usize {
        match self {
            Code::Call(compiled) => compiled.params.len(),
            Code::Steps(inner) => inner.iter().map(Code::widest).max().unwrap_or(0),
        }
    }
}

/// Bytes of the record of a function.
pub fn record_bytes(params: usize) -> u32 {
    (abi::FRAME_SLOTS as usize + 8 * params).next_multiple_of(64) as u32
}

/// Offset of the `i`-th parameter in a record.
pub fn record_offset(i: usize) -> i64 {
    abi::FRAME_SLOTS + 8 * i as i64
}

/// Reads what a stage needs from its record.
struct RecordEnv<'a, 'b> {
    b: &'b Builder,
    record: V<'b>,
    params: &'a RefCell<Vec<Param>>,
    changing: &'a HashSet<BufferId>,
}

impl<'b> RecordEnv<'_, 'b> {
    fn param(&self, param: Param, ty: Ty) -> V<'b> {
        let mut params = self.params.borrow_mut();
        // Equal numbers keep places of their own, so that functions do not depend on which numbers happen to agree.
        let found = params.iter().position(|p| *p == param && !matches!(param, Param::Number(_) | Param::Turn(_)));
        let place = found.unwrap_or_else(|| {
            params.push(param);
            params.len() - 1
        });
        self.b.load_hoisted(ty, self.record, record_offset(place))
    }
}

impl<'b> Env<'b> for RecordEnv<'_, 'b> {
    fn buffer(&self, buffer: BufferId) -> V<'b> {
        self.param(Param::Buffer(buffer), Ty::PTR)
    }

    fn size(&self, size: &Size) -> V<'b> {
        match size {
            Size::Now(n) => self.b.i64(*n as i64),
            _ => self.param(Param::Size(size.clone()), Ty::I64),
        }
    }

    fn number(&self, number: i64) -> V<'b> {
        self.param(Param::Number(number), Ty::I64)
    }

    fn turn(&self, backwards: bool) -> V<'b> {
        self.param(Param::Turn(backwards), Ty::I64)
    }

    fn run(&self) -> V<'b> {
        self.b.load_hoisted(Ty::PTR, self.record, abi::FRAME_RUN)
    }

    fn invariant(&self, buffer: BufferId) -> bool {
        // A function writes one buffer, and no stage reads the elements that it writes but through `load_written`; a
        // result may lie where an input that it is the next value of does.
        !self.changing.contains(&buffer)
    }
}

/// Everything that tells one function from another.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    insts: Vec<(Op, Vec<Value>)>,
    types: Vec<Ty>,
    blocks: Vec<(Vec<Value>, Vec<Inst>, Vec<Value>)>,
    sites: Vec<FailSite>,
    externs: Vec<Extern>,
    entry: Block,
}

impl Shape {
    fn of(module: Module) -> Option<Shape> {
        let func = module.funcs.into_iter().next()?;
        Some(Shape {
            insts: func.insts.into_iter().map(|i| (i.op, i.results)).collect(),
            types: func.values.iter().map(|v| v.ty).collect(),
            blocks: func.blocks.into_iter().map(|b| (b.params, b.insts, b.yields)).collect(),
            sites: module.sites,
            externs: module.externs,
            entry: func.entry,
        })
    }
}

/// Writes the functions of stages, each kind once.
#[derive(Default)]
pub struct Functions {
    known: HashMap<Shape, FuncId>,
}

impl Functions {
    /// The parameters of a stage's function, without adding it to a module.
    pub fn params(plan: &Plan<'_>, stage: &Stage) -> Result<Vec<Param>, LowerError> {
        Functions::draft(plan, stage).map(|(_, params)| params)
    }

    fn draft(plan: &Plan<'_>, stage: &Stage) -> Result<(Module, Vec<Param>), LowerError> {
        let (error, params) = (RefCell::new(None), RefCell::new(vec![]));
        let module = ModuleBuilder::new();
        module.func("draft", &crate::lower::context::TASK, |b, p| {
            emit(plan, stage, b, [p[0], p[2], p[3]], &params, &error);
        });
        match error.into_inner() {
            Some(error) => Err(error),
            None => Ok((module.build(), params.into_inner())),
        }
    }

    /// The code of a stage.
    pub fn code(&mut self, cx: &Cx<'_>, plan: &Plan<'_>, stage: &Stage) -> Result<Code, LowerError> {
        match &stage.kind {
            Kind::Steps(walk) if !walk.is_one() => {
                let inner = walk.stages.iter().map(|stage| self.code(cx, plan, stage));
                Ok(Code::Steps(inner.collect::<Result<_, _>>()?))
            }
            _ => Ok(Code::Call(self.compile(cx, plan, stage)?)),
        }
    }

    fn compile(&mut self, cx: &Cx<'_>, plan: &Plan<'_>, stage: &Stage) -> Result<Compiled, LowerError> {
        let (draft, params) = Functions::draft(plan, stage)?;
        let Some(shape) = Shape::of(draft) else {
            return Err(LowerError::Internal { node: stage.name.clone(), what: "no function was written".into() });
        };
        if let Some(&func) = self.known.get(&shape) {
            return Ok(Compiled { func, params });
        }
        let (error, again) = (RefCell::new(None), RefCell::new(vec![]));
        let func = cx.task(&stage.name, |b, record, _, lo, hi| {
            emit(plan, stage, b, [record, lo, hi], &again, &error);
        });
        self.known.insert(shape, func);
        Ok(Compiled { func, params })
    }
}

fn emit<'b>(
    plan: &Plan<'_>,
    stage: &Stage,
    b: &'b Builder,
    [record, lo, hi]: [V<'b>; 3],
    params: &RefCell<Vec<Param>>,
    error: &RefCell<Option<LowerError>>,
) {
    let env = RecordEnv { b, record, params, changing: &plan.changing };
    stage.emit(&Eval { b, plan, env: &env, known: vec![], error }, lo, hi);
}

/// Zeros around each of the images (or planes of them) `lo..hi`: what lies before the first line, between lines, and
/// after the last.
fn halo<'b>(ev: &Eval<'_, 'b>, spec: &Spec, lo: V<'b>, hi: V<'b>) {
    let (b, number) = (ev.b, |n: i64| ev.env.number(n));
    let [row, pixel] = [2, 3].map(|i: usize| spec.axes[i].stride);
    let image = spec.axes[usize::from(has_planes(spec))].stride;
    let [height, width] = [2, 3].map(|i: usize| spec.axes[i].size.now().unwrap_or(1) as i64);
    let side = spec.halo[1] as i64 * pixel;
    let end = spec.halo[0] as i64 * row + side;
    let base = ev.env.buffer(spec.buffer);
    let prim = if spec.elem_bytes() < 4 { Prim::I8 } else { Prim::I32 };
    let (image, end, gap) = (number(image), number(end), number(2 * side));
    let (first, row, lines) = (number(spec.offset + width * pixel), number(row), number(height - 1));
    b.for_(lo, hi, |i| {
        let at = base.index(i * image, 1);
        zero(ev, prim, at, end);
        let after = at.index(first, 1);
        b.for_(b.i64(0), lines, |y| zero(ev, prim, after.index(y * row, 1), gap));
        zero(ev, prim, after.index(lines * row, 1), end);
    });
}

/// Does an image lie in memory one channel after the other?
fn has_planes(spec: &Spec) -> bool {
    // A plane may be a single line.
    spec.axes[1].stride > spec.axes[3].stride
}

/// `bytes` zeros, a whole number of a type's.
fn zero<'b>(ev: &Eval<'_, 'b>, prim: Prim, at: V<'b>, bytes: V<'b>) {
    let (lanes, unit) = (ev.plan.target.lanes_of(prim), prim.bytes() as i64);
    let nothing = ev.b.zero(Ty::vector(prim, lanes));
    ev.vectors_of(lanes, ev.b.i64(0), bytes.lshr(unit.ilog2().into()), |i, mask| {
        ev.write(at.index(i, unit), mask, nothing);
    });
}

/// Operations (or elements) that a call of a stage's function should at least be worth: some microseconds.
const FLOPS_A_CALL: u64 = 600_000;
const ELEMENTS_A_CALL: u64 = 16_384;

impl Stage {
    /// Writes the code for work items `lo..hi`.
    pub fn emit<'b>(&self, ev: &Eval<'_, 'b>, lo: V<'b>, hi: V<'b>) {
        match &self.kind {
            Kind::Map { results, nest } => nest.emit(ev, lo, hi, &mut |at| ev.fill(results, at)),
            Kind::Gemm(gemm) => gemm.emit(ev, lo, hi),
            Kind::Blocked(product) => product.emit(ev, lo, hi),
            Kind::Contract(product) => product.emit(ev, lo, hi),
            Kind::ContractSum(product) => product.emit_sum(ev, lo, hi),
            Kind::Depthwise(conv) => conv.emit(ev, lo, hi),
            Kind::ImageTransform(transform) => transform.emit(ev, lo, hi),
            Kind::FilterTransform(transform) => transform.emit(ev, lo, hi),
            Kind::ResultTransform(transform) => transform.emit(ev, lo, hi),
            Kind::Attention(attention) => attention.emit(ev, lo, hi),
            Kind::Pool(pool) => pool.emit(ev, lo, hi),
            Kind::Unpool(unpool) => unpool.emit(ev, lo, hi),
            Kind::Reduce(reduce) => reduce.emit(ev, lo, hi),
            Kind::Sum(sum) => sum.emit(ev, lo, hi),
            Kind::Lines(lines) => lines.emit(ev, lo, hi),
            Kind::Trees(trees) => trees.emit(ev, lo, hi),
            Kind::Scatter(scatter) => scatter.emit(ev, lo, hi),
            Kind::Halo(spec) => halo(ev, spec, lo, hi),
            Kind::Pack(pack) => pack.emit(ev, lo, hi),
            Kind::Foreign(call) => call.emit(ev),
            Kind::Steps(walk) => walk.emit(ev),
        }
    }

    /// Number of work items, and how many a call should take.
    pub fn work<'b>(&self, plan: &Plan<'_>, one: V<'b>, size: &dyn Fn(&Size) -> V<'b>) -> (V<'b>, u64) {
        let elements = |n: u64| (ELEMENTS_A_CALL / n.max(1)).max(1);
        let nest = |nest: &Nest, n: u64| (nest.work(one, size), elements(n));
        match &self.kind {
            Kind::Map { results, nest: n } => nest(n, n.elements() * results.len() as u64),
            Kind::Gemm(gemm) => {
                let (n, flops) = gemm.work(plan.target, size);
                (n, (FLOPS_A_CALL / flops.max(1)).max(1))
            }
            Kind::Blocked(product) => {
                let (n, flops) = product.work(plan.target, one, size);
                (n, (FLOPS_A_CALL / flops.max(1)).max(1))
            }
            Kind::Contract(_) => (one * contract::PARTS, 1),
            Kind::ContractSum(product) => (product.nest().work(one, size), 1),
            Kind::Depthwise(conv) => {
                let (n, each) = conv.work(size);
                (n, elements(each))
            }
            Kind::ImageTransform(t) => (one * t.tiles.block[1] as i64, elements(t.elements())),
            Kind::FilterTransform(t) => (one * t.work(plan.target.vector_bytes) as i64, 1),
            Kind::ResultTransform(t) => (one * t.tiles.block[1] as i64, elements(t.elements())),
            Kind::Attention(attention) => {
                let (n, flops) = attention.work(one, size);
                (n, (FLOPS_A_CALL / flops.max(1)).max(1))
            }
            Kind::Pool(pool) => nest(&pool.nest, pool.elements()),
            Kind::Unpool(unpool) => nest(&unpool.nest, unpool.elements()),
            Kind::Reduce(reduce) => nest(&reduce.nest, reduce.elements()),
            Kind::Sum(sum) => nest(&sum.nest, sum.elements()),
            Kind::Lines(lines) => nest(&lines.nest, lines.elements()),
            Kind::Trees(trees) => {
                let (n, instructions) = trees.work(plan.target.lanes().into(), size);
                (n, (FLOPS_A_CALL / instructions.max(1)).max(1))
            }
            Kind::Scatter(_) => (one * scatter::PARTS, 1),
            Kind::Halo(spec) if has_planes(spec) => (size(&spec.axes[0].size) * size(&spec.axes[1].size), 64),
            Kind::Halo(spec) => (size(&spec.axes[0].size), 64),
            Kind::Steps(_) | Kind::Foreign(_) => (one, 1),
            Kind::Pack(pack) => (one * pack.work(plan.target.vector_bytes) as i64, 1),
        }
    }

    /// The buffers that it writes: one, unless it is made of stages or has several results.
    pub fn outputs(&self) -> Vec<BufferId> {
        let one = match &self.kind {
            Kind::Steps(walk) => return walk.stages.iter().flat_map(Stage::outputs).collect(),
            Kind::Map { results, .. } => return results.iter().map(|(_, out)| out.buffer).collect(),
            Kind::Gemm(gemm) => gemm.out.buffer,
            Kind::Blocked(product) => return product.results.iter().map(|(_, out)| out.buffer).collect(),
            Kind::Contract(product) => product.parts,
            Kind::ContractSum(product) => product.out.buffer,
            Kind::Depthwise(conv) => conv.out.buffer,
            Kind::ImageTransform(t) => t.out.buffer,
            Kind::FilterTransform(t) => t.out,
            Kind::ResultTransform(t) => t.out.buffer,
            Kind::Attention(attention) => attention.mix.out.buffer,
            Kind::Pool(pool) => pool.out.buffer,
            Kind::Unpool(unpool) => unpool.out.buffer,
            Kind::Reduce(reduce) => reduce.out.buffer,
            Kind::Sum(sum) => sum.out.buffer,
            Kind::Lines(lines) => lines.out.buffer,
            Kind::Trees(trees) => trees.out.buffer,
            Kind::Scatter(scatter) => scatter.out.buffer,
            Kind::Halo(spec) => spec.buffer,
            Kind::Pack(pack) => pack.out,
            Kind::Foreign(call) => call.out(),
        };
        vec![one]
    }

    /// The buffers in the arena among a stage's parameters.
    pub fn places(plan: &Plan<'_>, params: &[Param]) -> Vec<BufferId> {
        let arena = |id: &BufferId| plan.buffer(*id).place == Place::Arena;
        let buffers =
            params.iter().filter_map(|p| if let Param::Buffer(id) = p { Some(plan.whole(*id)) } else { None });
        buffers.filter(arena).collect()
    }
}
