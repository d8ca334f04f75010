//! What all staged operators share while one program is lowered.

use super::frame::{Frame, Slot, run_handle};
use super::functions::functions;
use super::interface::Update;
use super::interface::{Input, Interface};
use super::moves::{self, Count, Move, MoveKind};
use super::once::{Memo, Requests};
use super::parameter::{Parameter, Parameters};
use super::relational::aggregate::group_join::GroupJoin;
use super::relational::dictionary::{CleanDict, Table as DictTable};
use super::relational::join::Probe;
use super::relational::materialise::{SingleRow, Spans};
use super::relational::needed::Needed;
use super::tensor::TileBytes;
use crate::data::Catalog;
pub use crate::data::{Fact, Form};
use crate::estimate::Estimator;
use quearn_stage::graph::{AggregateOp, Clean, Dim, Graph, Node, Op};
use quearn_stage::low::{Builder, FuncId, ModuleBuilder, Ty, V};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Parameters of every function that runs on a frame: `(frame, worker, lo, hi)`.
pub const TASK: [Ty; 4] = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];

/// Rows for which optimised code saves in two or three runs what making it takes: an instruction of the low-level program
/// costs some 30 us to optimise, and with all others of its loop some 5 ns less a row then.
const COLD_ITEMS: f64 = 262_144.0;

/// A piece of the main (or prepare) function, run in order.
pub type Step<'g> = Box<dyn for<'b> Fn(&Cx<'g>, &'b Builder, V<'b>) + 'g>;

/// One line of `explain` about a pipeline: what it does in one loop and what it writes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineNote {
    /// Name, also that of the generated function.
    pub name: String,
    /// The stored table whose rows it goes through, if that is its source.
    pub scans: Option<String>,
    /// Operators fused into the loop, source first.
    pub fused: Vec<String>,
    /// Does it run once, before all runs?
    pub once: bool,
    /// What is materialised at the end: a description with the bytes of one row, tile or tensor.
    pub materialised: Vec<String>,
}

/// One line of `explain` about the memory that the intermediate tensors of a tensor program share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaNote {
    /// Its size.
    pub bytes: u64,
    /// What is live at once, at most; no placement needs less.
    pub needed: u64,
    /// Items of a pass, for which the sizes are; `None`: they are for one, and there may be any number.
    pub items: Option<u64>,
}

/// What all staged operators share while one program is lowered.
pub struct Cx<'g> {
    /// The (rewritten) graph.
    pub graph: &'g Graph,
    /// Literals that the program gets when it runs.
    pub parameters: Parameters,
    /// The tables that it will run on: types, layouts and statistics.
    pub catalog: &'g Catalog,
    /// How many rows there will be, about.
    pub estimate: Estimator<'g>,
    /// Layout of the frame.
    pub frame: Frame,
    /// The program.
    pub module: ModuleBuilder,
    /// What depends on what is given for a run.
    pub requests: Requests,
    /// Do steps go to the function that runs once?
    prepares: Cell<bool>,
    tasks: Cell<usize>,
    operators: RefCell<Vec<String>>,
    /// What the memory of operators is, where it is not [`MoveKind::Written`]; `None` where it is counted elsewhere.
    kinds: RefCell<HashMap<String, Option<MoveKind>>>,
    moves: RefCell<Vec<Move>>,
    dictionaries: RefCell<Vec<(String, String)>>,
    /// Does the program sum floats over rows, so that the order of rows must be the same in every run?
    pub(super) sums_floats: bool,
    /// How many operators and results read the rows of each table.
    readers: HashMap<Node, usize>,
    /// Do build sides leave out rows whose key was found before?
    pub stop_at_match: bool,
    /// Which columns of each table are needed.
    pub(super) needed: Needed,
    /// Expressions tabulated over a dictionary.
    pub(super) tabulated: Memo<Node, DictTable>,
    /// Dictionaries without what is not wanted.
    pub(super) cleaned: Memo<(u32, Clean), CleanDict>,
    /// Where workers write texts that expressions make; of the function that prepares, and of the main function.
    pub(super) rooms: Memo<bool, Slot>,
    /// Text constants: their place in the frame.
    pub(super) texts: Memo<String, i64>,
    /// Pipeline breakers that were lowered.
    pub(super) materialised: Memo<Node, Rc<Spans>>,
    /// One-row tables that were lowered.
    pub(super) singles: Memo<Node, Rc<SingleRow>>,
    /// Joins whose build side was lowered.
    pub(super) joins: Memo<Node, Rc<Probe>>,
    /// Indexes of columns of scans: slots with the address and the number of the entries.
    pub(super) indexes: Memo<(Node, String), (Slot, Slot)>,
    /// Group-joins whose right side was lowered.
    pub(super) group_joins: Memo<Node, Rc<GroupJoin>>,
    /// Memory of the tensor operators of a tile, by their results.
    pub(super) tile_bytes: RefCell<HashMap<Vec<Node>, TileBytes>>,
    /// What the scan of the pipeline that is being generated does for joins, for `explain`.
    pub(super) hinted: RefCell<HashMap<Node, String>>,
    facts: RefCell<Vec<Fact>>,
    notes: RefCell<Vec<PipelineNote>>,
    arenas: RefCell<Vec<ArenaNote>>,
    /// Results that may be written to the memory of the inputs whose next values they are.
    in_place: RefCell<BTreeSet<usize>>,
    prepare: RefCell<Vec<Step<'g>>>,
    main: RefCell<Vec<Step<'g>>>,
}

