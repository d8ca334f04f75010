//! A planned program as code: its functions, the layout of its memory, and the passes over its stages.

use super::arena::{self, Layout, Live};
use super::plan::{Items, Kind, Place, Plan, Stage, find_items};
use super::planner::{self, Request};
use super::spec::{BufferId, Size};
use super::stage::{Code, Compiled, Functions, Param, record_bytes, record_offset};
use super::steps::At;
use super::target::Target;
use super::updates;
use crate::lower::error::LowerError;
use crate::lower::frame::{Bind, Slot, run_handle, workers};
use crate::lower::moves::{Count, MoveKind};
use crate::lower::relational::tensors::Operands;
use crate::lower::{ArenaNote, Cx, PipelineNote};
use quearn_backends::abi;
use quearn_stage::graph::{self, Dim, Graph, Node};
use quearn_stage::low::{BinOp, Builder, FuncId, Op, RmwOp, Ty, V};
use std::collections::HashMap;
use std::rc::Rc;

type Result<T> = std::result::Result<T, LowerError>;

/// Rows of a matrix that go through a network together.
const ROWS: u64 = 256;
/// The same where trees are among it: they have little to keep for a row, and those that stop early leave rows over at the end.
const ROWS_WITH_TREES: u64 = 1024;

/// Stages beyond which the function that calls them is not optimised: it does nothing else, and optimising it takes
/// longer than in proportion to its length.
const LONG: usize = 500;

/// How a program runs over its leading dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// What one pass over the stages covers.
    pub(super) items: Items,
    /// Items of a pass, at most; `None`: all.
    pub(super) rows: Option<u64>,
}

/// Where the nodes' leading dimension is the program's.
type Itemed = Vec<bool>;

/// Chooses what one pass covers: one image, some rows of a matrix, or everything.
pub(super) fn schedule(graph: &Graph, nodes: &[Node], roots: &[Node]) -> (Schedule, Itemed) {
    let is_image = |op: &graph::Op| {
        use graph::Op;
        matches!(op, Op::Conv2d(_) | Op::Conv2dFilters { .. } | Op::Pool2d(_) | Op::MaxUnpool2d(_))
    };
    let images = nodes.iter().any(|n| is_image(graph.op(*n)));
    let Some((dim, itemed)) = find_items(graph, nodes, roots) else { return whole(graph, nodes) };
    let known = dim.as_const();
    let trees = nodes.iter().any(|n| matches!(graph.op(*n), graph::Op::TreeEnsemble(_)));
    let most = if trees { ROWS_WITH_TREES } else { ROWS };
    let (size, rows) = match known {
        _ if images => (Size::Now(1), Some(1)),
        Some(n) if n <= 2 * most => (Size::Now(n), Some(n)),
        Some(n) if n % most == 0 => (Size::Now(most), Some(most)),
        _ => (Size::Items, Some(most)),
    };
    (Schedule { items: Items { dim: Some(dim), size }, rows }, itemed)
}

/// One pass over everything, with at most one dimension of unknown extent, always the leading one.
fn whole(graph: &Graph, nodes: &[Node]) -> (Schedule, Itemed) {
    let leading = |n: &Node| super::plan::shape_of(graph, *n).first().cloned();
    let dim = nodes.iter().filter_map(leading).find(|d| d.as_const().is_none());
    let mut itemed = vec![false; graph.len()];
    for node in nodes {
        itemed[node.index()] = dim.is_some() && leading(node) == dim;
    }
    (Schedule { items: Items { dim, size: Size::Items }, rows: None }, itemed)
}

/// A program that is ready to be called.
pub(super) struct Program<'g> {
    pub(super) plan: Plan<'g>,
    pub(super) schedule: Schedule,
    stages: Vec<Code>,
    prepare: Vec<Code>,
    fixed: Layout,
    per_item: Layout,
    /// Slots of bound and prepared buffers, by buffer.
    slots: HashMap<BufferId, Slot>,
    dims: HashMap<String, Slot>,
}

/// What a pass runs on.
pub(super) struct Pass<'a, 'b> {
    pub(super) frame: V<'b>,
    /// Memory for what is materialised; none when weights are prepared.
    pub(super) arena: Option<V<'b>>,
    /// Items that places in the arena have room for.
    pub(super) room: V<'b>,
    /// First item.
    pub(super) first: V<'b>,
    /// Number of items.
    pub(super) count: V<'b>,
    /// Addresses of leaves and of results that are not bound; of item 0.
    pub(super) given: &'a dyn Fn(&Place) -> Option<V<'b>>,
    /// The steps that it is at, outermost first.
    pub(super) steps: Vec<At<'b>>,
}

