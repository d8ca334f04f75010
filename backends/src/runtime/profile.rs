//! Where the time of a run goes: what its parallel loops did, loop by loop.
//!
//! A loop is timed as a whole by the thread that starts it, and every thread that works on it times its own share.
//! Loops nest: what a thread spends in an inner loop counts there and not in the outer one, so that all shares together
//! are the processor time of the run.

use super::counters;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Add, Sub};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What all runs of one loop did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopProfile {
    /// The function of the loop, as [`crate::Code::profile_key`] has it.
    pub func: usize,
    /// Was it started by a worker of another loop? Its time is then a part of the other's `wall`.
    pub nested: bool,
    /// How often it ran.
    pub runs: u64,
    /// Items of all runs.
    pub items: u64,
    /// Ranges that they were cut into.
    pub tiles: u64,
    /// Time from start to end, without that of loops which are started inside and not nested.
    pub wall: Duration,
    /// What each worker spent in it, without loops inside.
    pub shares: Vec<Share>,
}

/// What calls of one runtime function took outside of loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CallProfile {
    /// How many there were.
    pub calls: u64,
    /// Their time; that of starting loops is in it, that of the loops is not.
    pub time: Duration,
}

/// What one worker spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// Time.
    pub busy: Duration,
    /// Processor cycles and instructions, where they can be counted.
    pub counted: Option<Counted>,
}

/// What the processor counted in user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counted {
    /// Cycles.
    pub cycles: u64,
    /// Instructions.
    pub instructions: u64,
}

impl Share {
    /// Readings that only differences of mean something.
    fn now(epoch: Instant) -> Share {
        let counted = counters::read().map(|c| Counted { cycles: c.cycles, instructions: c.instructions });
        Share { busy: epoch.elapsed(), counted }
    }

    fn combine(self, other: Share, duration: fn(Duration, Duration) -> Duration, count: fn(u64, u64) -> u64) -> Share {
        let counted = self.counted.zip(other.counted).map(|(a, b)| Counted {
            cycles: count(a.cycles, b.cycles),
            instructions: count(a.instructions, b.instructions),
        });
        Share { busy: duration(self.busy, other.busy), counted }
    }
}

impl Add for Share {
    type Output = Share;

    fn add(self, other: Share) -> Share {
        // A worker that has done nothing has no counts either.
        match (self.counted, other.counted) {
            (None, Some(_)) if self.busy.is_zero() => other,
            (Some(_), None) if other.busy.is_zero() => self,
            _ => self.combine(other, Duration::add, u64::wrapping_add),
        }
    }
}

impl Sub for Share {
    type Output = Share;

    fn sub(self, other: Share) -> Share {
        if other == Share::default() {
            return self;
        }
        self.combine(other, Duration::saturating_sub, u64::wrapping_sub)
    }
}

thread_local! {
    /// What this thread spent in loops that ended inside the one that it works on.
    static INSIDE: Cell<Share> = const { Cell::new(Share { busy: Duration::ZERO, counted: None }) };
    /// Time of the loops that this thread started, as no loop's worker, and that ended inside the one it is in.
    static STARTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// How many loops this thread works on, one inside the other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// The profile of a run, while it runs.
pub(super) struct Profiler {
    epoch: Instant,
    loops: Mutex<Loops>,
    calls: Mutex<BTreeMap<&'static str, CallProfile>>,
}

#[derive(Default)]
struct Loops {
    /// In the order in which they were first started.
    profiles: Vec<LoopProfile>,
    /// Positions by function and nesting.
    known: HashMap<(usize, bool), usize>,
}

impl Profiler {
    pub(super) fn new() -> Profiler {
        Profiler { epoch: Instant::now(), loops: Mutex::default(), calls: Mutex::default() }
    }

    /// All loops, in the order in which they were first started.
    pub(super) fn loops(&self) -> Vec<LoopProfile> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner).profiles.clone()
    }

    /// Calls outside of loops, by the name of the runtime function.
    pub(super) fn calls(&self) -> BTreeMap<&'static str, CallProfile> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Times a call of a runtime function until the result is dropped, unless a loop makes it.
    pub(super) fn call(&self, name: &'static str) -> Option<Call<'_>> {
        (DEPTH.get() == 0).then(|| Call { profiler: self, name, start: Instant::now(), before: STARTED.get() })
    }

    /// Times a loop of `items` items in ranges of `grain` until the watch is dropped.
    pub(super) fn watch(&self, func: usize, nested: bool, items: i64, grain: i64, workers: usize) -> Watch<'_> {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let Loops { profiles, known } = &mut *loops;
        let at = *known.entry((func, nested)).or_insert_with(|| {
            let (wall, shares) = (Duration::ZERO, vec![Share::default(); workers]);
            profiles.push(LoopProfile { func, nested, runs: 0, items: 0, tiles: 0, wall, shares });
            profiles.len() - 1
        });
        let profile = &mut profiles[at];
        profile.runs += 1;
        profile.items += items as u64;
        profile.tiles += (items as u64).div_ceil(grain.max(1) as u64);
        drop(loops);
        let outer = if nested { Duration::ZERO } else { STARTED.replace(Duration::ZERO) };
        Watch { profiler: self, at, nested, start: Share::now(self.epoch), before: INSIDE.get(), outer }
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut LoopProfile)) {
        change(&mut self.loops.lock().unwrap_or_else(PoisonError::into_inner).profiles[at]);
    }
}

