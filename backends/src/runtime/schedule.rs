//! The parallel loop: each worker takes ranges of at most a grain from a share of its own, one after the other, and then
//! from the shares of the others, until nothing is left. A worker so goes on, in loop after loop over the rows of the same
//! tensors, with what is in its own caches, and yet nobody waits for the slowest.
//!
//! Worker 0 is the calling thread. Each other worker has a [`Seat`], which a thread of the pool takes when it is
//! first called and leaves again after it has waited in vain for a while. Waiting costs processor time for some tens
//! of microseconds; in return the next loop starts at once, and short loops follow each other closely in tensor
//! programs. A worker that has not turned up when the work is done is called off, so that a loop never waits for a
//! thread to wake up, or for a pool that is busy with something else.

use super::profile::Watch;
use super::run::{Run, RunError};
use quearn_stage::low::Module;
use rayon::ThreadPool;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a thread waits at its seat for the next loop.
const PATIENCE: Duration = Duration::from_micros(60);

/// The body of a parallel loop, `func(frame, worker, lo, hi) -> status`.
type Body = unsafe extern "C" fn(*mut u8, i64, i64, i64) -> i32;

/// What a function of the program returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(pub i32);

thread_local! {
    /// The number of the worker that this thread is, inside a parallel loop.
    static WORKER: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Most shares of a loop; further workers have none of their own and help the others.
const SHARES: usize = 16;

/// A counter on a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicI64);

/// One loop while it runs; lives on the stack of the caller, who waits for all who use it.
struct Job<'a> {
    run: &'a Run,
    body: Body,
    frame: *mut u8,
    n: i64,
    grain: i64,
    /// Where ranges are dealt out to the workers in turn instead of to whoever comes first: how many workers.
    dealt: Option<i64>,
    /// Workers that have a share.
    shares: usize,
    /// For each share, how many of its ranges have been taken; for ranges that are dealt out, the first counts workers.
    next: [Counter; SHARES],
    status: AtomicI32,
    watch: Option<&'a Watch<'a>>,
}

impl Job<'_> {
    /// Takes ranges until there are none, or one failed.
    ///
    /// # Safety
    /// The body may be called on the frame as this worker.
    unsafe fn work(&self, worker: i64) {
        let _timed = self.watch.map(|watch| watch.work(worker as usize));
        match self.dealt {
            // SAFETY: the caller's promise; a worker number is taken once.
            Some(workers) => unsafe { self.work_dealt(workers) },
            // SAFETY: the caller's promise.
            None => unsafe { self.work_shared(worker) },
        }
    }

    /// Takes over workers that nobody is yet, each with all of its ranges: which worker sees which range, and in which
    /// order, does not depend on the threads that turn up.
    ///
    /// # Safety
    /// The body may be called on the frame as any worker that no other thread has taken.
    unsafe fn work_dealt(&self, workers: i64) {
        loop {
            let worker = self.next[0].0.fetch_add(1, Ordering::Relaxed);
            if worker >= workers {
                return;
            }
            let before = WORKER.replace(Some(worker));
            let mut lo = worker.saturating_mul(self.grain);
            // SAFETY: the caller's promise.
            while lo < self.n && unsafe { self.range(worker, lo) } {
                lo = lo.saturating_add(workers.saturating_mul(self.grain));
            }
            WORKER.set(before);
        }
    }

    /// Runs one range; false if the loop has stopped.
    ///
    /// # Safety
    /// As for [`Job::work`].
    unsafe fn range(&self, worker: i64, lo: i64) -> bool {
        if self.status.load(Ordering::Relaxed) != 0 {
            return false;
        }
        if self.run.cancelled() {
            self.run.fail(RunError::Cancelled);
            self.stop(Module::RUNTIME_ERROR);
            return false;
        }
        // SAFETY: the caller's promise.
        let status = unsafe { (self.body)(self.frame, worker, lo, lo.saturating_add(self.grain).min(self.n)) };
        if status != 0 {
            self.stop(status);
        }
        status == 0
    }

    /// # Safety
    /// As for [`Job::work`].
    unsafe fn work_shared(&self, worker: i64) {
        let ranges = (self.n - 1) / self.grain + 1;
        let shares = self.shares as i64;
        let begin = |share: i64| ranges / shares * share + (ranges % shares).min(share);
        for share in (worker..worker + shares).map(|share| share % shares) {
            let (first, end) = (begin(share), begin(share + 1));
            loop {
                let range = first + self.next[share as usize].0.fetch_add(1, Ordering::Relaxed);
                if range >= end {
                    break;
                }
                // SAFETY: the caller's promise.
                if !unsafe { self.range(worker, range * self.grain) } {
                    return;
                }
            }
        }
    }

    fn stop(&self, status: i32) {
        let _ = self.status.compare_exchange(0, status, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Like [`Job::work`] as a worker that nested loops know of.
    ///
    /// # Safety
    /// As for [`Job::work`].
    unsafe fn work_as(&self, worker: i64) {
        let before = WORKER.replace(Some(worker));
        // SAFETY: the caller's promise.
        unsafe { self.work(worker) };
        WORKER.set(before);
    }
}

// Nobody is there, nor coming.
const ABSENT: u32 = 0;
// Somebody waits here, or is coming.
const WAITING: u32 = 1;
// There is a job for whoever waits here, or is coming.
const CALLED: u32 = 2;
// The job is being worked on.
const RUNNING: u32 = 3;

/// The place of one worker, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Seat {
    state: AtomicU32,
    /// A [`Job`]; meaningful while `CALLED` or `RUNNING`.
    job: AtomicPtr<()>,
}