/// What a program is made from.
pub(super) struct Source<'a, 'g> {
    pub(super) graph: &'g Graph,
    pub(super) nodes: &'a [Node],
    pub(super) roots: &'a [(Node, Option<usize>)],
    pub(super) leaves: &'a HashMap<Node, Vec<i64>>,
    pub(super) schedule: (Schedule, Itemed),
    pub(super) target: Target,
}

impl<'g> Source<'_, 'g> {
    pub(super) fn plan(&self) -> Result<Plan<'g>> {
        let request = Request {
            graph: self.graph,
            nodes: self.nodes,
            roots: self.roots,
            leaves: self.leaves,
            items: (self.schedule.0.items.clone(), self.schedule.1.clone()),
            target: self.target,
        };
        planner::plan(&request)
    }
}

/// Places of a plan's buffers: those of fixed size, and those that grow with the number of items (per item).
pub(super) fn layouts(plan: &Plan<'_>, params: &[&[Param]]) -> [Layout; 2] {
    let mut live: Vec<Live> = vec![];
    for (stage, params) in params.iter().enumerate() {
        for buffer in Stage::places(plan, params) {
            match live.iter_mut().find(|l| l.buffer == buffer) {
                Some(found) => found.last = stage,
                None => live.push(Live { buffer, bytes: plan.buffer(buffer).bytes, first: stage, last: stage }),
            }
        }
    }
    [false, true].map(|per_item| {
        let live: Vec<Live> = live.iter().filter(|l| plan.buffer(l.buffer).per_item == per_item).copied().collect();
        arena::place(&live)
    })
}

/// Bytes that a pass writes to the arena: those of fixed size, and those of each item.
pub(super) fn written(plan: &Plan<'_>) -> [u64; 2] {
    let mut sums = [0; 2];
    add_written(plan, &plan.stages, 1, &mut sums);
    sums
}

fn add_written(plan: &Plan<'_>, stages: &[Stage], times: u64, sums: &mut [u64; 2]) {
    for stage in stages {
        if let Kind::Steps(walk) = &stage.kind {
            add_written(plan, &walk.stages, times * walk.count, sums);
            continue;
        }
        for id in stage.outputs() {
            let (whole, own) = (plan.buffer(plan.whole(id)), plan.buffer(id));
            let bytes = match own.place {
                Place::Moving { stride, .. } => stride.unsigned_abs(),
                _ => own.bytes,
            };
            if whole.place == Place::Arena {
                sums[usize::from(whole.per_item)] += bytes * times;
            }
        }
    }
}

