//! One run of one program: what is shared by its workers and gone after it.

use super::ledger::Ledger;
use super::memory::{Memory, Reservation};
use super::profile::{Call, CallProfile, LoopProfile, Profiler, Watch};
use super::schedule::Team;
use crate::abi::FrameHeader;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a [`Run`] starts from.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Number of workers; 0 counts as 1.
    pub workers: usize,
    /// Threads for all workers but the first, which is the calling thread. Without a pool one thread does it all.
    pub pool: Option<Arc<ThreadPool>>,
    /// Bytes that the run may hold at any time.
    pub budget: u64,
    /// Set by anybody to stop the run at its next morsel.
    pub cancel: Arc<AtomicBool>,
    /// Deal ranges of parallel loops out to the workers in turn, so that a worker always sees the same ones: float sums
    /// are then the same in every run with as many workers. Without it, a worker that is ahead takes more.
    pub deal: bool,
    /// Record what takes time, for [`Run::loops`] and [`Run::calls`].
    pub profile: bool,
    /// Names of the operators, which runtime calls refer to by position.
    pub operators: Arc<[String]>,
}

impl Default for RunConfig {
    fn default() -> Self {
        RunConfig {
            workers: 1,
            pool: None,
            budget: u64::MAX,
            cancel: Arc::default(),
            deal: false,
            profile: false,
            operators: Arc::from([]),
        }
    }
}

/// A pool with a thread for every worker, to be shared by the runs of a session.
pub fn thread_pool(workers: usize) -> Result<Arc<ThreadPool>, rayon::ThreadPoolBuildError> {
    let name = |i| format!("quearn-{i}");
    ThreadPoolBuilder::new().num_threads(workers.max(1)).thread_name(name).build().map(Arc::new)
}

/// Why a run stopped, other than at one of the program's own fail sites.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The budget, or the machine's memory, is used up.
    #[error("out of memory: {operator} asked for {wanted} more bytes within a budget of {budget}")]
    OutOfMemory {
        /// Who asked.
        operator: String,
        /// Bytes that the run may hold.
        budget: u64,
        /// Bytes that were asked for.
        wanted: u64,
    },
    /// The cancel flag was set.
    #[error("cancelled")]
    Cancelled,
    /// A function of another library failed.
    #[error("function \"{name}\": {message}")]
    Foreign {
        /// Its name.
        name: String,
        /// What it says.
        message: String,
    },
    /// A bug in Quearn.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Bytes that a run holds and held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Held now.
    pub used: u64,
    /// The most that was held at once.
    pub peak: u64,
    /// Sum of all that was ever taken.
    pub allocated: u64,
}

/// One run of one program. Generated code holds its address, so it stays in place while the program runs; memory
/// that the program allocated lives until the run is dropped.
pub struct Run {
    workers: usize,
    deal: bool,
    pool: Option<Arc<ThreadPool>>,
    cancel: Arc<AtomicBool>,
    operators: Arc<[String]>,
    error: Mutex<Option<RunError>>,
    memory: Memory,
    pub(super) ledger: Ledger,
    team: Arc<Team>,
    profiler: Option<Profiler>,
}

impl Run {
    /// A run that has not started.
    pub fn new(config: RunConfig) -> Run {
        let workers = config.workers.max(1);
        let helpers = if config.pool.is_some() { workers - 1 } else { 0 };
        Run {
            workers,
            deal: config.deal,
            pool: config.pool,
            cancel: config.cancel,
            ledger: Ledger::new(config.operators.len()),
            operators: config.operators,
            error: Mutex::new(None),
            memory: Memory::new(config.budget),
            team: Arc::new(Team::new(helpers)),
            profiler: config.profile.then(Profiler::new),
        }
    }

    /// The start of a frame for this run.
    pub fn header(&self) -> FrameHeader {
        FrameHeader { run: self, workers: self.workers as i64 }
    }

    /// Are ranges of parallel loops dealt out?
    pub(super) fn deals(&self) -> bool {
        self.deal
    }

    /// What parallel loops did until now, in the order in which they were first started; nothing if the run was not
    /// asked to record it.
    pub fn loops(&self) -> Vec<LoopProfile> {
        self.profiler.as_ref().map_or(vec![], Profiler::loops)
    }