/// A call that is timed.
pub(super) struct Call<'a> {
    profiler: &'a Profiler,
    name: &'static str,
    start: Instant,
    before: Duration,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let loops = STARTED.get().saturating_sub(self.before);
        let mut calls = self.profiler.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = calls.entry(self.name).or_default();
        profile.calls += 1;
        profile.time += self.start.elapsed().saturating_sub(loops);
    }
}

/// A loop that is timed, on the thread that started it.
pub(crate) struct Watch<'a> {
    profiler: &'a Profiler,
    at: usize,
    nested: bool,
    start: Share,
    /// Of this thread, before the loop.
    before: Share,
    outer: Duration,
}

impl Watch<'_> {
    /// Times this thread's work on the loop, as a worker, until the result is dropped.
    pub(crate) fn work(&self, worker: usize) -> Work<'_> {
        let before = INSIDE.replace(Share::default());
        DEPTH.set(DEPTH.get() + 1);
        Work { watch: self, worker, start: Share::now(self.profiler.epoch), before }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let passed = Share::now(self.profiler.epoch) - self.start;
        // For the loop around this one, waiting for other workers is time in here too.
        INSIDE.set(self.before + passed);
        if !self.nested {
            let wall = passed.busy.saturating_sub(STARTED.get());
            STARTED.set(self.outer + passed.busy);
            self.profiler.change(self.at, |profile| profile.wall += wall);
        }
    }
}

/// Work on a loop that is timed, on the thread that does it.
pub(crate) struct Work<'a> {
    watch: &'a Watch<'a>,
    worker: usize,
    start: Share,
    before: Share,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let passed = Share::now(self.watch.profiler.epoch) - self.start;
        let own = passed - INSIDE.replace(self.before + passed);
        DEPTH.set(DEPTH.get() - 1);
        self.watch.profiler.change(self.watch.at, |profile| {
            if let Some(share) = profile.shares.get_mut(self.worker) {
                *share = *share + own;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(micros: u64) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(micros) {}
    }

    #[test]
    fn time_counts_in_the_innermost_loop() {
        let profiler = Profiler::new();
        {
            let outer = profiler.watch(1, false, 10, 4, 2);
            let _work = outer.work(1);
            spin(300);
            for _ in 0..2 {
                let inner = profiler.watch(2, true, 5, 5, 2);
                let _work = inner.work(1);
                spin(1000);
            }
        }
        let [outer, inner] = &profiler.loops()[..] else { panic!() };
        assert_eq!((outer.func, outer.nested, outer.runs, outer.items, outer.tiles), (1, false, 1, 10, 3));
        assert_eq!((inner.func, inner.nested, inner.runs, inner.items, inner.tiles), (2, true, 2, 10, 2));
        let busy = |profile: &LoopProfile| profile.shares.iter().map(|share| share.busy).sum::<Duration>();
        assert!(busy(inner) >= Duration::from_micros(2000) && inner.wall.is_zero());
        assert!(busy(outer) >= Duration::from_micros(300) && busy(outer) + busy(inner) <= outer.wall);
        assert!(outer.shares[0].busy.is_zero());
    }

    #[test]
    fn loops_that_are_started_inside_but_not_nested_have_their_own_wall() {
        let profiler = Profiler::new();
        let start = Instant::now();
        {
            let outer = profiler.watch(1, false, 1, 1, 1);
            let _work = outer.work(0);
            drop(profiler.watch(2, false, 1, 1, 1));
            let _inner = profiler.watch(3, false, 1, 1, 1);
            spin(1000);
        }
        let walls: Vec<Duration> = profiler.loops().iter().map(|profile| profile.wall).collect();
        assert!(walls[2] >= Duration::from_micros(1000) && walls[0] + walls[2] <= start.elapsed(), "{walls:?}");
    }

    #[test]
    fn calls_count_outside_of_loops() {
        let profiler = Profiler::new();
        for _ in 0..2 {
            let _call = profiler.call("outside");
            spin(500);
            let outer = profiler.watch(1, false, 1, 1, 1);
            let _work = outer.work(0);
            assert!(profiler.call("inside").is_none());
            spin(2000);
        }
        let calls = profiler.calls();
        let (outside, loops) = (calls["outside"], profiler.loops()[0].wall);
        assert_eq!((calls.len(), outside.calls), (1, 2));
        assert!(outside.time >= Duration::from_micros(1000) && loops >= Duration::from_micros(4000), "{outside:?}");
    }
}