impl<'g> Program<'g> {
    /// Plans the program and adds its functions to the module.
    pub(super) fn new(cx: &Cx<'g>, source: &Source<'_, 'g>) -> Result<Program<'g>> {
        let plan = source.plan()?;
        let mut functions = Functions::default();
        let mut code =
            |stages: &[Stage]| -> Result<Vec<Code>> { stages.iter().map(|s| functions.code(cx, &plan, s)).collect() };
        let prepare = code(&plan.prepare)?;
        let stages = code(&plan.stages)?;
        let params: Vec<Vec<Param>> = stages.iter().map(Code::params).collect();
        let params: Vec<&[Param]> = params.iter().map(Vec::as_slice).collect();
        let [fixed, per_item] = layouts(&plan, &params);
        let mut program = Program {
            schedule: source.schedule.0.clone(),
            plan,
            stages,
            prepare,
            fixed,
            per_item,
            slots: HashMap::new(),
            dims: HashMap::new(),
        };
        program.bind(cx);
        Ok(program)
    }

    fn bind(&mut self, cx: &Cx<'_>) {
        for (i, buffer) in self.plan.buffers.iter().enumerate() {
            let slot = match &buffer.place {
                Place::Input { name, .. } => cx.frame.bind(Bind::Tensor { name: name.clone() }),
                Place::Table(words) => cx.frame.bind(Bind::Table { words: words.to_vec() }),
                Place::Function { name } => cx.frame.bind(Bind::Function { name: name.clone() }),
                Place::Prepared => cx.frame.slot(Ty::PTR),
                _ => continue,
            };
            self.slots.insert(BufferId(i as u32), slot);
        }
        for param in self.stages.iter().chain(&self.prepare).flat_map(Code::params) {
            if let Param::Size(Size::Dim(name)) = param {
                let slot = cx.frame.bind(Bind::Dim { name: name.clone() });
                self.dims.insert(name, slot);
            }
        }
    }

    /// Binds the results of a whole program.
    fn bind_outputs(&mut self, cx: &Cx<'_>) {
        for (i, buffer) in self.plan.buffers.iter().enumerate() {
            if let Place::Output { index, .. } = buffer.place {
                self.slots.insert(BufferId(i as u32), cx.frame.bind(Bind::Output { index }));
            }
        }
    }

    /// Arena bytes: a constant, and what each item adds.
    pub(super) fn arena_bytes(&self) -> [u64; 2] {
        [self.fixed.bytes, self.per_item.bytes]
    }

    fn size<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, size: &Size) -> V<'b> {
        match size {
            Size::Now(n) => b.i64(*n as i64),
            Size::Items => pass.count,
            Size::EachItem(n) => pass.count * *n as i64,
            Size::Dim(name) => self.dims.get(name).map_or(pass.count, |slot| slot.get(b, pass.frame)),
        }
    }

    fn address<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, id: BufferId) -> V<'b> {
        let place = &self.plan.buffer(id).place;
        let base = match (place, self.slots.get(&id)) {
            (Place::Arena, _) => return self.arena_address(b, pass, id),
            (Place::Part { of, offset }, _) => return self.address(b, pass, *of).at(*offset),
            (Place::Moving { of, walk, by, stride }, _) => {
                let base = self.address(b, pass, *of);
                let step = pass.steps.iter().find(|step| step.is_of(*walk));
                return step.map_or(base, |step| step.moved(base, *by, *stride));
            }
            // Written by the function that prepares, which reads it too.
            (Place::Prepared, Some(slot)) if pass.arena.is_none() => slot.read(b, pass.frame),
            (_, Some(slot)) => slot.get(b, pass.frame),
            (place, None) => (pass.given)(place).unwrap_or_else(|| b.null()),
        };
        match place {
            Place::Input { item_bytes: Some(n), .. } | Place::Output { item_bytes: Some(n), .. } => {
                base.index(pass.first, *n)
            }
            _ => base,
        }
    }

    fn arena_address<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, id: BufferId) -> V<'b> {
        let arena = pass.arena.unwrap_or_else(|| b.null());
        match (self.fixed.offsets.get(&id), self.per_item.offsets.get(&id)) {
            (Some(&offset), _) => arena.at(offset as i64),
            (None, Some(&offset)) => arena.at(self.fixed.bytes as i64).index(pass.room, offset as i64),
            (None, None) => arena,
        }
    }

    /// Writes the calls of all stages.
    pub(super) fn pass<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>) {
        self.calls(b, pass, &self.plan.stages, &self.stages);
    }

    fn calls<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, stages: &[Stage], code: &[Code]) {
        let Some(params) = code.iter().map(Code::widest).max() else { return };
        let record = b.alloca(record_bytes(params), 64);
        b.store(record, abi::FRAME_RUN, run_handle(b, pass.frame));
        b.store(record, abi::FRAME_WORKERS, workers(b, pass.frame));
        self.calls_with(b, pass, record, stages, code);
    }

    fn calls_with<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, record: V<'b>, stages: &[Stage], code: &[Code]) {
        for (stage, code) in stages.iter().zip(code) {
            match (code, &stage.kind) {
                (Code::Call(compiled), _) => self.call(b, pass, record, stage, compiled),
                (Code::Steps(inner), Kind::Steps(walk)) => walk.each(b, |step| {
                    let steps = pass.steps.iter().copied().chain([step]).collect();
                    self.calls_with(b, &Pass { steps, ..*pass }, record, &walk.stages, inner);
                }),
                (Code::Steps(_), _) => {}
            }
        }
    }

    fn call<'b>(&self, b: &'b Builder, pass: &Pass<'_, 'b>, record: V<'b>, stage: &Stage, compiled: &Compiled) {
        for (i, param) in compiled.params.iter().enumerate() {
            let value = match param {
                Param::Buffer(id) => self.address(b, pass, *id),
                Param::Size(size) => self.size(b, pass, size),
                Param::Number(n) => b.i64(*n),
                Param::Turn(backwards) => {
                    pass.steps.last().map_or(b.i64((*backwards).into()), |step| step.turn(*backwards))
                }
            };
            b.store(record, record_offset(i), value);
        }
        let (n, grain) = stage.work(&self.plan, b.i64(1), &|s| self.size(b, pass, s));
        let share = || {
            let workers = workers(b, pass.frame);
            (n + workers - 1).bin(BinOp::UDiv, workers).max(b.i64(1))
        };
        let grain = match &stage.kind {
            Kind::Gemm(gemm) if gemm.is_bound_by_b() => share(),
            // What a call packs serves all of its items.
            Kind::Blocked(_) => share().max(b.i64(grain as i64)),
            _ => b.i64(grain as i64),
        };
        b.par_for(compiled.func, record, n, grain);
    }

    /// Writes what happens when weights are bound.
    fn prepare<'b>(&self, cx: &Cx<'_>, b: &'b Builder, frame: V<'b>) {
        for (i, buffer) in self.plan.buffers.iter().enumerate() {
            if let (Place::Prepared, Some(slot)) = (&buffer.place, self.slots.get(&BufferId(i as u32))) {
                let memory = cx.alloc(b, frame, b.i64(buffer.bytes as i64), &buffer.label);
                slot.set(b, frame, memory);
            }
        }
        let (zero, one) = (b.i64(0), b.i64(1));
        let pass = Pass { frame, arena: None, room: one, first: zero, count: one, given: &|_| None, steps: vec![] };
        self.calls(b, &pass, &self.plan.prepare, &self.prepare);
    }

    /// Adds the preparing step and the notes for `explain`; both ways in need them.
    pub(super) fn register(self: &Rc<Self>, cx: &Cx<'g>) {
        if !self.plan.prepare.is_empty() {
            let program = Rc::clone(self);
            cx.prepare_step(move |cx, b, frame| program.prepare(cx, b, frame));
        }
        self.plan.stages.iter().zip(&self.stages).for_each(|(stage, code)| self.notes(cx, stage, code));
        cx.arena(self.arena_note());
    }

    fn notes(&self, cx: &Cx<'g>, stage: &Stage, code: &Code) {
        match (code, &stage.kind) {
            (Code::Call(compiled), _) => cx.note(self.note(stage, compiled)),
            (Code::Steps(inner), Kind::Steps(walk)) => {
                walk.stages.iter().zip(inner).for_each(|(stage, code)| self.notes(cx, stage, code));
            }
            (Code::Steps(_), _) => {}
        }
    }

    /// The arena of a pass beside what is live at once in it; of one item where the number is not known now.
    fn arena_note(&self) -> ArenaNote {
        let dim = self.schedule.items.dim.as_ref();
        let items = self.schedule.rows.or(dim.map_or(Some(1), Dim::as_const));
        let count = items.unwrap_or(1);
        let needed = |layout: &Layout, stage: usize| layout.needed.get(stage).copied().unwrap_or(0);
        let live = |stage| needed(&self.fixed, stage) + needed(&self.per_item, stage) * count;
        ArenaNote {
            bytes: self.fixed.bytes + self.per_item.bytes * count,
            needed: (0..self.stages.len()).map(live).max().unwrap_or(0),
            items,
        }
    }

    fn note(&self, stage: &Stage, compiled: &Compiled) -> PipelineNote {
        let written = |id: BufferId| {
            let buffer = self.plan.buffer(match self.plan.buffer(id).place {
                Place::Moving { .. } => self.plan.whole(id),
                _ => id,
            });
            let each = if buffer.per_item { " per item" } else { "" };
            let place = if buffer.place == Place::Arena { " in the arena" } else { "" };
            format!("{}: {} bytes{each}{place}", buffer.label, buffer.bytes)
        };
        PipelineNote {
            scans: None,
            once: false,
            name: format!("{} ({})", stage.name, compiled.func),
            fused: stage.nodes.iter().map(|n| self.plan.describe(*n)).collect(),
            materialised: stage.outputs().into_iter().map(written).collect(),
        }
    }

    /// The function that takes chunks of items through all stages.
    fn forward(&self, cx: &Cx<'g>, arena: Slot, total: Option<Slot>, operands: &Operands) -> FuncId {
        let [fixed, per_item] = self.arena_bytes();
        let is_long = self.stages.len() > LONG;
        cx.task("forward", |b, frame, worker, lo, hi| {
            if is_long {
                b.mark_cold();
            }
            let total = total.map(|slot| slot.get(b, frame));
            let rows = self.schedule.rows.map(|n| b.i64(n as i64));
            let room = rows.or(total).unwrap_or_else(|| b.i64(1));
            let bytes = room * per_item as i64 + fixed as i64;
            b.for_(lo, hi, |chunk| {
                let first = chunk * room;
                let count = match (&self.schedule.items.size, total) {
                    (Size::Items, Some(total)) => room.min(total - first),
                    _ => room,
                };
                let arena = arena.get(b, frame).index(worker * bytes, 1);
                let given = |place: &Place| match place {
                    Place::Leaf(node) => operands.leaves.get(node).map(|leaf| leaf.base.get(b, frame).at(leaf.offset)),
                    _ => None,
                };
                let pass = Pass { frame, arena: Some(arena), room, first, count, given: &given, steps: vec![] };
                self.pass(b, &pass);
            });
        })
    }
}

