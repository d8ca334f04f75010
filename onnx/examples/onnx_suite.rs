//! Runs the cases of the ONNX backend test suite from a folder of files, prints what passes for every operator, and
//! compares with the list of cases that passed before.
//!
//! `onnx_suite FOLDER [--only TEXT] [--passing FILE [--update]] [--table FILE]`; see `scripts/onnx-suite`.

use clap::Parser;
use prost::Message;
use quearn::data::Tensor;
use quearn::{Session, Tensors};
use quearn_onnx::proto::{ModelProto, TensorProto, ValueInfoProto, type_proto};
use quearn_onnx::tensor::{self, Number, Texts};
use quearn_onnx::{FAMILIES, FOLDED, Options, decode, import};
use quearn_stage::graph::Scalar;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Arguments {
    /// Where `node`, `simple`, `pytorch-operator`, `pytorch-converted` and `light` are.
    folder: PathBuf,
    /// Run only cases whose name contains this text, and show why they fail.
    #[arg(long)]
    only: Option<String>,
    /// The list of cases that must pass.
    #[arg(long)]
    passing: Option<PathBuf>,
    /// Add cases that pass to that list.
    #[arg(long, requires = "passing")]
    update: bool,
    /// Write the tables of operators and cases into this Markdown file, between its marks.
    #[arg(long)]
    table: Option<PathBuf>,
    /// Write the reason of every failure to this file.
    #[arg(long)]
    reasons: Option<PathBuf>,
}

type Failure = Box<dyn std::error::Error>;

/// A case: its kind and name, and what it was.
struct Outcome {
    kind: &'static str,
    name: String,
    operator: String,
    result: Result<(), String>,
}

const KINDS: [&str; 4] = ["node", "simple", "pytorch-operator", "pytorch-converted"];

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only));
    let index: serde_json::Value = serde_json::from_slice(&fs::read(arguments.folder.join("index.json"))?)?;
    std::panic::set_hook(Box::new(|_| {}));
    let mut outcomes = vec![];
    for kind in KINDS {
        for folder in sorted(&arguments.folder.join(kind))? {
            let name = file_name(&folder);
            if wanted(&name) {
                let tolerance = |key: &str| index[format!("{kind}/{name}")][key].as_f64();
                let tolerances = [tolerance("rtol").unwrap_or(1e-3), tolerance("atol").unwrap_or(1e-7)];
                let expanded = kind == "node" && name.contains("_expanded");
                let kind = if expanded { "node, expanded" } else { kind };
                outcomes
                    .push(outcome(kind, name, &folder.join("model.onnx"), |model| case(model, &folder, tolerances)));
            }
        }
    }
    for path in sorted(&arguments.folder.join("light"))? {
        let name = file_name(&path);
        if let Some(stem) = name.strip_suffix(".onnx").filter(|stem| wanted(stem)) {
            let expected = arguments.folder.join("light").join(format!("{stem}_output_0.pb"));
            outcomes.push(outcome("light", stem.to_owned(), &path, |model| light(model, &expected)));
        }
    }
    if let Some(path) = &arguments.reasons {
        let failed =
            outcomes.iter().filter_map(|o| Some(format!("{}\t{}\t{}", o.name, o.operator, o.result.as_ref().err()?)));
        fs::write(path, failed.collect::<Vec<_>>().join("\n"))?;
    }
    if arguments.only.is_some() {
        for o in &outcomes {
            println!("{}: {}", o.name, o.result.as_ref().err().map_or("passes", String::as_str));
        }
        return Ok(());
    }
    let tables = tables(&outcomes);
    print!("{tables}");
    if let Some(path) = &arguments.table {
        let text = fs::read_to_string(path)?;
        let (before, rest) = text.split_once(BEGIN).ok_or("the file has no mark for the tables")?;
        let (_, after) = rest.split_once(END).ok_or("the file has no mark behind the tables")?;
        fs::write(path, format!("{before}{BEGIN}\n{tables}{END}{after}"))?;
    }
    match &arguments.passing {
        Some(path) => ratchet(path, &outcomes, arguments.update),
        None => Ok(()),
    }
}

