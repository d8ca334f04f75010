//! Object code in memory: one ORCv2 `LLJIT` for the process, in which each compiled module has a library of its own and
//! owns its code through a resource tracker. Most of this backend's `unsafe` is here.

use super::builtins;
use super::error::{Error, Result};
use crate::runtime;
use inkwell::llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use inkwell::llvm_sys::orc2::lljit::*;
use inkwell::llvm_sys::orc2::*;
use inkwell::memory_buffer::MemoryBuffer;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The process's linker and loader.
struct Jit {
    lljit: LLVMOrcLLJITRef,
    session: LLVMOrcExecutionSessionRef,
}

// SAFETY: an ORC session locks itself; LLVM allows to add, look up and remove from any thread.
unsafe impl Send for Jit {}
// SAFETY: as above.
unsafe impl Sync for Jit {}

static JIT: LazyLock<std::result::Result<Jit, String>> = LazyLock::new(|| Jit::new().map_err(|e| e.0));

/// What the session reported since it was asked last: the details that the errors of look-ups leave out.
static REPORTS: Mutex<Vec<String>> = Mutex::new(vec![]);

/// A name space that knows the runtime's functions: the modules that are loaded may have the same symbols. LLVM keeps
/// it until the process ends, so that it is used again when its module is gone.
struct Library(LLVMOrcJITDylibRef);

// SAFETY: a library belongs to the session, which locks itself.
unsafe impl Send for Library {}

/// Libraries without a module.
static IDLE: Mutex<Vec<Library>> = Mutex::new(vec![]);

/// Code that is loaded; dropping it frees the code.
pub(super) struct Loaded {
    library: LLVMOrcJITDylibRef,
    tracker: LLVMOrcResourceTrackerRef,
    addresses: Vec<usize>,
}

// SAFETY: a tracker belongs to the session, which locks itself.
unsafe impl Send for Loaded {}
// SAFETY: nothing is changed through a shared reference.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Links objects and finds the addresses of `symbols`.
    pub(super) fn new<'s>(objects: &[Vec<u8>], symbols: impl Iterator<Item = &'s str>) -> Result<Loaded> {
        let jit = JIT.as_ref().map_err(|message| Error::new(message.clone()))?;
        let library = jit.library()?.0;
        // SAFETY: the library lives as long as the process.
        let tracker = unsafe { LLVMOrcJITDylibCreateResourceTracker(library) };
        let mut loaded = Loaded { library, tracker, addresses: vec![] };
        for object in objects {
            jit.add(tracker, object)?;
        }
        loaded.addresses = jit.addresses(library, symbols)?;
        Ok(loaded)
    }

    /// The address of a symbol by its position.
    pub(super) fn address(&self, index: usize) -> usize {
        self.addresses[index]
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the tracker was made by `new` and is released once; nobody runs the code any more.
        unsafe {
            // There is nobody to tell of an error; the code then stays until the process ends.
            if check(LLVMOrcResourceTrackerRemove(self.tracker)).is_ok() {
                idle().push(Library(self.library));
            }
            LLVMOrcReleaseResourceTracker(self.tracker);
        }
    }
}

fn idle() -> std::sync::MutexGuard<'static, Vec<Library>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A look-up that is under way.
struct Lookup {
    /// Positions of the symbols, by the addresses of their names.
    positions: HashMap<usize, usize>,
    result: Sender<Result<Vec<usize>>>,
}

impl Jit {
    fn new() -> Result<Jit> {
        let mut lljit = std::ptr::null_mut();
        // SAFETY: a null builder asks for the defaults, and the session outlives the reporter's use of it: it is
        // never disposed of.
        let jit = unsafe {
            check(LLVMOrcCreateLLJIT(&mut lljit, std::ptr::null_mut()))?;
            let session = LLVMOrcLLJITGetExecutionSession(lljit);
            LLVMOrcExecutionSessionSetErrorReporter(session, report, std::ptr::null_mut());
            Jit { lljit, session }
        };
        Ok(jit)
    }