/// Lowers a whole tensor program; `outputs` are positions, names and nodes of results.
///
/// Inputs are read row-major from `Bind::Tensor`, results written row-major to `Bind::Output`, named dimensions taken
/// from `Bind::Dim`.
/// What it reads of tables is in memory already.
pub fn lower_program<'g>(cx: &Cx<'g>, outputs: &[(usize, String, Node)], operands: Operands) -> Result<()> {
    let roots: Vec<(Node, Option<usize>)> = outputs.iter().map(|(i, _, n)| (*n, Some(*i))).collect();
    let tops: Vec<Node> = outputs.iter().map(|(_, _, n)| *n).collect();
    let nodes = needed(cx.graph, &tops, &|node| operands.leaves.contains_key(&node));
    let leaves = operands.leaves.iter().map(|(node, operand)| (*node, operand.strides.clone())).collect();
    let schedule = match &operands.rows {
        // What the rows come to: all of them are needed for anything.
        Some(_) => whole(cx.graph, &nodes),
        None => schedule(cx.graph, &nodes, &tops),
    };
    let target = Target::host();
    let source = Source { graph: cx.graph, nodes: &nodes, roots: &roots, leaves: &leaves, schedule, target };
    let mut program = Program::new(cx, &source)?;
    program.bind_outputs(cx);
    // Several passes over the stages would read what a former one has written.
    if program.schedule.rows.is_none() {
        cx.in_place(updates::in_place(cx.graph, &program.plan, &program.stages));
    }
    let program = Rc::new(program);
    program.register(cx);
    let total = total_slot(cx, &program, &operands)?;
    let arena = cx.frame.slot(Ty::PTR);
    let kept = program.pass_bytes().map(|bytes| keep_arena(cx, bytes));
    let moved = cx.frame.slot(Ty::I64);
    cx.classify(INTERMEDIATE, None);
    cx.moved(INTERMEDIATE, MoveKind::Written, Count::Slot(moved));
    let run = Run { program: program.forward(cx, arena, total, &operands), arena, total, kept, moved };
    cx.step(move |cx, b, frame| program.run(cx, b, frame, &run));
    Ok(())
}