const BEGIN: &str = "<!-- begin: written by scripts/onnx-suite -->";
const END: &str = "<!-- end -->";

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths = paths.by_ref().map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn outcome(kind: &'static str, name: String, path: &Path, run: impl Fn(&ModelProto) -> Result<(), String>) -> Outcome {
    let model = fs::read(path).map_err(|e| e.to_string()).and_then(|b| decode(&b).map_err(|e| e.to_string()));
    let operators: BTreeSet<String> = match &model {
        Ok(model) => model.graph.iter().flat_map(|g| &g.node).map(quearn_onnx::name).collect(),
        Err(_) => BTreeSet::new(),
    };
    let operator = if operators.len() == 1 { operators.into_iter().next() } else { None };
    let result = model
        .and_then(|model| catch_unwind(AssertUnwindSafe(|| run(&model))).unwrap_or_else(|_| Err("PANIC".to_owned())));
    Outcome { kind, name, operator: operator.unwrap_or_default(), result }
}

fn decoded<M: Message + Default>(path: &Path) -> Result<M, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    M::decode(bytes.as_slice()).map_err(|e| e.to_string())
}

/// A list of values in a file of the suite; of what it may hold, tensors and lists of tensors.
#[derive(Clone, PartialEq, Message)]
struct ListProto {
    #[prost(message, repeated, tag = "3")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "5")]
    lists: Vec<ListProto>,
}

/// A value that may be missing.
#[derive(Clone, PartialEq, Message)]
struct OptionalProto {
    #[prost(message, optional, tag = "3")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "5")]
    list: Option<ListProto>,
}

/// The tensors and texts of a case by name; those of a list `s` are `s.0`, `s.1` and so on.
#[derive(Default)]
struct Data {
    tensors: BTreeMap<String, Tensor>,
    texts: BTreeMap<String, Texts>,
}

impl Data {
    fn add(&mut self, name: &str, proto: &TensorProto) -> Result<(), String> {
        match tensor::read_texts(proto).map_err(|e| e.to_string())? {
            Some(texts) => drop(self.texts.insert(name.to_owned(), texts)),
            None => {
                let tensor = tensor::read(proto, None).map_err(|e| e.to_string())?;
                self.tensors.insert(name.to_owned(), tensor);
            }
        }
        Ok(())
    }

    fn add_list(&mut self, name: &str, list: &ListProto) -> Result<(), String> {
        if !list.lists.is_empty() {
            return Err("lists of lists are not supported".into());
        }
        list.tensors.iter().enumerate().try_for_each(|(i, tensor)| self.add(&format!("{name}.{i}"), tensor))
    }

    /// Adds what a file holds, which is of the type of a port.
    fn read(&mut self, port: &ValueInfoProto, path: &Path) -> Result<(), String> {
        let name = port.name();
        match port.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(type_proto::Value::SequenceType(_)) => self.add_list(name, &decoded(path)?),
            Some(type_proto::Value::OptionalType(_)) => {
                let OptionalProto { tensor, list } = decoded(path)?;
                tensor.map_or(Ok(()), |tensor| self.add(name, &tensor))?;
                list.map_or(Ok(()), |list| self.add_list(name, &list))
            }
            _ => self.add(name, &decoded(path)?),
        }
    }
}