    /// What calls of runtime functions took outside of loops, by name, if the run was asked to record it.
    pub fn calls(&self) -> BTreeMap<&'static str, CallProfile> {
        self.profiler.as_ref().map_or(BTreeMap::new(), Profiler::calls)
    }

    /// Times a call of a runtime function, if that was asked for.
    pub(super) fn call(&self, name: &'static str) -> Option<Call<'_>> {
        self.profiler.as_ref()?.call(name)
    }

    /// Times a loop, if that was asked for. `nested` is one that a worker of another loop starts.
    pub(crate) fn watch(&self, func: usize, nested: bool, items: i64, grain: i64) -> Option<Watch<'_>> {
        Some(self.profiler.as_ref()?.watch(func, nested, items, grain, self.workers))
    }

    /// Number of workers, at least 1.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The threads that may be used for work on `items` items: none where one worker does it, or where so few items
    /// are not worth it.
    pub(super) fn threads_for(&self, items: usize) -> Option<&ThreadPool> {
        const WORTH_IT: usize = 1 << 15;
        self.pool.as_deref().filter(|_| self.workers > 1 && items >= WORTH_IT)
    }

    pub(super) fn team(&self) -> Option<(&Arc<Team>, &ThreadPool)> {
        self.pool.as_deref().filter(|_| self.workers > 1).map(|pool| (&self.team, pool))
    }

    /// Has somebody set the cancel flag?
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Records why the run fails; the first error stays.
    pub fn fail(&self, error: RunError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The first error, which is then forgotten.
    pub fn take_error(&self) -> Option<RunError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Name of an operator.
    pub fn operator(&self, index: i64) -> &str {
        usize::try_from(index).ok().and_then(|i| self.operators.get(i)).map_or("an unnamed operator", String::as_str)
    }

    /// Bytes held and taken.
    pub fn memory_use(&self) -> MemoryUse {
        self.memory.usage()
    }

    /// Bytes that each operator wrote to memory of the run.
    ///
    /// # Safety
    /// The program has ended, and what it took from the run was not given back by others than itself.
    pub unsafe fn written(&self) -> Vec<u64> {
        // SAFETY: lists that the program grew lie in memory of the run, and it does not run any more.
        unsafe { self.ledger.written() }
    }

    /// Zeroed memory, 64-byte aligned, that lives as long as the run unless it is freed.
    pub fn allocate(&self, bytes: usize, operator: i64) -> Result<*mut u8, RunError> {
        let memory = self.memory.allocate(bytes, Some(&|memory| self.clear(memory)));
        self.ledger.add(operator, bytes);
        memory.ok_or_else(|| self.out_of_memory(self.operator(operator), bytes))
    }

    /// Like [`Run::allocate`], with anything in it.
    pub fn allocate_uninit(&self, bytes: usize, operator: i64) -> Result<*mut u8, RunError> {
        self.ledger.add(operator, bytes);
        self.allocate_room(bytes, operator)
    }

    /// Like [`Run::allocate_uninit`], for memory of which only a part may be written.
    pub(super) fn allocate_room(&self, bytes: usize, operator: i64) -> Result<*mut u8, RunError> {
        self.memory.allocate(bytes, None).ok_or_else(|| self.out_of_memory(self.operator(operator), bytes))
    }

    /// Like [`Run::allocate`], for the runtime itself.
    pub(super) fn allocate_for(&self, bytes: usize, who: &str) -> Result<*mut u8, RunError> {
        let memory = self.memory.allocate(bytes, Some(&|memory| self.clear(memory)));
        memory.ok_or_else(|| self.out_of_memory(who, bytes))
    }

    /// Clears memory, on all threads if it is much.
    fn clear(&self, memory: &mut [u8]) {
        const PART: usize = 1 << 20;
        match self.threads_for(memory.len() / 64) {
            Some(pool) => pool.install(|| memory.par_chunks_mut(PART).for_each(|part| part.fill(0))),
            None => memory.fill(0),
        }
    }

    /// Frees memory of this run early.
    ///
    /// # Safety
    /// Nobody uses the memory any more.
    pub unsafe fn free(&self, ptr: *mut u8) -> Result<(), RunError> {
        // SAFETY: the caller's promise.
        let known = unsafe { self.memory.free(ptr) };
        if known { Ok(()) } else { Err(RunError::Internal("free of memory that the run does not hold".into())) }
    }

    /// Counts `bytes` of memory that the runtime itself holds for a while.
    pub(super) fn reserve(&self, bytes: usize, who: &str) -> Result<Reservation<'_>, RunError> {
        self.memory.reserve(bytes).ok_or_else(|| self.out_of_memory(who, bytes))
    }

    fn out_of_memory(&self, operator: &str, wanted: usize) -> RunError {
        RunError::OutOfMemory { operator: operator.into(), budget: self.memory.budget(), wanted: wanted as u64 }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.team.dissolve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_stays() {
        let run = Run::new(RunConfig::default());
        assert_eq!(run.take_error(), None);
        run.fail(RunError::Cancelled);
        run.fail(RunError::Internal("later".into()));
        assert_eq!(run.take_error(), Some(RunError::Cancelled));
        assert_eq!(run.take_error(), None);
    }

    #[test]
    fn operators_have_names() {
        let run = Run::new(RunConfig { operators: vec!["join a".to_string()].into(), ..RunConfig::default() });
        assert_eq!(run.operator(0), "join a");
        assert_eq!(run.operator(1), "an unnamed operator");
        assert_eq!(run.operator(-1), "an unnamed operator");
    }

    #[test]
    fn a_header_describes_the_run() {
        let run = Run::new(RunConfig { workers: 3, ..RunConfig::default() });
        let header = run.header();
        assert_eq!((header.workers, header.run), (3, &raw const run));
    }
}