/// Makes an arena when the weights are bound, so that runs one after another need not ask the system for memory.
fn keep_arena(cx: &Cx<'_>, bytes: i64) -> Slot {
    let slot = cx.frame.slot(Ty::PTR);
    cx.prepare_step(move |cx, b, frame| {
        let memory = cx.alloc(b, frame, b.i64(LOCK + bytes), INTERMEDIATE);
        slot.set(b, frame, memory);
    });
    slot
}

/// The slot of the leading dimension, where its extent is not known now.
fn total_slot(cx: &Cx<'_>, program: &Program<'_>, operands: &Operands) -> Result<Option<Slot>> {
    match &program.schedule.items.dim {
        Some(dim) if operands.rows.as_ref().is_some_and(|(rows, _)| rows == dim) => {
            Ok(operands.rows.as_ref().map(|(_, count)| *count))
        }
        Some(Dim::Named(name)) => Ok(Some(cx.frame.bind(Bind::Dim { name: name.clone() }))),
        Some(Dim::Const(n)) if program.schedule.items.size == Size::Items => {
            let slot = cx.frame.slot(Ty::I64);
            let n = *n as i64;
            cx.step(move |_, b, frame| slot.set(b, frame, b.i64(n)));
            Ok(Some(slot))
        }
        Some(dim @ Dim::Rows(_)) => Err(LowerError::Unsupported {
            node: "a tensor program".into(),
            what: format!("the dimension {dim} of a table outside a pipeline"),
        }),
        _ => Ok(None),
    }
}