fn case(model: &ModelProto, folder: &Path, tolerances: [f64; 2]) -> Result<(), String> {
    let graph = model.graph.as_ref().ok_or("no graph")?;
    let weights: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let ports: Vec<&ValueInfoProto> = graph.input.iter().filter(|p| !weights.contains(p.name())).collect();
    let sets = sorted(folder).map_err(|e| e.to_string())?;
    for set in sets.iter().filter(|p| file_name(p).starts_with("test_data_set")) {
        let (mut inputs, mut expected) = (Data::default(), Data::default());
        for (i, port) in ports.iter().enumerate() {
            inputs.read(port, &set.join(format!("input_{i}.pb")))?;
        }
        for (i, port) in graph.output.iter().enumerate() {
            expected.read(port, &set.join(format!("output_{i}.pb")))?;
        }
        let found = run(model, Some(folder), inputs)?;
        if found.texts != expected.texts {
            return Err(format!("WRONG: {:?}, expected {:?}", found.texts, expected.texts));
        }
        if let Some(name) = found.tensors.keys().find(|name| !expected.tensors.contains_key(*name)) {
            return Err(format!("WRONG: there is an output {name}"));
        }
        for (name, expected) in &expected.tensors {
            compare(name, found.tensors.get(name), expected, tolerances)?;
        }
    }
    Ok(())
}

/// Models without weights to speak of, on numbers that count up to 1.
fn light(model: &ModelProto, expected: &Path) -> Result<(), String> {
    let shapes = import(model, None, &Options::default()).map_err(|e| e.to_string())?;
    let mut inputs = Data::default();
    for port in &shapes.inputs {
        let shape: Vec<u64> = port.shape.iter().map(|d| d.as_const().unwrap_or(1)).collect();
        let count: u64 = shape.iter().product();
        let values = (0..count).map(|i| (i as f64 / count as f64) as f32).collect();
        let tensor = Tensor::from_vec::<f32>(values, &shape).map_err(|e| e.to_string())?;
        inputs.tensors.insert(port.name.clone(), tensor);
    }
    let found = run(model, None, inputs)?;
    let (name, found) = found.tensors.iter().next().ok_or("no output")?;
    let expected = tensor::read(&decoded(expected)?, None).map_err(|e| e.to_string())?;
    compare(name, Some(found), &expected, [1e-3, 1e-7])
}

fn run(model: &ModelProto, folder: Option<&Path>, Data { tensors, texts }: Data) -> Result<Data, String> {
    let shapes = tensors.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
    let values = tensors.clone();
    let options = Options { shapes, values, texts, ..Options::default() };
    let model = import(model, folder, &options).map_err(|e| e.to_string())?;
    let texts = model.texts.clone();
    if model.graph.outputs().is_empty() {
        return Ok(Data { tensors: model.empty, texts });
    }
    let mut session = Session::builder().threads(1).build().map_err(|e| e.to_string())?;
    model.load(&mut session);
    let program = session.compile(&model.graph).map_err(|e| e.to_string())?;
    let inputs: Tensors = tensors.into_iter().filter(|(name, _)| model.reads(name)).collect();
    let outputs = program.run_with(&session, &inputs).map_err(|e| e.to_string())?;
    Ok(Data { tensors: model.results(&outputs).map_err(|e| e.to_string())?, texts })
}

fn compare(name: &str, found: Option<&Tensor>, expected: &Tensor, [rtol, atol]: [f64; 2]) -> Result<(), String> {
    let found = found.ok_or_else(|| format!("WRONG: no output {name}"))?;
    if (found.scalar(), found.shape()) != (expected.scalar(), expected.shape()) {
        let shown = |t: &Tensor| format!("{}{:?}", t.scalar(), t.shape());
        return Err(format!("WRONG: {name} is {}, expected {}", shown(found), shown(expected)));
    }
    let rtol = if expected.scalar() == Scalar::BF16 { rtol.max(1.0 / 64.0) } else { rtol };
    for (i, (a, b)) in tensor::numbers(found).iter().zip(tensor::numbers(expected)).enumerate() {
        let same = match (a, &b) {
            (Number::Float(a), Number::Float(b)) => {
                a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= atol + rtol * b.abs()
            }
            (a, b) => a == b,
        };
        if !same {
            return Err(format!("WRONG: {name} has {a:?} at {i}, expected {b:?}"));
        }
    }
    Ok(())
}

