//! Settings of the session.

use clap::ValueEnum;
use quearn::rewrite::RewriteOptions;
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
    /// A rewrite that is left out, by name; may be given several times.
    #[arg(long, value_name = "RULE")]
    pub without: Vec<String>,
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
    pub fn session(self, threads: usize, rewrites: RewriteOptions) -> Result<Session> {
        let backend = match self {
            Backend::Auto => BackendKind::Auto,
            Backend::Llvm => BackendKind::Llvm,
            Backend::Interp => BackendKind::Interp,
        };
        Ok(Session::builder().threads(threads).backend(backend).rewrites(rewrites).build()?)
    }
}

impl Machine {
    /// A session without tables and weights.
    pub fn session(&self) -> Result<Session> {
        self.session_without(None)
    }

    /// The same without a further rewrite.
    pub fn session_without(&self, rule: Option<&str>) -> Result<Session> {
        let mut left_out = self.without.iter().map(String::as_str).chain(rule);
        let rewrites = left_out.try_fold(RewriteOptions::default(), RewriteOptions::without);
        self.backend.session(self.threads.unwrap_or(0), rewrites.map_err(quearn::Error::from)?)
    }

    /// A session with weights.
    pub fn session_with(&self, weights: Weights) -> Result<Session> {
        let mut session = self.session()?;
        weights.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
        Ok(session)
    }
}
