//! Settings of the session.

use clap::ValueEnum;
use quearn::rewrite::RewriteOptions;
use quearn::{BackendKind, Session, SessionBuilder};
use quearn_models::Result;
use quearn_models::weights::Weights;

/// The name by which build sides are told to show all their rows to models.
pub const STOP_AT_MATCH: &str = "stop_at_match";

/// Where programs run.
#[derive(clap::Args)]
pub struct Machine {
    /// Worker threads; one for each processor by default.
    #[arg(long)]
    pub threads: Option<usize>,
    /// What runs the compiled programs.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// A rewrite, or `stop_at_match`, that is left out, by name; may be given several times.
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
        Ok(self.builder(threads).rewrites(rewrites).build()?)
    }

    fn builder(self, threads: usize) -> SessionBuilder {
        let backend = match self {
            Backend::Auto => BackendKind::Auto,
            Backend::Llvm => BackendKind::Llvm,
            Backend::Interp => BackendKind::Interp,
        };
        Session::builder().threads(threads).backend(backend)
    }
}

impl Machine {
    /// A session without tables and weights.
    pub fn session(&self) -> Result<Session> {
        self.session_without(None)
    }

    /// The same without a further rewrite, or [`STOP_AT_MATCH`].
    pub fn session_without(&self, rule: Option<&str>) -> Result<Session> {
        let left_out = self.without.iter().map(String::as_str).chain(rule);
        let (stops, rules): (Vec<&str>, Vec<&str>) = left_out.partition(|name| *name == STOP_AT_MATCH);
        let rewrites = rules.into_iter().try_fold(RewriteOptions::default(), RewriteOptions::without);
        let builder = self.backend.builder(self.threads.unwrap_or(0)).stop_at_match(stops.is_empty());
        Ok(builder.rewrites(rewrites.map_err(quearn::Error::from)?).build()?)
    }

    /// A session with weights.
    pub fn session_with(&self, weights: Weights) -> Result<Session> {
        let mut session = self.session()?;
        weights.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
        Ok(session)
    }
}
