//! The session: tables, weights and settings; where programs are compiled, explained and run.

use crate::cache::{Key, ProgramCache};
use crate::compile;
use crate::data::{Catalog, Table, Tensor};
use crate::error::{Error, Result};
use crate::eval::{EvalTable, EvalTensor, Inputs};
use crate::executable::{Executable, Given, Job, Prepared, Tensors, Times};
use crate::explain::{self, Level};
use crate::foreign::{self, Function, Functions};
use crate::lower::interface::functions_called;
use crate::options::{BackendKind, Options};
use crate::profile::{self, Profile};
use crate::results::Outputs;
use crate::rewrite::RewriteOptions;
use crate::saved::{self, Origin, Saved};
use quearn_backends::runtime::{RunConfig, thread_pool};
use quearn_backends::{Backend, OptLevel};
use quearn_stage::graph::{Graph, Op};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Makes a [`Session`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SessionBuilder {
    options: Options,
}

/// More threads than any machine has processors only take time to start.
const MOST_THREADS: usize = 1024;

impl SessionBuilder {
    /// Workers, at most 1024; 0 (the default) means one for each processor.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// Bytes that one run may hold beside its inputs; more is an error that names the operator.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.options.memory_limit = bytes;
        self
    }

    /// Which machine runs programs.
    pub fn backend(mut self, backend: BackendKind) -> Self {
        self.options.backend = backend;
        self
    }

    /// Effort of the backend.
    pub fn level(mut self, level: OptLevel) -> Self {
        self.options.level = level;
        self
    }

    /// Which rewrites are on.
    pub fn rewrites(mut self, rewrites: RewriteOptions) -> Self {
        self.options.rewrites = rewrites;
        self
    }

    /// Is no model run for rows that could only match again, on the right side of a semi-, anti- or mark join? On by default.
    pub fn stop_at_match(mut self, stop: bool) -> Self {
        self.options.stop_at_match = stop;
        self
    }

    /// The session. An error if the backend was not built in or threads cannot be started.
    pub fn build(mut self) -> Result<Session> {
        if self.options.threads == 0 {
            self.options.threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        }
        if self.options.threads > MOST_THREADS {
            return Err(Error::Setting(format!("{} threads; at most {MOST_THREADS}", self.options.threads)));
        }
        let backend = backend(self.options.backend)?;
        let pool = match self.options.threads {
            1 => None,
            n => Some(thread_pool(n).map_err(|e| Error::Setting(format!("cannot start {n} threads: {e}")))?),
        };
        let (catalog, tensors, functions) = (Catalog::new(), Tensors::new(), Functions::new());
        let (cache, cancel) = (ProgramCache::default(), Arc::default());
        Ok(Session { options: self.options, backend, pool, catalog, tensors, functions, cache, cancel })
    }
}

fn backend(kind: BackendKind) -> Result<Box<dyn Backend>> {
    match kind {
        BackendKind::Auto => Ok(quearn_backends::default_backend()),
        BackendKind::Interp => Ok(Box::new(quearn_backends::interp::Interp)),
        #[cfg(any(feature = "llvm", feature = "llvm19"))]
        BackendKind::Llvm => Ok(Box::new(quearn_backends::llvm::Llvm::new())),
        #[cfg(not(any(feature = "llvm", feature = "llvm19")))]
        BackendKind::Llvm => Err(Error::Setting("this build has no LLVM backend (feature `llvm`)".into())),
    }
}

/// Tables, weights and settings. Programs see the tables as they are when they run.
pub struct Session {
    options: Options,
    backend: Box<dyn Backend>,
    pool: Option<Arc<rayon::ThreadPool>>,
    catalog: Catalog,
    tensors: Tensors,
    functions: Functions,
    cache: ProgramCache,
    cancel: Arc<AtomicBool>,
}

