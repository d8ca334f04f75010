//! The command line.

use clap::{Parser, Subcommand};
use quearn::data::Tensor;
use quearn::io::{read_safetensors, write_safetensors};
use quearn::{Level, Outputs, Program, Session, Tensors};
use quearn_onnx::{Model, Options};
use quearn_stage::graph::Dim;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Programs over tables and tensors, compiled.
#[derive(Parser)]
#[command(name = "quearn", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run, measure or explain an ONNX model.
    Onnx(Onnx),
}

/// `onnx`.
#[derive(clap::Args)]
struct Onnx {
    /// The model.
    model: PathBuf,
    /// Safetensors file with its inputs, by name.
    #[arg(long)]
    inputs: Option<PathBuf>,
    /// Safetensors file that its outputs are written to, by name.
    #[arg(long, requires = "inputs")]
    outputs: Option<PathBuf>,
    /// Timed runs, after the first.
    #[arg(long, value_name = "RUNS", requires = "inputs")]
    bench: Option<usize>,
    /// File that the measurements are appended to, as one line of JSON.
    #[arg(long, requires = "bench")]
    json: Option<PathBuf>,
    /// File that the compiled program is saved to, without its weights.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["load", "explain"])]
    save: Option<PathBuf>,
    /// File with the program, saved before, in place of compiling it.
    #[arg(long, value_name = "FILE", conflicts_with = "explain", requires = "inputs")]
    load: Option<PathBuf>,
    /// Print the program at a level of the compiler instead of running it.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    explain: Option<Level>,
    /// Workers; by default one for each processor.
    #[arg(long, default_value = "0")]
    threads: usize,
    /// The extent of a named dimension, `batch=4`; may be given several times.
    #[arg(long = "dim", value_name = "NAME=EXTENT", value_parser = dim)]
    dims: Vec<(String, u64)>,
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|e: quearn::Error| e.to_string())
}

fn dim(text: &str) -> Result<(String, u64), String> {
    let parsed = text.split_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    parsed.filter(|(_, n)| *n > 0).ok_or_else(|| "expected NAME=EXTENT".to_owned())
}

/// What a command fails with.
type Failure = Box<dyn std::error::Error>;

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Onnx(command) => command.run(),
        }
    }
}