    /// A library for a module.
    fn library(&self) -> Result<Library> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if let Some(library) = idle().pop() {
            return Ok(library);
        }
        let name = c_string(&format!("quearn{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        // SAFETY: no other library has this name, which the session copies.
        let library = unsafe { LLVMOrcExecutionSessionCreateBareJITDylib(self.session, name.as_ptr()) };
        self.define_symbols(library)?;
        self.search_process(library)?;
        Ok(Library(library))
    }

    /// Makes the runtime's functions known by name.
    fn define_symbols(&self, library: LLVMOrcJITDylibRef) -> Result<()> {
        let runtime = runtime::symbols().iter().map(|s| (s.name, s.address));
        let mut pairs = Vec::new();
        for (name, address) in runtime.chain(builtins::symbols()) {
            // The interned name is owned by the pair.
            pairs.push(symbol_pair(self.intern(name)?, address));
        }
        // SAFETY: the unit takes over the names and copies the pairs; the library takes over the unit.
        unsafe {
            let unit = LLVMOrcAbsoluteSymbols(pairs.as_mut_ptr(), pairs.len());
            check(LLVMOrcJITDylibDefine(library, unit))
        }
    }

    /// Lets code call what the process has loaded: the mathematical functions of the C library.
    fn search_process(&self, library: LLVMOrcJITDylibRef) -> Result<()> {
        let mut generator = std::ptr::null_mut();
        // SAFETY: no filter is given; the library takes over the generator.
        unsafe {
            let prefix = LLVMOrcLLJITGetGlobalPrefix(self.lljit);
            check(LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(
                &mut generator,
                prefix,
                None,
                std::ptr::null_mut(),
            ))?;
            LLVMOrcJITDylibAddGenerator(library, generator);
        }
        Ok(())
    }

    fn intern(&self, name: &str) -> Result<LLVMOrcSymbolStringPoolEntryRef> {
        let name = c_string(name)?;
        // SAFETY: `name` is a C string.
        Ok(unsafe { LLVMOrcLLJITMangleAndIntern(self.lljit, name.as_ptr()) })
    }

    fn add(&self, tracker: LLVMOrcResourceTrackerRef, object: &[u8]) -> Result<()> {
        let object = MemoryBuffer::create_from_memory_range_copy(object, "quearn");
        let buffer = object.as_mut_ptr();
        std::mem::forget(object);
        // SAFETY: the session takes over the buffer, which we have forgotten; the tracker is alive.
        unsafe { check(LLVMOrcLLJITAddObjectFileWithRT(self.lljit, tracker, buffer)) }
    }

    /// Addresses of symbols of a library, in order; their code is linked now.
    fn addresses<'s>(&self, library: LLVMOrcJITDylibRef, symbols: impl Iterator<Item = &'s str>) -> Result<Vec<usize>> {
        let names = symbols.map(|symbol| self.intern(symbol)).collect::<Result<Vec<_>>>()?;
        let positions = names.iter().enumerate().map(|(position, name)| (*name as usize, position)).collect();
        let (result, found) = channel();
        let lookup = Box::into_raw(Box::new(Lookup { positions, result }));
        let flags = LLVMOrcSymbolLookupFlags::LLVMOrcSymbolLookupFlagsRequiredSymbol;
        let mut wanted: Vec<_> =
            names.iter().map(|&name| LLVMOrcCLookupSetElement { Name: name, LookupFlags: flags }).collect();
        let all = LLVMOrcJITDylibLookupFlags::LLVMOrcJITDylibLookupFlagsMatchAllSymbols;
        let mut order = LLVMOrcCJITDylibSearchOrderElement { JD: library, JDLookupFlags: all };
        // SAFETY: the look-up takes over the names and copies the set and the order; the handler is called once and
        // takes over what it is given.
        unsafe {
            LLVMOrcExecutionSessionLookup(
                self.session,
                LLVMOrcLookupKind::LLVMOrcLookupKindStatic,
                &mut order,
                1,
                wanted.as_mut_ptr(),
                wanted.len(),
                found_symbols,
                lookup.cast(),
            );
        }
        let found = found.recv().unwrap_or_else(|_| Err(Error::new("a look-up ended without a result")));
        let reports = std::mem::take(&mut *REPORTS.lock().unwrap_or_else(PoisonError::into_inner));
        found.map_err(|error| Error::new(format!("{}: {}", error.0, reports.join("; "))))
    }
}

/// Takes the result of a look-up.
extern "C" fn found_symbols(error: LLVMErrorRef, pairs: LLVMOrcCSymbolMapPairs, count: usize, lookup: *mut c_void) {
    // SAFETY: this is the box that `Jit::addresses` has given away, handed over once.
    let Lookup { positions, result } = *unsafe { Box::from_raw(lookup.cast::<Lookup>()) };
    // SAFETY: the session hands over the error; without one, `pairs` are that many.
    let addresses = unsafe { check(error) }.and_then(|()| {
        let pairs = match count {
            0 => &[],
            // SAFETY: as above; they live until this function returns.
            _ => unsafe { std::slice::from_raw_parts(pairs, count) },
        };
        let mut addresses = vec![0; positions.len()];
        for pair in pairs {
            if let Some(&position) = positions.get(&(pair.Name as usize)) {
                addresses[position] = pair.Sym.Address as usize;
            }
        }
        match addresses.contains(&0) {
            true => Err(Error::new("a function is missing")),
            false => Ok(addresses),
        }
    });
    // Nobody waits any more if the receiver is gone.
    let _ = result.send(addresses);
}

fn symbol_pair(name: LLVMOrcSymbolStringPoolEntryRef, address: usize) -> LLVMOrcCSymbolMapPair {
    use LLVMJITSymbolGenericFlags::{LLVMJITSymbolGenericFlagsCallable, LLVMJITSymbolGenericFlagsExported};
    let flags = LLVMJITSymbolGenericFlagsExported as u8 | LLVMJITSymbolGenericFlagsCallable as u8;
    LLVMOrcCSymbolMapPair {
        Name: name,
        Sym: LLVMJITEvaluatedSymbol {
            Address: address as u64,
            Flags: LLVMJITSymbolFlags { GenericFlags: flags, TargetFlags: 0 },
        },
    }
}

fn c_string(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(format!("the symbol {name:?} has a zero byte")))
}

extern "C" fn report(_: *mut c_void, error: LLVMErrorRef) {
    // SAFETY: the session hands over an error that nobody else reads.
    if let Err(error) = unsafe { check(error) } {
        REPORTS.lock().unwrap_or_else(PoisonError::into_inner).push(error.0);
    }
}

/// # Safety
/// `error` is null or an error that nobody has consumed.
unsafe fn check(error: LLVMErrorRef) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: by the contract; the message is a C string that is ours until it is disposed of.
    unsafe {
        let message = LLVMGetErrorMessage(error);
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        LLVMDisposeErrorMessage(message);
        Err(Error(text))
    }
}
