//! Object code in memory: one ORCv2 `LLJIT` for the process, in which each compiled module owns its code through a
//! resource tracker. Most of this backend's `unsafe` is here.

use super::builtins;
use super::error::{Error, Result};
use crate::runtime;
use inkwell::llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use inkwell::llvm_sys::orc2::lljit::*;
use inkwell::llvm_sys::orc2::*;
use inkwell::memory_buffer::MemoryBuffer;
use std::ffi::{CStr, CString, c_void};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A relocatable object.
pub(super) struct Object(pub(super) MemoryBuffer<'static>);

// SAFETY: a memory buffer owns its bytes and belongs to no context.
unsafe impl Send for Object {}

/// The process's linker and loader.
struct Jit {
    lljit: LLVMOrcLLJITRef,
    dylib: LLVMOrcJITDylibRef,
}

// SAFETY: an ORC session locks itself; LLVM allows to add, look up and remove from any thread.
unsafe impl Send for Jit {}
// SAFETY: as above.
unsafe impl Sync for Jit {}

static JIT: LazyLock<std::result::Result<Jit, String>> = LazyLock::new(|| Jit::new().map_err(|e| e.0));

/// What the session reported since it was asked last: the details that the errors of look-ups leave out.
static REPORTS: Mutex<Vec<String>> = Mutex::new(vec![]);

/// Code that is loaded; dropping it frees the code.
pub(super) struct Loaded {
    tracker: LLVMOrcResourceTrackerRef,
    addresses: Vec<usize>,
}

// SAFETY: a tracker belongs to the session, which locks itself.
unsafe impl Send for Loaded {}
// SAFETY: nothing is changed through a shared reference.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Links objects and finds the addresses of `symbols`.
    pub(super) fn new(objects: Vec<Object>, symbols: &[String]) -> Result<Loaded> {
        let jit = JIT.as_ref().map_err(|message| Error::new(message.clone()))?;
        // SAFETY: the library lives as long as the process.
        let tracker = unsafe { LLVMOrcJITDylibCreateResourceTracker(jit.dylib) };
        let mut loaded = Loaded { tracker, addresses: vec![] };
        for object in objects {
            jit.add(tracker, object)?;
        }
        loaded.addresses = symbols.iter().map(|s| jit.address(s)).collect::<Result<_>>()?;
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
            let _ = check(LLVMOrcResourceTrackerRemove(self.tracker));
            LLVMOrcReleaseResourceTracker(self.tracker);
        }
    }
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
            Jit { lljit, dylib: LLVMOrcLLJITGetMainJITDylib(lljit) }
        };
        jit.define_symbols()?;
        jit.search_process()?;
        Ok(jit)
    }

    /// Makes the runtime's functions known by name.
    fn define_symbols(&self) -> Result<()> {
        let runtime = runtime::symbols().iter().map(|s| (s.name, s.address));
        let mut pairs = Vec::new();
        for (name, address) in runtime.chain(builtins::symbols()) {
            let name = c_string(name)?;
            // SAFETY: `name` is a C string; the interned name is owned by the pair.
            let interned = unsafe { LLVMOrcLLJITMangleAndIntern(self.lljit, name.as_ptr()) };
            pairs.push(symbol_pair(interned, address));
        }
        // SAFETY: the unit takes over the names and copies the pairs; the library takes over the unit.
        unsafe {
            let unit = LLVMOrcAbsoluteSymbols(pairs.as_mut_ptr(), pairs.len());
            check(LLVMOrcJITDylibDefine(self.dylib, unit))
        }
    }

    /// Lets code call what the process has loaded: the mathematical functions of the C library.
    fn search_process(&self) -> Result<()> {
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
            LLVMOrcJITDylibAddGenerator(self.dylib, generator);
        }
        Ok(())
    }

    fn add(&self, tracker: LLVMOrcResourceTrackerRef, object: Object) -> Result<()> {
        let buffer = object.0.as_mut_ptr();
        std::mem::forget(object);
        // SAFETY: the session takes over the buffer, which we have forgotten; the tracker is alive.
        unsafe { check(LLVMOrcLLJITAddObjectFileWithRT(self.lljit, tracker, buffer)) }
    }

    fn address(&self, symbol: &str) -> Result<usize> {
        let name = c_string(symbol)?;
        let mut address = 0;
        // SAFETY: `name` is a C string and `address` a place for the result.
        let found = unsafe { check(LLVMOrcLLJITLookup(self.lljit, &mut address, name.as_ptr())) };
        let reports = std::mem::take(&mut *REPORTS.lock().unwrap_or_else(PoisonError::into_inner));
        match found {
            Ok(()) => Ok(address as usize),
            Err(error) => Err(Error::new(format!("{}: {}", error.0, reports.join("; ")))),
        }
    }
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