impl Session {
    /// Settings to start from.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default()
    }

    /// Settings in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Name of the backend.
    pub fn backend_name(&self) -> &'static str {
        self.backend.name()
    }

    /// The tables.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Adds a table under its own name; one of that name is replaced.
    pub fn add_table(&mut self, table: impl Into<Arc<Table>>) {
        self.catalog.add(table);
    }

    /// Registers a function of another library under a name, by which programs call it; one of that name is replaced.
    ///
    /// # Errors
    /// A function whose results are merged, of which it is not said how.
    pub fn register(&mut self, name: impl Into<String>, function: Function) -> Result<()> {
        let name = name.into();
        let function = function.named(&name)?;
        self.functions.insert(name, function);
        // Programs have been prepared with the one that was there.
        self.catalog.touch();
        Ok(())
    }

    /// Binds a weight or an input by name.
    pub fn bind(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Binds all tensors of a `.safetensors` file as weights.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.tensors.extend(crate::io::read_safetensors(path.as_ref())?.0);
        Ok(())
    }

    /// A flag that stops running programs at their next tile when it is set; it stays set until it is cleared.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// Compiles a program for the tables of this session. One that was compiled before, with the same or with other
    /// literals where columns are compared with literals, is not compiled again; its code was chosen for the literals
    /// that it had first.
    pub fn compile(&self, graph: &Graph) -> Result<Program> {
        let state = Mutex::new(self.compiled(graph)?);
        Ok(Program { origin: Origin::Graph(graph.clone()), state })
    }

    fn compiled(&self, graph: &Graph) -> Result<State> {
        let start = Instant::now();
        let rewritten = compile::rewrite(graph, &self.catalog, &self.options)?;
        foreign::check(&functions_called(&rewritten.graph), &self.functions)?;
        let parameters = rewritten.parameters.iter().map(|p| p.literal.as_int()).collect();
        let key = Key::new(&rewritten.graph, &rewritten.parameters, rewritten.report.facts());
        let known = self.cache.get(&key).filter(|known| known.interface.hold(&self.catalog));
        let cached = known.is_some();
        let executable = match known {
            Some(known) => known,
            None => {
                let made = compile::compile(rewritten, &self.catalog, &self.options, self.backend.as_ref())?;
                let made = Arc::new(made);
                self.cache.insert(key, Arc::clone(&made));
                made
            }
        };
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(State { executable, parameters, prepared: None, compile_ms, load_ms: None, cached })
    }

    /// Loads a program that [`Program::save`] has written; nothing is compiled. The tables that it was compiled for must be
    /// in the session; weights and inputs are bound as for any program.
    ///
    /// # Errors
    /// A file that is no saved program, is damaged, or was saved by another build of Quearn
    /// ([`SavedError`](crate::saved::SavedError)); code for another processor or of another LLVM
    /// ([`BackendError`](quearn_backends::BackendError)); tables or weights that are not like those of the program. All
    /// is checked before any code is loaded.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Program> {
        self.load_if(path.as_ref(), |_| Ok(()))
    }

    /// As [`Session::load`], for the program of a graph; a file with another one is an error.
    pub fn load_for(&self, graph: &Graph, path: impl AsRef<Path>) -> Result<Program> {
        self.load_if(path.as_ref(), |saved| saved.check_graph(path.as_ref(), graph))
    }

    fn load_if(&self, path: &Path, check: impl FnOnce(&Saved) -> Result<()>) -> Result<Program> {
        let start = Instant::now();
        let saved = Saved::read(path)?;
        check(&saved)?;
        saved.check(path, &self.catalog, &self.tensors)?;
        foreign::check(&saved.interface.functions_called, &self.functions)?;
        let checked_ms = start.elapsed().as_secs_f64() * 1e3;
        let code = self.backend.load(&saved.code)?;
        let executable = Executable::new(saved.interface, code, vec![("check", checked_ms)]);
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let state = State {
            executable: Arc::new(executable),
            parameters: saved.parameters.into(),
            cached: false,
            prepared: None,
            compile_ms: saved.compile_ms,
            load_ms: Some(load_ms),
        };
        Ok(Program { origin: saved.origin, state: Mutex::new(state) })
    }

    /// Compiles and runs a program.
    pub fn run(&self, graph: &Graph) -> Result<Outputs> {
        self.compile(graph)?.run(self)
    }

    /// What a program looks like at a level.
    pub fn explain(&self, graph: &Graph, level: Level) -> Result<String> {
        explain::explain(graph, &self.catalog, &self.options, self.backend.as_ref(), level)
    }

    /// What the naive evaluator needs for a graph: what a run would see, with these tensors before the session's.
    pub(crate) fn inputs_of(&self, graph: &Graph, given: &Tensors) -> Inputs {
        let tensors = self.tensors.iter().chain(given).map(|(name, tensor)| (name.clone(), EvalTensor::from(tensor)));
        let scanned = graph.reachable().into_iter().filter_map(|node| match graph.op(node) {
            Op::Scan { table, .. } => Some((table.clone(), EvalTable::from(self.catalog.table(table)?))),
            _ => None,
        });
        Inputs { tables: scanned.collect(), tensors: tensors.collect(), functions: self.functions.clone() }
    }

    fn config(&self, executable: &Executable) -> RunConfig {
        RunConfig {
            workers: self.options.threads,
            pool: self.pool.clone(),
            budget: self.options.memory_limit,
            cancel: Arc::clone(&self.cancel),
            deal: executable.interface.sums_floats,
            profile: false,
            operators: Arc::clone(&executable.operators),
        }
    }

    /// Asks running programs to stop; see [`Session::cancel_flag`].
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