impl<'g> Cx<'g> {
    /// A context for `graph` with some of its literals as parameters, over the tables of `catalog`.
    pub fn new(graph: &'g Graph, parameters: &[Parameter], catalog: &'g Catalog) -> Cx<'g> {
        Cx {
            graph,
            parameters: Parameters::new(parameters),
            catalog,
            estimate: Estimator::new(graph, catalog),
            frame: Frame::default(),
            module: ModuleBuilder::new(),
            requests: Requests::of(graph),
            prepares: Cell::default(),
            tasks: Cell::default(),
            operators: RefCell::default(),
            kinds: RefCell::default(),
            moves: RefCell::default(),
            dictionaries: RefCell::default(),
            sums_floats: sums_floats(graph),
            readers: readers(graph),
            stop_at_match: true,
            needed: Needed::of(graph),
            tabulated: Memo::default(),
            cleaned: Memo::default(),
            rooms: Memo::default(),
            texts: Memo::default(),
            materialised: Memo::default(),
            singles: Memo::default(),
            joins: Memo::default(),
            indexes: Memo::default(),
            group_joins: Memo::default(),
            tile_bytes: RefCell::default(),
            hinted: RefCell::default(),
            facts: RefCell::default(),
            notes: RefCell::default(),
            arenas: RefCell::default(),
            in_place: RefCell::default(),
            prepare: RefCell::default(),
            main: RefCell::default(),
        }
    }

    /// Do several operators or results read the rows of a table?
    pub fn is_shared(&self, table: Node) -> bool {
        self.readers.get(&table).is_some_and(|n| *n > 1)
    }

    /// Appends a step to the main function, or to the one that runs once where [`Cx::once`] says so.
    pub fn step(&self, step: impl for<'b> Fn(&Cx<'g>, &'b Builder, V<'b>) + 'g) {
        let steps = if self.prepares.get() { &self.prepare } else { &self.main };
        steps.borrow_mut().push(Box::new(step));
    }

    /// Lowers what depends on these nodes. If they are the same in every run of a request, its steps run once.
    pub fn once<T>(&self, nodes: &[Node], lower: impl FnOnce() -> T) -> T {
        let before = self.prepares.get();
        let is_request = self.requests.is_request();
        self.prepares.set(before || is_request && nodes.iter().all(|node| self.requests.is_constant(*node)));
        let lowered = lower();
        self.prepares.set(before);
        lowered
    }

    /// Are steps added to the function that runs once?
    pub fn prepares(&self) -> bool {
        self.prepares.get()
    }

    /// Appends a step to the function that runs once when weights are bound. Slots that it writes keep their values
    /// in every run; memory that it allocates lives as long as the weights are bound.
    pub fn prepare_step(&self, step: impl for<'b> Fn(&Cx<'g>, &'b Builder, V<'b>) + 'g) {
        self.prepare.borrow_mut().push(Box::new(step));
    }

    /// A function on the frame: `body` gets `(frame, worker, lo, hi)`.
    pub fn task(&self, name: &str, body: impl for<'b> FnOnce(&'b Builder, V<'b>, V<'b>, V<'b>, V<'b>)) -> FuncId {
        // Tasks nest: the number is taken before the body is built.
        let number = self.tasks.replace(self.tasks.get() + 1);
        let name = format!("{name}_{number}");
        self.module.func(&name, &TASK, |b, p| body(b, p[0], p[1], p[2], p[3]))
    }

    /// As [`Cx::task`], for a function that handles about `items` rows or entries in a run.
    pub fn task_over(
        &self,
        name: &str,
        items: f64,
        body: impl for<'b> FnOnce(&'b Builder, V<'b>, V<'b>, V<'b>, V<'b>),
    ) -> FuncId {
        self.task(name, |b, frame, worker, lo, hi| {
            // A request runs so often that its code is worth some time.
            if items <= COLD_ITEMS && !self.requests.is_request() {
                b.mark_cold();
            }
            body(b, frame, worker, lo, hi);
        })
    }

    /// The index under which the runtime knows an operator, for its messages.
    pub fn operator(&self, name: &str) -> i64 {
        let mut operators = self.operators.borrow_mut();
        let found = operators.iter().position(|o| o == name);
        found.unwrap_or_else(|| {
            operators.push(name.to_owned());
            operators.len() - 1
        }) as i64
    }

    /// Says what the memory of an operator is, of which its bytes are counted: by default [`MoveKind::Written`]. `None`: they
    /// are counted by [`Cx::moved`].
    pub fn classify(&self, operator: &str, kind: Option<MoveKind>) {
        self.kinds.borrow_mut().insert(operator.to_owned(), kind);
    }

    /// Adds a place where bytes move in a run.
    pub fn moved(&self, place: &str, kind: MoveKind, count: Count) {
        if self.prepares.get() {
            return;
        }
        self.moves.borrow_mut().push(Move { place: place.to_owned(), kind, count });
    }

    /// All places where bytes move, but for those where inputs are read.
    fn counted(&self, outputs: &[super::Output]) -> Vec<Move> {
        let mut found = self.moves.take();
        let kinds = self.kinds.borrow();
        for (at, operator) in self.operators.borrow().iter().enumerate() {
            if let Some(kind) = kinds.get(operator).copied().unwrap_or(Some(MoveKind::Written)) {
                found.push(Move { place: operator.clone(), kind, count: Count::Operator(at) });
            }
        }
        for (at, output) in outputs.iter().enumerate() {
            if let super::Output::Columns { name, .. } | super::Output::Tensor { name, .. } = output {
                let place = format!("the result \"{name}\"");
                found.push(Move { place, kind: MoveKind::Result, count: Count::Output(at) });
            }
        }
        found
    }

    /// A number for the dictionary of a column; see [`Cx::dictionary_column`].
    pub fn dictionary(&self, table: &str, column: &str) -> u32 {
        let mut dictionaries = self.dictionaries.borrow_mut();
        let found = dictionaries.iter().position(|(t, c)| t == table && c == column);
        found.unwrap_or_else(|| {
            dictionaries.push((table.to_owned(), column.to_owned()));
            dictionaries.len() - 1
        }) as u32
    }

    /// Table and column of a dictionary.
    pub fn dictionary_column(&self, dictionary: u32) -> (String, String) {
        self.dictionaries.borrow()[dictionary as usize].clone()
    }

    /// Memory of the run, zeroed and 64-byte aligned; leaves the function when the budget is spent.
    pub fn alloc<'b>(&self, b: &'b Builder, frame: V<'b>, bytes: V<'b>, operator: &str) -> V<'b> {
        let operator = b.i64(self.operator(operator));
        let memory = b.call("qn_alloc", Ty::PTR, &[run_handle(b, frame), bytes, operator]);
        b.fail_if_runtime(memory.is_null());
        memory
    }

    /// Records that the program relies on a fact.
    pub fn rely_on(&self, fact: Fact) {
        let mut facts = self.facts.borrow_mut();
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }

    /// Adds a line to `explain`.
    pub fn note(&self, note: PipelineNote) {
        self.notes.borrow_mut().push(PipelineNote { once: self.prepares.get(), ..note });
    }

    /// Adds a line about an arena to `explain`.
    pub fn arena(&self, note: ArenaNote) {
        self.arenas.borrow_mut().push(note);
    }

    /// Records that results may be written to the memory of the inputs whose next values they are.
    pub fn in_place(&self, outputs: impl IntoIterator<Item = usize>) {
        self.in_place.borrow_mut().extend(outputs);
    }

    /// Takes that back for results whose inputs are read by what runs later.
    pub fn not_in_place(&self, outputs: impl IntoIterator<Item = usize>) {
        for output in outputs {
            self.in_place.borrow_mut().remove(&output);
        }
    }

    /// A short name of a node for messages and function names.
    pub fn describe(&self, node: Node) -> String {
        match self.graph.op(node) {
            Op::Scan { table, .. } => format!("scan \"{table}\""),
            op => format!("{} {node}", op.name()),
        }
    }

    /// Writes the main and prepare functions and gives everything out.
    pub fn finish(self, outputs: Vec<super::Output>) -> super::Lowered {
        let function = |name: &str, steps: Vec<Step<'g>>| {
            self.module.func(name, &TASK, |b, p| {
                // Steps run once; loops over rows are in functions of their own.
                b.mark_cold();
                for step in &steps {
                    step(&self, b, p[0]);
                }
            })
        };
        let prepare = self.prepare.take();
        let prepare = (!prepare.is_empty()).then(|| function("prepare", prepare));
        let main = function("main", self.main.take());
        let in_place = self.in_place.take();
        let updates = Update::of(self.graph).into_iter();
        let updates = updates.map(|(update, _)| Update { in_place: in_place.contains(&update.output), ..update });
        let (bindings, mut pipelines, counted) = (self.frame.bindings(), self.notes.take(), self.counted(&outputs));
        // In the order in which they run.
        pipelines.sort_by_key(|note| !note.once);
        let module = self.module.build();
        let functions = functions(&module, prepare, main, &pipelines, &bindings);
        let moves = moves::reads(&functions, &pipelines, &bindings).into_iter().chain(counted).collect();
        let interface = Interface {
            inputs: Input::of(self.graph),
            functions_called: super::interface::functions_called(self.graph),
            prepare,
            main,
            frame_bytes: self.frame.bytes(),
            outputs,
            updates: updates.collect(),
            operators: self.operators.take(),
            sites: module.sites.clone(),
            dictionaries: self.dictionaries.take(),
            sums_floats: self.sums_floats,
            facts: self.facts.take(),
            functions,
            bindings,
            pipelines,
            moves,
        };
        super::Lowered { module, interface, arenas: self.arenas.take() }
    }
}

