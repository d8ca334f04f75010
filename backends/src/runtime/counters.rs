//! Counters of the processor, read by each thread for itself; where the system has none or forbids them, as most
//! virtual machines do, there is nothing to read.

use std::cell::OnceCell;

/// User-mode counts of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub cycles: u64,
    pub instructions: u64,
}

thread_local! {
    static COUNTERS: OnceCell<Option<Counters>> = const { OnceCell::new() };
}

/// The counts of this thread since it first asked; `None` where there are no counters.
pub(super) fn read() -> Option<Counts> {
    let now = COUNTERS.with(|counters| counters.get_or_init(Counters::open).as_ref()?.read())?;
    Some(Counts { cycles: now[0], instructions: now[1] })
}

/// Two counters of one thread that run at the same time.
struct Counters {
    #[cfg(target_os = "linux")]
    files: [std::os::fd::OwnedFd; 2],
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Counters;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    const HARDWARE: u32 = 0;
    const CYCLES: u64 = 0;
    const INSTRUCTIONS: u64 = 1;

    /// `struct perf_event_attr` of the kernel, as it was first; the kernel knows it by its size.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        breakpoint_type: u32,
        config1: u64,
    }

    /// Kernel and hypervisor are not counted, so that no privilege is needed.
    const USER_ONLY: u64 = 1 << 5 | 1 << 6;
    /// Reading the first counter of a group gives all of them.
    const READ_GROUP: u64 = 1 << 3;

    impl Counters {
        pub(super) fn open() -> Option<Counters> {
            Counters::of(HARDWARE, [CYCLES, INSTRUCTIONS])
        }

        /// Two counters of one kind.
        pub(super) fn of(kind: u32, events: [u64; 2]) -> Option<Counters> {
            let first = event(kind, events[0], -1)?;
            let second = event(kind, events[1], first.as_raw_fd())?;
            Some(Counters { files: [first, second] })
        }

        pub(super) fn read(&self) -> Option<[u64; 2]> {
            // How many there are, then their values.
            let mut words = [0u64; 3];
            let bytes = size_of_val(&words);
            // SAFETY: the buffer has that many bytes.
            let read = unsafe { libc::read(self.files[0].as_raw_fd(), words.as_mut_ptr().cast(), bytes) };
            (usize::try_from(read) == Ok(bytes)).then_some([words[1], words[2]])
        }
    }

    /// Counts an event on this thread, on whichever processor it runs.
    fn event(kind: u32, config: u64, group: i32) -> Option<OwnedFd> {
        const CLOSE_ON_EXEC: libc::c_ulong = 8;
        let size = size_of::<Attributes>() as u32;
        let attributes =
            Attributes { kind, size, config, read_format: READ_GROUP, flags: USER_ONLY, ..Attributes::default() };
        let (this_thread, any_processor) = (0, -1);
        // SAFETY: the kernel reads the attributes, whose size they state.
        let file = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_thread,
                any_processor,
                group,
                CLOSE_ON_EXEC,
            )
        };
        let file = i32::try_from(file).ok().filter(|file| *file >= 0)?;
        // SAFETY: a new file that nobody else has.
        Some(unsafe { OwnedFd::from_raw_fd(file) })
    }
}

#[cfg(not(target_os = "linux"))]
impl Counters {
    fn open() -> Option<Counters> {
        None
    }

    fn read(&self) -> Option<[u64; 2]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_never_fall() {
        if let (Some(first), Some(second)) = (read(), read()) {
            assert!(second.cycles >= first.cycles && second.instructions > first.instructions);
        }
    }

    /// The kernel's own counters are there where the processor's are not.
    #[cfg(target_os = "linux")]
    #[test]
    fn groups_are_read_at_once() {
        const SOFTWARE: u32 = 1;
        const FAULTS: u64 = 2;
        const MINOR_FAULTS: u64 = 5;
        let Some(faults) = Counters::of(SOFTWARE, [FAULTS, MINOR_FAULTS]) else { return };
        let first = faults.read().unwrap();
        let pages = crate::pages::Pages::new(64 << 12).unwrap();
        // SAFETY: the pages are that long and nobody else has them.
        (0..64).for_each(|page| unsafe { pages.start().as_ptr().add(page << 12).write_volatile(1) });
        let second = faults.read().unwrap();
        assert!(first[0] < second[0] && first[1] < second[1], "{first:?} {second:?}");
    }
}