struct State {
    executable: Arc<Executable>,
    /// Values of the program's parameters.
    parameters: Arc<[Option<i128>]>,
    /// Was it compiled before?
    cached: bool,
    prepared: Option<Arc<Prepared>>,
    compile_ms: f64,
    /// How long loading took, if it was not compiled here.
    load_ms: Option<f64>,
}

/// All that a run takes from its program.
struct Ready {
    executable: Arc<Executable>,
    parameters: Arc<[Option<i128>]>,
    prepared: Arc<Prepared>,
}

/// A compiled program. It may be run many times, from several threads at once.
pub struct Program {
    origin: Origin,
    state: Mutex<State>,
}

impl Program {
    /// Runs the program on the session's tables and tensors.
    pub fn run(&self, session: &Session) -> Result<Outputs> {
        self.run_with(session, &Tensors::new())
    }

    /// Runs the program with further input tensors, which come before the session's.
    ///
    /// A program relies on facts about the tables (how they are stored, ranges of values); where they no longer hold, it
    /// is compiled again first.
    pub fn run_with(&self, session: &Session, inputs: &Tensors) -> Result<Outputs> {
        let (_, outputs, _) = self.run_as(session, inputs, None, false)?;
        Ok(outputs)
    }

    /// The state of a program before its first run: a value for each of its inputs that has a next value, which is a result of
    /// the same name and type ([`Stage::update`](quearn_stage::rep::Stage::update)).
    ///
    /// # Errors
    /// A value is not given, or is of another type or shape.
    pub fn state(&self, initial: &Tensors) -> Result<crate::State> {
        crate::State::new(&self.lock().executable.interface, initial)
    }