/// What a run of a whole program needs beside the frame.
struct Run {
    program: FuncId,
    /// Where the run's arena is.
    arena: Slot,
    /// Extent of the leading dimension, where it is not known now.
    total: Option<Slot>,
    /// An arena that was made when the weights were bound, behind a word that is 1 while a run uses it.
    kept: Option<Slot>,
    /// Where the number of bytes goes that the run writes to its arena.
    moved: Slot,
}

/// Who takes memory for what is neither an input nor a result.
const INTERMEDIATE: &str = "intermediate tensors";

/// Bytes before the kept arena.
const LOCK: i64 = 64;

impl<'g> Program<'g> {
    /// Bytes of the arena of a pass, if they are known now and there are any.
    fn pass_bytes(&self) -> Option<i64> {
        let [fixed, per_item] = self.arena_bytes();
        let rows = match (self.schedule.rows, &self.schedule.items.dim) {
            (Some(rows), _) => rows,
            (None, None) => 1,
            (None, Some(_)) => return (per_item == 0 && fixed > 0).then_some(fixed as i64),
        };
        Some((fixed + per_item * rows) as i64).filter(|n| *n > 0)
    }

    /// Writes the main function: takes an arena, and sends the chunks through the stages.
    fn run<'b>(&self, cx: &Cx<'g>, b: &'b Builder, frame: V<'b>, run: &Run) {
        let known = self.schedule.items.dim.as_ref().and_then(Dim::as_const);
        let total = run.total.map(|slot| slot.read(b, frame)).or(known.map(|n| b.i64(n as i64)));
        let (room, chunks) = match (self.schedule.rows, total) {
            (Some(rows), Some(total)) => (b.i64(rows as i64), (total + (rows as i64 - 1)) / rows as i64),
            (_, total) => (total.unwrap_or_else(|| b.i64(1)), b.i64(1)),
        };
        let [fixed, each] = written(&self.plan).map(|bytes| bytes as i64);
        run.moved.set(b, frame, chunks * fixed + total.unwrap_or_else(|| b.i64(1)) * each);
        let [fixed, per_item] = self.arena_bytes();
        let bytes = (room * per_item as i64 + fixed as i64).max(b.i64(1));
        let workers = workers(b, frame);
        // Few chunks: one after another, each by all workers. Many: each worker its own, alone.
        let few = if chunks.as_int() == Some(1) { b.bool(true) } else { chunks.lt(workers * 2) };
        let fresh = |n: V<'b>| cx.alloc(b, frame, n, INTERMEDIATE);
        let kept = run.kept.map(|slot| slot.get(b, frame));
        let take = |kept: V<'b>| vec![b.cmpxchg(kept, b.i64(0), b.i64(1)).eq(b.i64(0))];
        let taken = kept.map(|kept| b.if_else(few, || take(kept), || vec![b.bool(false)])[0]);
        let mine = || match (kept, taken) {
            (Some(kept), Some(taken)) => b.if_else(taken, || vec![kept.at(LOCK)], || vec![fresh(bytes)])[0],
            _ => fresh(bytes),
        };
        let arena = b.if_else(few, || vec![mine()], || vec![fresh(bytes * workers)])[0];
        run.arena.set(b, frame, arena);
        let grain = few.select(chunks, b.i64(1)).max(b.i64(1));
        let par_for = Op::ParFor { func: run.program, frame: frame.id, n: chunks.id, grain: grain.id };
        let status = b.emit(par_for, Ty::I32);
        if let (Some(kept), Some(taken)) = (kept, taken) {
            b.if_(taken, || {
                b.atomic(RmwOp::Xchg, kept, b.i64(0));
            });
        }
        b.check(status);
    }
}

/// The nodes that `roots` need, inputs before users; `stop` are not looked into.
pub(super) fn needed(graph: &Graph, roots: &[Node], stop: &dyn Fn(Node) -> bool) -> Vec<Node> {
    let mut needed = vec![false; graph.len()];
    let mut stack = roots.to_vec();
    while let Some(node) = stack.pop() {
        if !std::mem::replace(&mut needed[node.index()], true) && !stop(node) {
            // The rows that a parameter is over are not made here.
            stack.extend(graph.dependencies(node).into_iter().filter(|n| graph.ty(*n).as_table().is_none()));
        }
    }
    (0..graph.len() as u32).map(Node).filter(|n| needed[n.index()]).collect()
}
