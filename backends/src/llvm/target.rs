//! The host as LLVM's target, what the optimisation levels mean, and the only place that knows LLVM's versions.

use super::error::{Error, Result};
use crate::{BackendError, OptLevel, Target as MadeFor};
use inkwell::OptimizationLevel;
use inkwell::targets::{CodeModel, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What LLVM knows about the processor that we run on.
struct Host {
    triple: String,
    cpu: String,
    features: String,
}

static HOST: LazyLock<std::result::Result<Host, String>> = LazyLock::new(|| {
    Target::initialize_native(&InitializationConfig::default())?;
    set_options();
    Ok(Host {
        triple: TargetMachine::get_default_triple().as_str().to_string_lossy().into_owned(),
        cpu: TargetMachine::get_host_cpu_name().to_string(),
        features: TargetMachine::get_host_cpu_features().to_string(),
    })
});

/// Settings that LLVM keeps for the whole process and offers as command-line options only.
fn set_options() {
    let arguments = [
        c"quearn",
        // Loop strength reduction takes a sixth of code generation. Our loops step by one and use x86's scaled addresses,
        // in which it finds nothing to gain.
        c"-disable-lsr",
        // A twelfth: instructions stand where they are needed already, and the processor orders them by itself. All TPC-H
        // queries together are 3 % faster without, convolutions as fast.
        c"-disable-machine-sink",
        c"-enable-misched=0",
        c"-enable-post-misched=0",
    ]
    .map(std::ffi::CStr::as_ptr);
    let count = arguments.len() as i32;
    // SAFETY: these are C strings that live for ever; LLVM copies what it keeps. Called once, before any compilation.
    unsafe {
        inkwell::llvm_sys::support::LLVMParseCommandLineOptions(count, arguments.as_ptr(), std::ptr::null());
    }
}

fn host() -> Result<&'static Host> {
    HOST.as_ref().map_err(|message| Error::new(message.clone()))
}

/// What code is compiled by and for here.
pub(super) fn target() -> Result<MadeFor> {
    let host = host()?;
    let features = host.features.split(',').filter_map(|f| f.strip_prefix('+')).map(str::to_owned);
    Ok(MadeFor {
        compiler: compiler(),
        triple: host.triple.clone(),
        cpu: host.cpu.clone(),
        features: features.collect(),
    })
}

fn compiler() -> String {
    let [mut major, mut minor, mut patch] = [0; 3];
    // SAFETY: these are places for the results.
    unsafe { inkwell::llvm_sys::core::LLVMGetVersion(&mut major, &mut minor, &mut patch) };
    format!("LLVM {major}.{minor}.{patch}")
}

/// Can code for `made` run `here`? A processor of another name can run it if it has all that the code needs.
pub(super) fn check(made: &MadeFor, here: &MadeFor) -> std::result::Result<(), BackendError> {
    if made.compiler != here.compiler {
        return Err(BackendError::OtherCompiler { made: made.compiler.clone(), here: here.compiler.clone() });
    }
    if made.triple != here.triple {
        return Err(BackendError::OtherMachine { made: made.triple.clone(), here: here.triple.clone() });
    }
    let missing: Vec<String> = made.features.iter().filter(|f| !here.features.contains(f)).cloned().collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(BackendError::MissingFeatures { made: made.cpu.clone(), here: here.cpu.clone(), missing }),
    }
}

/// Does the host have 512-bit registers, which some processors use only when told to?
pub(super) fn has_avx512() -> bool {
    has_feature("avx512vl")
}

/// Has the host a feature, by LLVM's name?
pub(super) fn has_feature(name: &str) -> bool {
    host().is_ok_and(|h| h.features.split(',').any(|f| f.strip_prefix('+') == Some(name)))
}

/// Has the host products of small integers in vectors of 128 and 256 bits?
pub(super) fn has_vnni() -> bool {
    has_feature("avxvnni") || has_feature("avx512vnni") && has_avx512()
}

/// Are the lanes of a vector packed best by [`COMPRESS`] and a masked store? A processor may take over a hundred
/// cycles to compress into memory directly (Zen 4); LLVM 19 has no good code for the intrinsic.
pub(super) fn compresses_in_register() -> bool {
    cfg!(feature = "llvm") && has_avx512()
}

/// The intrinsic behind [`compresses_in_register`].
pub(super) const COMPRESS: &str = "llvm.experimental.vector.compress";

/// A machine of LLVM's, for one compilation at a time. Making one takes as long as compiling a small function, so that it
/// goes back to [`IDLE`] afterwards.
pub(super) struct Machine {
    level: OptLevel,
    machine: Option<TargetMachine>,
}

/// A machine that nobody uses.
struct Idle(OptLevel, TargetMachine);

// SAFETY: a target machine belongs to no thread and to no context.
unsafe impl Send for Idle {}

static IDLE: Mutex<Vec<Idle>> = Mutex::new(vec![]);

fn idle() -> MutexGuard<'static, Vec<Idle>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for Machine {
    type Target = TargetMachine;

    fn deref(&self) -> &TargetMachine {
        self.machine.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        idle().extend(self.machine.take().map(|machine| Idle(self.level, machine)));
    }
}

/// A machine of a level.
pub(super) fn machine(level: OptLevel) -> Result<Machine> {
    let found = {
        let mut idle = idle();
        let at = idle.iter().position(|i| i.0 == level);
        at.map(|at| idle.swap_remove(at).1)
    };
    let machine = found.map_or_else(|| make_machine(level), Ok)?;
    Ok(Machine { level, machine: Some(machine) })
}

fn make_machine(level: OptLevel) -> Result<TargetMachine> {
    let host = host()?;
    let triple = TargetTriple::create(&host.triple);
    let target = Target::from_triple(&triple)?;
    let effort = codegen_level(level);
    target
        .create_target_machine(&triple, &host.cpu, &host.features, effort, RelocMode::PIC, CodeModel::Small)
        .ok_or_else(|| Error::new(format!("no target machine for {} ({})", host.triple, host.cpu)))
}

fn codegen_level(level: OptLevel) -> OptimizationLevel {
    match level {
        OptLevel::None => OptimizationLevel::None,
        OptLevel::Default => OptimizationLevel::Default,
        OptLevel::Aggressive => OptimizationLevel::Aggressive,
    }
}

/// The passes of a level, if any. Loops come rotated and values in SSA from the translation.
pub(super) fn passes(level: OptLevel) -> Option<&'static str> {
    match level {
        OptLevel::None => None,
        // By default `instcombine` ends the process when it could have gone on.
        OptLevel::Default => {
            Some("function(sroa,early-cse<memssa>,loop-mssa(licm),instcombine<no-verify-fixpoint>,simplifycfg)")
        }
        OptLevel::Aggressive => Some("default<O3>"),
    }
}