    /// Runs the program on a state and replaces that by its next value; gives the other results.
    ///
    /// The next value is written over the present one where nothing reads that any more, else beside it: from run to run
    /// nothing is copied, and no memory is asked for.
    ///
    /// # Errors
    /// As [`Program::run_with`], and a state of another program. A run that begins and fails leaves a state that is lost.
    ///
    /// ```
    /// use quearn::prelude::*;
    ///
    /// let s = Stage::new();
    /// let total = s.state::<F32>("total", [2]);
    /// s.update(total, total + s.input::<F32>("x", [2]));
    ///
    /// let session = Session::builder().threads(1).build()?;
    /// let program = session.compile(&s.finish()?)?;
    /// let zeros = StoredTensor::from_vec(vec![0.0f32, 0.0], &[2])?;
    /// let mut state = program.state(&[("total".to_owned(), zeros)].into())?;
    /// for x in [1.0f32, 10.0] {
    ///     let x = StoredTensor::from_vec(vec![x, 2.0 * x], &[2])?;
    ///     program.advance(&session, &mut state, &[("x".to_owned(), x)].into())?;
    /// }
    /// assert_eq!(state.tensor("total")?.as_slice::<f32>()?, [11.0, 22.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn advance(&self, session: &Session, state: &mut crate::State, inputs: &Tensors) -> Result<Outputs> {
        let (_, outputs, _) = self.run_as(session, inputs, Some(state), false)?;
        Ok(outputs)
    }

    /// Runs the program as [`Program::run`] does, and tells where the time of this run went.
    ///
    /// Timing costs little: some readings of a clock for every parallel loop, not for every tile. A first run pays for
    /// fresh memory, and a single run is at the mercy of whatever else the machine does; profile a few and compare.
    pub fn profile(&self, session: &Session) -> Result<Profile> {
        self.profile_with(session, &Tensors::new())
    }

    /// As [`Program::profile`], with further input tensors.
    pub fn profile_with(&self, session: &Session, inputs: &Tensors) -> Result<Profile> {
        let (executable, outputs, times) = self.run_as(session, inputs, None, true)?;
        let Executable { interface, code, .. } = executable.as_ref();
        let source = profile::Source { interface, code: code.as_ref(), catalog: &session.catalog };
        Ok(source.profile(outputs, &times, executable.phases()))
    }

    fn run_as(
        &self,
        session: &Session,
        inputs: &Tensors,
        state: Option<&mut crate::State>,
        profile: bool,
    ) -> Result<(Arc<Executable>, Outputs, Times)> {
        let tensors = Given { inputs, session: &session.tensors };
        let Ready { executable, parameters, prepared } = self.ready(session, tensors)?;
        let config = || RunConfig { profile, ..session.config(&executable) };
        let (outputs, times) = job(&executable, session, tensors, &parameters, &config).run(&prepared, state)?;
        Ok((executable, outputs, times))
    }

    /// Writes the program to a file that [`Session::load`] reads: object code, and what it takes to run it. Weights are not
    /// part of it. The file appears whole or not at all, and holds no path of this machine.
    ///
    /// # Errors
    /// The interpreter makes no object code; the file cannot be written.
    ///
    /// ```
    /// # #[cfg(any(feature = "llvm", feature = "llvm19"))] {
    /// use quearn::prelude::*;
    ///
    /// let s = Stage::new();
    /// let x = s.input::<F32>("x", [3]);
    /// s.output("y", x * 2.0 + 1.0);
    /// let mut session = Session::builder().threads(1).build()?;
    /// session.bind("x", StoredTensor::from_vec(vec![1.0f32, 2.0, 3.0], &[3])?);
    ///
    /// let file = std::env::temp_dir().join(format!("quearn-doc-{}.quearn", std::process::id()));
    /// session.compile(&s.finish()?)?.save(&file)?;
    ///
    /// // Usually in another process.
    /// let program = session.load(&file)?;
    /// assert_eq!(program.run(&session)?.tensor("y")?.as_slice::<f32>()?, [3.0, 5.0, 7.0]);
    /// # std::fs::remove_file(&file)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let state = self.lock();
        let (executable, parameters) = (Arc::clone(&state.executable), Arc::clone(&state.parameters));
        let compile_ms = state.compile_ms;
        drop(state);
        let (origin, executable, parameters) = (&self.origin, executable.as_ref(), parameters.as_ref());
        saved::Source { origin, executable, parameters, compile_ms }.write(path.as_ref())
    }

    /// Milliseconds from the graph to machine code. For a program that was loaded, what that took before it was saved.
    pub fn compile_ms(&self) -> f64 {
        self.lock().compile_ms
    }

    /// Milliseconds from the file to machine code, if the program was loaded.
    pub fn load_ms(&self) -> Option<f64> {
        self.lock().load_ms
    }

    /// Was the code there already, from a program that looks the same but for literals?
    pub fn is_cached(&self) -> bool {
        self.lock().cached
    }

    /// Milliseconds of each phase of compilation, or of loading, the backend's own phases among them.
    pub fn compile_phases(&self) -> Vec<(&'static str, f64)> {
        self.lock().executable.phases()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Code whose facts hold and whose weights are prepared.
    fn ready(&self, session: &Session, tensors: Given<'_>) -> Result<Ready> {
        let mut state = self.lock();
        // What held for these tables when the program was prepared still holds.
        let depends = state.executable.interface.depends_on_session();
        state.prepared.take_if(|prepared| depends && !prepared.is_for(&session.catalog));
        if state.prepared.is_none()
            && let Origin::Graph(graph) = &self.origin
            && !state.executable.interface.hold(&session.catalog)
        {
            tracing::debug!("the tables changed: compiling again");
            *state = session.compiled(graph)?;
        }
        let (executable, parameters) = (Arc::clone(&state.executable), Arc::clone(&state.parameters));
        let config = || session.config(&executable);
        let job = job(&executable, session, tensors, &parameters, &config);
        let prepared = match state.prepared.take().filter(|p| job.is_current(p)) {
            Some(prepared) => prepared,
            None => Arc::new(job.prepare()?),
        };
        state.prepared = Some(Arc::clone(&prepared));
        Ok(Ready { executable, parameters, prepared })
    }
}

fn job<'a>(
    executable: &'a Executable,
    session: &'a Session,
    tensors: Given<'a>,
    parameters: &'a [Option<i128>],
    config: &'a dyn Fn() -> RunConfig,
) -> Job<'a> {
    Job { executable, catalog: &session.catalog, functions: &session.functions, tensors, parameters, config }
}