/// How often the rows of each table are read, by operators and results. A product under a join's residual only names its
/// rows; what passes rows on reads them as often as it is read itself.
fn readers(graph: &Graph) -> HashMap<Node, usize> {
    let is_table = |node: &Node| graph.ty(*node).as_table().is_some();
    let mut readers: HashMap<Node, usize> = HashMap::new();
    for (_, output) in graph.outputs() {
        let read = if is_table(output) { BTreeSet::from([*output]) } else { tables_of(graph, *output) };
        read.into_iter().for_each(|table| *readers.entry(table).or_default() += 1);
    }
    // Users come after what they use.
    let mut nodes = graph.reachable();
    nodes.sort_unstable_by(|a, b| b.cmp(a));
    for node in nodes {
        let inputs = graph.inputs(node);
        let (read, times) = match graph.op(node) {
            Op::Product => continue,
            Op::Single => (graph.inputs(inputs[0]), 1),
            Op::Filter | Op::Project { .. } => (inputs, readers.get(&node).map_or(1, |times| (*times).max(1))),
            _ if is_table(&node) => (inputs, 1),
            _ => continue,
        };
        read.iter().filter(|n| is_table(n)).for_each(|table| *readers.entry(*table).or_default() += times);
    }
    readers
}

/// The tables whose columns an expression reads row by row.
fn tables_of(graph: &Graph, expression: Node) -> BTreeSet<Node> {
    let (mut tables, mut seen, mut stack) = (BTreeSet::new(), BTreeSet::new(), vec![expression]);
    while let Some(node) = stack.pop() {
        match graph.op(node) {
            _ if !seen.insert(node) => {}
            Op::Single => {}
            Op::Column(_) => drop(tables.insert(graph.inputs(node)[0])),
            _ => stack.extend(graph.dependencies(node)),
        }
    }
    tables
}

fn sums_floats(graph: &Graph) -> bool {
    let over_rows = |node: &Node| {
        graph.ty(*node).as_tensor().is_some_and(|(_, shape)| shape.iter().any(|d| matches!(d, Dim::Rows(_))))
    };
    graph.reachable().into_iter().any(|node| {
        if matches!(graph.op(node), Op::MatMul | Op::Reduce { .. }) {
            return !over_rows(&node) && graph.inputs(node).iter().any(over_rows);
        }
        let Op::Aggregate { aggregates, keys } = graph.op(node) else { return false };
        let is_float =
            |argument: &Node| graph.ty(*argument).as_tensor().is_some_and(|(elem, _)| elem.scalar.is_float());
        let sums = aggregates.iter().any(|a| matches!(a.op, AggregateOp::Sum | AggregateOp::Avg));
        sums && graph.inputs(node)[1 + keys.len()..].iter().any(is_float)
    })
}