impl Onnx {
    fn run(self) -> Result<(), Failure> {
        let given = match &self.inputs {
            Some(path) => read_safetensors(path)?.0,
            None => BTreeMap::new(),
        };
        let start = Instant::now();
        let model = self.read(&given)?;
        let mut session = Session::builder().threads(self.threads).build()?;
        model.load(&mut session);
        let load_ms = milliseconds(start);
        if let Some(level) = self.explain {
            return print(&session.explain(&model.graph, level)?);
        }
        let (program, program_load_ms) = match (&self.inputs, &self.save) {
            (None, None) => return print(&described(&model)),
            (None, Some(_)) => return self.program(&session, &model).map(drop),
            _ => self.program(&session, &model)?,
        };
        let inputs = inputs(&model, &given)?;
        let start = Instant::now();
        let outputs = program.run_with(&session, &inputs)?;
        let first_ms = milliseconds(start);
        if let Some(path) = &self.outputs {
            let results = model.results(&outputs)?;
            write_safetensors(path, results.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
        }
        match self.bench {
            Some(runs) => {
                let times = Times { load_ms, program_load_ms, first_ms };
                self.measure(&session, &program, &inputs, runs, times)
            }
            None if self.outputs.is_none() => print(&shown(&outputs)),
            None => Ok(()),
        }
    }

    /// The program, compiled or loaded, and saved if that is asked for; how long loading it takes if there is a file.
    fn program(&self, session: &Session, model: &Model) -> Result<(Program, Option<f64>), Failure> {
        let load = |path| session.load_for(&model.graph, path);
        if let Some(path) = &self.load {
            let program = load(path)?;
            let ms = program.load_ms();
            return Ok((program, ms));
        }
        let program = session.compile(&model.graph)?;
        let Some(path) = &self.save else { return Ok((program, None)) };
        program.save(path)?;
        let ms = load(path)?.load_ms();
        // Standard output is for results, and there may be nobody to read this.
        let (compile_ms, load_ms) = (program.compile_ms(), ms.unwrap_or_default());
        let _ = writeln!(stderr(), "compiled in {compile_ms:.1} ms, saved, loads in {load_ms:.1} ms");
        Ok((program, ms))
    }

    /// The model; where one dimension leads all others its extent stays open, others are those of the inputs.
    fn read(&self, given: &BTreeMap<String, Tensor>) -> Result<Model, Failure> {
        let dims: BTreeMap<String, u64> = self.dims.iter().cloned().collect();
        let options = Options { dims, values: given.clone(), ..Options::default() };
        let open = quearn_onnx::read(&self.model, &options);
        let leads = |model: &Model| {
            model.inputs.iter().all(|port| port.shape.iter().skip(1).all(|dim| matches!(dim, Dim::Const(_))))
        };
        match open {
            Ok(model) if leads(&model) => Ok(model),
            Err(error) if given.is_empty() => Err(error.into()),
            Ok(model) if given.is_empty() => Ok(model),
            _ => {
                let shapes = given.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
                Ok(quearn_onnx::read(&self.model, &Options { shapes, ..options })?)
            }
        }
    }

    fn measure(
        &self,
        session: &Session,
        program: &Program,
        inputs: &Tensors,
        runs: usize,
        before: Times,
    ) -> Result<(), Failure> {
        let mut times = vec![];
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            program.run_with(session, inputs)?;
            times.push(milliseconds(start));
        }
        times.sort_by(f64::total_cmp);
        let report = Report {
            kind: "inference",
            engine: "quearn",
            version: env!("CARGO_PKG_VERSION"),
            model: self.model.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
            threads: session.options().threads,
            runs: times.len(),
            median_ms: times[times.len() / 2],
            min_ms: times[0],
            max_ms: times[times.len() - 1],
            load_s: before.load_ms / 1e3,
            compile_ms: program.compile_ms(),
            program_load_ms: before.program_load_ms,
            first_call_s: before.first_ms / 1e3,
        };
        let line = serde_json::to_string(&report)? + "\n";
        if let Some(path) = &self.json {
            let fail = |e: std::io::Error| format!("{}: {e}", path.display());
            let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
            file.write_all(line.as_bytes()).map_err(fail)?;
        }
        print(&line)
    }
}

/// Times before the measured runs.
struct Times {
    /// Reading the model and its weights.
    load_ms: f64,
    /// Loading the compiled program.
    program_load_ms: Option<f64>,
    /// The first run.
    first_ms: f64,
}

/// A measurement, with the names that the measurements of other engines have.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    engine: &'static str,
    version: &'static str,
    model: String,
    threads: usize,
    runs: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    load_s: f64,
    /// For a program that was loaded, what that took before it was saved.
    compile_ms: f64,
    program_load_ms: Option<f64>,
    first_call_s: f64,
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The inputs that the program reads; files of reference data name them `in.NAME`.
fn inputs(model: &Model, given: &BTreeMap<String, Tensor>) -> Result<Tensors, Failure> {
    let mut inputs = Tensors::new();
    for port in &model.inputs {
        let named = given.get(&port.name).or_else(|| given.get(&format!("in.{}", port.name)));
        match named {
            Some(tensor) => {
                inputs.insert(port.name.clone(), tensor.clone());
            }
            None if model.reads(&port.name) => {
                let known: Vec<&str> = given.keys().map(String::as_str).collect();
                return Err(format!("there is no input {:?}, only {}", port.name, known.join(", ")).into());
            }
            None => {}
        }
    }
    Ok(inputs)
}

fn described(model: &Model) -> String {
    let mut text = String::new();
    for (what, ports) in [("input", &model.inputs), ("output", &model.outputs)] {
        for port in ports {
            let dims: Vec<String> = port.shape.iter().map(Dim::to_string).collect();
            text += &format!("{what} {}: [{}] {}\n", port.name, dims.join(", "), port.scalar);
        }
    }
    text + &format!("{} weights, {} nodes\n", model.weights.len(), model.graph.reachable().len())
}

fn shown(outputs: &Outputs) -> String {
    outputs.to_string()
}

/// Prints a text. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritten(Path::new("standard output"), &error)),
        _ => Ok(()),
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    format!("{}: {error}", path.display()).into()
}
