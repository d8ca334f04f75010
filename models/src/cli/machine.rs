//! Settings of the session.

use clap::ValueEnum;
use quearn::{BackendKind, Session};
use quearn_models::Result;
use quearn_models::weights::Weights;

/// Where programs run.
#[derive(clap::Args)]
pub struct Machine {
    /// Worker threads; one for each processor by default.
    #[arg(long)]
    pub threads: Option<usize>,
    /// What runs the compiled programs.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
}

/// What runs programs.
#[derive(Clone, Copy, ValueEnum, Default)]
pub enum Backend {
    /// LLVM if it was built in, else the interpreter.
    #[default]
    Auto,
    /// Machine code made by LLVM.
    Llvm,
    /// The interpreter: slow, for checking.
    Interp,
}

impl Backend {
    /// A session without tables and weights; 0 threads are one for each processor.
    pub fn session(self, threads: usize) -> Result<Session> {
        let backend = match self {
            Backend::Auto => BackendKind::Auto,
            Backend::Llvm => BackendKind::Llvm,
            Backend::Interp => BackendKind::Interp,
        };
        Ok(Session::builder().threads(threads).backend(backend).build()?)
    }
}

impl Machine {
    /// A session without tables and weights.
    pub fn session(&self) -> Result<Session> {
        self.backend.session(self.threads.unwrap_or(0))
    }

    /// A session with weights.
    pub fn session_with(&self, weights: Weights) -> Result<Session> {
        let mut session = self.session()?;
        weights.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
        Ok(session)
    }
}