impl Seat {
    fn pass(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The thread of this seat: works when called, leaves when nobody calls.
    ///
    /// It does not yield while it waits: on a busy machine that would cost it the processor for longer than to sleep
    /// and be woken by the pool.
    fn attend(&self, worker: i64, dissolved: &AtomicBool) {
        let mut since = Instant::now();
        loop {
            if self.pass(CALLED, RUNNING) {
                let job = self.job.load(Ordering::Relaxed).cast::<Job<'_>>();
                // SAFETY: the caller of the loop put the job there before CALLED, keeps it until the state is not
                // RUNNING any more, and gave this seat a worker number of its own.
                unsafe { (*job).work_as(worker) };
                self.state.store(WAITING, Ordering::Release);
                since = Instant::now();
            }
            let leave = since.elapsed() > PATIENCE || dissolved.load(Ordering::Relaxed);
            if leave && self.pass(WAITING, ABSENT) {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Calls off a job that nobody has begun, or waits for the end of it.
    fn finish(&self) {
        if self.pass(CALLED, WAITING) {
            return;
        }
        let mut rounds = 0u32;
        while self.state.load(Ordering::Acquire) == RUNNING {
            rounds += 1;
            // The thread that is waited for may need this very processor.
            if rounds.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// The workers of a run but the first.
pub(super) struct Team {
    seats: Box<[Seat]>,
    dissolved: AtomicBool,
}

impl Team {
    pub(super) fn new(helpers: usize) -> Team {
        Team { seats: (0..helpers).map(|_| Seat::default()).collect(), dissolved: AtomicBool::new(false) }
    }

    /// Sends home all who wait.
    pub(super) fn dissolve(&self) {
        self.dissolved.store(true, Ordering::Relaxed);
    }

    /// Does the job with the help of at most `helpers`.
    ///
    /// # Safety
    /// The body may be called on the frame from every worker; nobody else uses the team.
    unsafe fn work(self: &Arc<Team>, pool: &ThreadPool, job: &Job<'_>, helpers: usize) {
        let helpers = helpers.min(self.seats.len());
        for (i, seat) in self.seats[..helpers].iter().enumerate() {
            seat.job.store((&raw const *job).cast_mut().cast(), Ordering::Relaxed);
            if seat.state.swap(CALLED, Ordering::AcqRel) == ABSENT {
                let team = Arc::clone(self);
                pool.spawn(move || team.seats[i].attend(i as i64 + 1, &team.dissolved));
            }
        }
        // SAFETY: the caller's promise.
        unsafe { job.work_as(0) };
        self.seats[..helpers].iter().for_each(Seat::finish);
    }
}

/// Body of `qn_par_for`. A loop inside a loop runs on the thread and under the number of its worker; so does one
/// that has no more than one grain of work, without taking part in the other rule.
///
/// # Safety
/// `func` is a [`Body`] that may be called on `frame` from all workers at once. Calls from outside a loop come from
/// one thread at a time.
pub(super) unsafe fn qn_par_for(
    run: &Run,
    func: *mut u8,
    frame: *mut u8,
    n: i64,
    grain: i64,
) -> Result<Status, RunError> {
    if n <= 0 {
        return Ok(Status(0));
    }
    let grain = grain.clamp(1, n);
    // SAFETY: the caller's promise; a function pointer is as wide as a data pointer on all supported machines.
    let body = unsafe { std::mem::transmute::<*mut u8, Body>(func) };
    let (next, status) = (Default::default(), AtomicI32::new(0));
    let watch = run.watch(func.addr(), WORKER.get().is_some(), n, grain);
    let mut job = Job { run, body, frame, n, grain, dealt: None, shares: 1, next, status, watch: watch.as_ref() };
    // SAFETY: the caller's promise.
    unsafe {
        match (WORKER.get(), run.team()) {
            (None, Some((team, pool))) if n > grain => {
                job.dealt = run.deals().then_some(run.workers() as i64);
                let helpers = ((n - 1) / grain) as usize;
                job.shares = helpers.saturating_add(1).min(run.workers()).clamp(1, SHARES);
                team.work(pool, &job, helpers);
            }
            (None, None) if n > grain => job.work_as(0),
            (worker, _) => job.work(worker.unwrap_or(0)),
        }
    }
    Ok(Status(job.status.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::super::run::{RunConfig, thread_pool};
    use super::super::symbols::qn_par_for;
    use super::*;

    const ITEMS: usize = 10_000;

    struct Frame {
        run: *const Run,
        seen: Vec<AtomicI32>,
        busy: Vec<AtomicI32>,
        fail_at: i64,
        cancel_at: i64,
        cancel: Arc<AtomicBool>,
    }

    unsafe extern "C" fn visit(frame: *mut u8, worker: i64, lo: i64, hi: i64) -> i32 {
        // SAFETY: the tests pass a frame that outlives the loop.
        let frame = unsafe { &*frame.cast::<Frame>() };
        assert_eq!(frame.busy[worker as usize].fetch_add(1, Ordering::SeqCst), 0, "worker number used twice");
        for count in &frame.seen[lo as usize..hi as usize] {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if (lo..hi).contains(&frame.cancel_at) {
            frame.cancel.store(true, Ordering::Relaxed);
        }
        frame.busy[worker as usize].fetch_sub(1, Ordering::SeqCst);
        if (lo..hi).contains(&frame.fail_at) { 42 } else { 0 }
    }

    unsafe extern "C" fn nested(frame: *mut u8, worker: i64, lo: i64, hi: i64) -> i32 {
        // SAFETY: as above.
        unsafe {
            let frame = &*frame.cast::<Frame>();
            frame.seen[ITEMS - 1].fetch_add((hi - lo) as i32, Ordering::Relaxed);
            let inner: Body = check_worker;
            qn_par_for(frame.run, inner as *mut u8, (&raw const worker).cast_mut().cast(), 100, 1)
        }
    }

    unsafe extern "C" fn check_worker(outer: *mut u8, worker: i64, _lo: i64, _hi: i64) -> i32 {
        // SAFETY: `nested` passes the address of its worker number.
        i32::from(unsafe { *outer.cast::<i64>() } != worker)
    }

    fn with(workers: usize, change: impl FnOnce(&mut Frame)) -> (Run, Frame) {
        let cancel = Arc::new(AtomicBool::new(false));
        let pool = (workers > 1).then(|| thread_pool(workers).unwrap());
        let run = Run::new(RunConfig { workers, pool, cancel: Arc::clone(&cancel), ..RunConfig::default() });
        let zeros = |n| (0..n).map(|_| AtomicI32::new(0)).collect();
        let mut frame = Frame {
            run: std::ptr::null(),
            seen: zeros(ITEMS),
            busy: zeros(workers),
            fail_at: -1,
            cancel_at: -1,
            cancel,
        };
        change(&mut frame);
        (run, frame)
    }

    fn par_for(run: &Run, body: Body, frame: &mut Frame, n: i64, grain: i64) -> i32 {
        frame.run = run;
        // SAFETY: the frame outlives the loop.
        unsafe { qn_par_for(run, body as *mut u8, (&raw mut *frame).cast(), n, grain) }
    }

    #[test]
    fn every_item_is_visited_once() {
        for workers in [1, 2, 5] {
            let (run, mut frame) = with(workers, |_| {});
            for round in 1..200 {
                let grain = 1 + (round * 37) % 3000;
                assert_eq!(par_for(&run, visit, &mut frame, ITEMS as i64, grain.into()), 0);
                assert!(frame.seen.iter().all(|count| count.load(Ordering::Relaxed) == round));
            }
        }
    }

    #[test]
    fn an_empty_loop_calls_nothing() {
        let (run, mut frame) = with(2, |_| {});
        assert_eq!(par_for(&run, visit, &mut frame, 0, 10), 0);
        assert_eq!(par_for(&run, visit, &mut frame, -5, 0), 0);
        assert!(frame.seen.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_failure_stops_the_rest() {
        for workers in [1, 3] {
            let (run, mut frame) = with(workers, |frame| frame.fail_at = 5);
            assert_eq!(par_for(&run, visit, &mut frame, ITEMS as i64, 10), 42);
            assert!(frame.seen.iter().filter(|count| count.load(Ordering::Relaxed) == 0).count() > ITEMS / 2);
            assert_eq!(run.take_error(), None);
        }
    }

    #[test]
    fn a_cancelled_run_stops() {
        for workers in [1, 3] {
            let (run, mut frame) = with(workers, |frame| frame.cancel_at = 5);
            assert_eq!(par_for(&run, visit, &mut frame, ITEMS as i64, 10), Module::RUNTIME_ERROR);
            assert_eq!(run.take_error(), Some(RunError::Cancelled));
        }
    }

    /// Writes the number of the worker into every item.
    unsafe extern "C" fn sign(frame: *mut u8, worker: i64, lo: i64, hi: i64) -> i32 {
        // SAFETY: the test passes as many items as the loop has.
        let items = unsafe { std::slice::from_raw_parts(frame.cast::<AtomicI64>(), ITEMS) };
        items[lo as usize..hi as usize].iter().for_each(|item| item.store(worker, Ordering::Relaxed));
        0
    }

    #[test]
    fn dealt_ranges_do_not_depend_on_threads() {
        for pool in [None, Some(thread_pool(3).unwrap())] {
            let run = Run::new(RunConfig { workers: 3, pool, deal: true, ..RunConfig::default() });
            let mut items: Vec<AtomicI64> = (0..ITEMS).map(|_| AtomicI64::new(-1)).collect();
            // SAFETY: `sign` takes the items as its frame.
            let status = unsafe {
                qn_par_for((&raw const run).cast(), sign as *mut u8, items.as_mut_ptr().cast(), ITEMS as i64, 7)
            };
            assert_eq!(status, 0);
            let workers = if run.team().is_some() { 3 } else { 1 };
            for (i, item) in items.iter().enumerate() {
                assert_eq!(item.load(Ordering::Relaxed), (i as i64 / 7) % workers, "item {i}");
            }
        }
    }

    #[test]
    fn nested_loops_keep_the_worker() {
        let (run, mut frame) = with(3, |_| {});
        assert_eq!(par_for(&run, nested, &mut frame, 500, 1), 0);
        assert_eq!(frame.seen[ITEMS - 1].load(Ordering::Relaxed), 500);
    }

    #[test]
    fn runs_share_a_pool() {
        let pool = thread_pool(2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (_, mut frame) = with(2, |_| {});
                    let config = RunConfig { workers: 2, pool: Some(Arc::clone(&pool)), ..RunConfig::default() };
                    let run = Run::new(config);
                    (0..100).for_each(|_| assert_eq!(par_for(&run, visit, &mut frame, ITEMS as i64, 100), 0));
                    assert!(frame.seen.iter().all(|count| count.load(Ordering::Relaxed) == 100));
                });
            }
        });
    }
}
