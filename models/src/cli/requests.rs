//! `requests`: how long programs take that answer for one key, asked by several threads at once.

use super::machine::Backend;
use super::progress::Bars;
use super::unwritten;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quearn::rewrite::RewriteOptions;
use quearn::{Program, Session};
use quearn_models::pipelines::requests::{REQUESTS, Request};
use quearn_models::{Error, Result};
use quearn_tpch::times::{elapsed_ms, rounded};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `requests`.
#[derive(clap::Args)]
pub struct Requests {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The requests, and what they are.
    List,
    /// Measure the latency of a request.
    Bench(Bench),
}

#[derive(clap::Args)]
struct Bench {
    /// All of them if none is named.
    #[arg(value_parser = request())]
    requests: Vec<&'static Request>,
    /// Scale of the data.
    #[arg(long, default_value = "0.1", value_parser = super::scale)]
    scale: f64,
    /// Threads that ask at once; each program runs on the thread that asks.
    #[arg(long, default_value = "4")]
    threads: NonZeroUsize,
    /// Seconds of asking, after the first second, which is not counted.
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// What runs the compiled programs.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// File for the measurements, a line each.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn request() -> impl TypedValueParser<Value = &'static Request> {
    let names = PossibleValuesParser::new(REQUESTS.iter().map(|request| request.name));
    names.map(|name| Request::find(&name).expect("one of the names"))
}

impl Requests {
    /// Does what the command line says.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::List => {
                let line = |request: &Request| format!("{:10} {}\n", request.name, request.about);
                super::print(REQUESTS.iter().map(line).collect::<String>())
            }
            Command::Bench(bench) => bench.run(),
        }
    }
}

impl Bench {
    fn run(&self) -> Result<()> {
        let all: Vec<&Request> =
            if self.requests.is_empty() { REQUESTS.iter().collect() } else { self.requests.clone() };
        let mut lines = String::new();
        for request in all {
            let report = self.measure(request)?;
            super::print(report.line())?;
            if let Some(path) = &self.json {
                lines += &serde_json::to_string(&report).map_err(|e| unwritten(path, e))?;
                lines.push('\n');
                std::fs::write(path, &lines).map_err(|e| unwritten(path, e))?;
            }
        }
        Ok(())
    }

    fn measure(&self, request: &'static Request) -> Result<Report> {
        let bars = Bars::new();
        let data = request.data(self.scale, &bars.steps())?;
        bars.clear();
        let keys = request.keys(&data);
        let mut session = self.backend.session(1, RewriteOptions::default())?;
        data.bind(&mut session);
        let program = session.compile(&request.graph()?)?;
        let start = Instant::now();
        program.run_with(&session, &request.given(0)?)?;
        let first_ms = rounded(elapsed_ms(start));
        let client = Client { request, keys, session: &session, program: &program };
        let warm = Duration::from_secs(1);
        let end = warm + Duration::from_secs_f64(self.seconds.clamp(0.0, 3600.0));
        let start = Instant::now();
        let times = std::thread::scope(|scope| {
            let ask = |seed| scope.spawn(move || client.ask(seed, start, warm, end));
            let threads: Vec<_> = (0..self.threads.get() as u64).map(ask).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(times) => times,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Result<Vec<_>>>()
        })?;
        let mut times: Vec<u64> = times.into_iter().flatten().collect();
        times.sort_unstable();
        if times.is_empty() {
            return Err(Error::NoExpectation { what: format!("{} in {} s", request.name, self.seconds) });
        }
        let part = |part: f64| rounded(times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e3);
        Ok(Report {
            request: request.name,
            version: env!("CARGO_PKG_VERSION"),
            threads: self.threads.get(),
            scale: self.scale,
            requests: times.len(),
            median_us: part(0.5),
            p90_us: part(0.9),
            p99_us: part(0.99),
            p999_us: part(0.999),
            compile_ms: rounded(program.compile_ms()),
            first_ms,
        })
    }
}

/// A thread that asks.
#[derive(Clone, Copy)]
struct Client<'a> {
    request: &'static Request,
    keys: usize,
    session: &'a Session,
    program: &'a Program,
}

impl Client<'_> {
    /// Asks for one key after the other until the end; nanoseconds of each answer after the warm-up.
    fn ask(&self, seed: u64, start: Instant, warm: Duration, end: Duration) -> Result<Vec<u64>> {
        let mut times = vec![];
        // Weyl's sequence: every key, in no order.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        loop {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let number = ((u128::from(state) * self.keys as u128) >> 64) as usize;
            let began = Instant::now();
            let outputs = self.program.run_with(self.session, &self.request.given(number)?)?;
            let took = began.elapsed();
            drop(outputs);
            let passed = start.elapsed();
            if passed >= end {
                return Ok(times);
            }
            if passed >= warm {
                times.push(took.as_nanos() as u64);
            }
        }
    }
}

/// A measurement.
#[derive(Serialize)]
struct Report {
    request: &'static str,
    version: &'static str,
    threads: usize,
    scale: f64,
    requests: usize,
    median_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    compile_ms: f64,
    /// The first answer: what does not depend on the key is made then.
    first_ms: f64,
}

impl Report {
    fn line(&self) -> String {
        let Report { request, threads, requests, median_us, p90_us, p99_us, p999_us, compile_ms, first_ms, .. } = self;
        format!(
            "{request:10} {threads} threads, {requests} requests: median {median_us:.1} us  p90 {p90_us:.1}  p99 \
             {p99_us:.1}  p99.9 {p999_us:.1}  first {first_ms:.1} ms  compile {compile_ms:.1}\n"
        )
    }
}