fn tables(outcomes: &[Outcome]) -> String {
    let mut text = "| kind | pass | cases |\n|---|---|---|\n".to_owned();
    for kind in ["node", "node, expanded", "simple", "pytorch-operator", "pytorch-converted", "light"] {
        let all: Vec<&Outcome> = outcomes.iter().filter(|o| o.kind == kind).collect();
        let passed = all.iter().filter(|o| o.result.is_ok()).count();
        let _ = writeln!(text, "| {kind} | {passed} | {} |", all.len());
    }
    let count = |name: &str| {
        let all: Vec<&Outcome> = outcomes.iter().filter(|o| o.kind == "node" && o.operator == name).collect();
        (all.iter().filter(|o| o.result.is_ok()).count(), all.len())
    };
    text += "\n| operators | with the node cases that pass |\n|---|---|\n";
    let shown = |name: &str| match count(name) {
        (_, 0) => name.to_owned(),
        (passed, all) => format!("{name} {passed}/{all}"),
    };
    for family in FAMILIES {
        let _ = writeln!(text, "| {} | {} |", family.title, family.names().map(shown).collect::<Vec<_>>().join(", "));
    }
    let _ = writeln!(text, "| Known at import | {} |", FOLDED.iter().map(|n| shown(n)).collect::<Vec<_>>().join(", "));
    let known: BTreeSet<&str> = FAMILIES.iter().flat_map(|f| f.names()).chain(FOLDED.iter().copied()).collect();
    let missing: BTreeSet<&str> =
        outcomes.iter().map(|o| o.operator.as_str()).filter(|o| !o.is_empty() && !known.contains(o)).collect();
    let _ = writeln!(text, "\nNot supported: {}.", missing.iter().map(|n| shown(n)).collect::<Vec<_>>().join(", "));
    text + &failures(outcomes)
}

/// Operators with the errors that their cases give, and how often.
fn failures(outcomes: &[Outcome]) -> String {
    let mut errors: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for outcome in outcomes {
        if let Err(error) = &outcome.result {
            let operator = if outcome.operator.is_empty() { "(expanded)" } else { &outcome.operator };
            *errors.entry(operator).or_default().entry(generic(error)).or_default() += 1;
        }
    }
    let mut text = "\n| operator | errors of the cases that do not pass |\n|---|---|\n".to_owned();
    for (operator, errors) in errors {
        let shown = |(error, count): (&String, &usize)| format!("{error} ({count})");
        let _ = writeln!(text, "| {operator} | {} |", errors.iter().map(shown).collect::<Vec<_>>().join("; "));
    }
    text
}

/// An error without the names of the case: what stands in quotes, and the node.
fn generic(error: &str) -> String {
    let mut text: String = error.split('"').step_by(2).collect::<Vec<_>>().join("_").replace('|', " ");
    if let Some(rest) = text.strip_prefix("node _ (") {
        text = rest.replacen("): ", ": ", 1);
    }
    text.trim_start_matches("tensor _: ").to_owned()
}

/// Cases that passed must pass again.
fn ratchet(path: &Path, outcomes: &[Outcome], update: bool) -> Result<(), Failure> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let before: BTreeSet<&str> = text.lines().filter(|l| !l.is_empty()).collect();
    let now: BTreeSet<&str> = outcomes.iter().filter(|o| o.result.is_ok()).map(|o| o.name.as_str()).collect();
    let lost: Vec<&&str> = before.difference(&now).collect();
    for name in &lost {
        let why = outcomes.iter().find(|o| o.name == ***name).and_then(|o| o.result.as_ref().err());
        println!("no longer passes: {name}: {}", why.map_or("there is no such case", String::as_str));
    }
    if update {
        let all: BTreeSet<&str> = before.union(&now).copied().collect();
        fs::write(path, all.into_iter().map(|n| format!("{n}\n")).collect::<String>())?;
    }
    if lost.is_empty() { Ok(()) } else { Err(format!("{} cases no longer pass", lost.len()).into()) }
}
