//! `demo`: every program there is, checked, in one table.

use super::machine::{Backend, Machine};
use super::measure::{Measured, Runs, measure};
use super::network::Case;
use super::pipelines;
use super::progress::Bars;
use super::table::{self, Row, Verdict};
use quearn::rewrite::rewrite;
use quearn::{Outputs, Session};
use quearn_models::networks::Network;
use quearn_models::pipelines::{PIPELINES, Results};
use quearn_models::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_tpch::times::elapsed_ms;
use quearn_tpch::{answers, catalog, generate, queries};
use std::num::NonZeroUsize;
use std::time::Instant;

/// `demo`.
#[derive(clap::Args)]
pub struct Demo {
    /// Scale factor of the tables, and scale of the pictures; answers are known for 0.01 and 1.
    #[arg(long, default_value = "1", value_parser = super::scale)]
    scale: f64,
    /// Worker threads; one for each processor by default.
    #[arg(long)]
    threads: Option<usize>,
}

/// Timed runs of each program, after the first.
const RUNS: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// Compares the results of a run with what is expected.
type Check = Box<dyn Fn(&Outputs) -> Result<Verdict>>;

/// A program with its place in the sessions.
struct Program {
    name: String,
    graph: Graph,
    session: usize,
    check: Check,
}

/// Everything that is set up before the programs run.
#[derive(Default)]
struct Setup {
    sessions: Vec<Session>,
    programs: Vec<Program>,
    rows: Vec<Row>,
}

impl Demo {
    /// Sets up, runs and prints. Fails, after printing, if a check does.
    pub fn run(self) -> Result<()> {
        let machine = Machine { threads: self.threads, backend: Backend::Auto, without: vec![] };
        let mut setup = Setup::default();
        self.tables(&machine, &mut setup)?;
        networks(&machine, &mut setup)?;
        self.pipelines(&machine, &mut setup)?;
        let mut rows = setup.measure();
        let (all, failed) = (rows.len(), rows.iter().filter(|row| row.is_bad()).count());
        rows.append(&mut setup.rows);
        super::print(table::text(&rows))?;
        match failed {
            0 => Ok(()),
            _ => Err(Error::Failed { failed, all }),
        }
    }

    /// The TPC-H queries.
    fn tables(&self, machine: &Machine, setup: &mut Setup) -> Result<()> {
        let numbers = queries::numbers();
        let graphs = numbers.iter().map(|query| queries::graph(*query)).collect::<Result<Vec<_>, _>>()?;
        let mut session = machine.session()?;
        // What a program reads is known once it is rewritten.
        let read = |graph| Ok(rewrite(graph, &session.options().rewrites).map_err(quearn::Error::from)?.0);
        let rewritten = graphs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let (scale, bars) = (self.scale, Bars::new());
        setup.timed("generate tables", || Ok(generate::generate(scale, &bars.tables())?))?;
        let load = || Ok(catalog::load_scanned(scale, &rewritten, &bars.tables())?);
        setup.timed("load tables", load)?.into_iter().for_each(|table| session.add_table(table));
        bars.clear();
        for (query, graph) in numbers.into_iter().zip(graphs) {
            setup.add(format!("TPC-H Q{query}"), graph, Box::new(move |outputs| check_query(query, scale, outputs)));
        }
        setup.sessions.push(session);
        Ok(())
    }

    /// The pipelines of queries and models.
    fn pipelines(&self, machine: &Machine, setup: &mut Setup) -> Result<()> {
        let (scale, bars) = (self.scale, Bars::new());
        for pipeline in PIPELINES {
            let session = || pipelines::session(pipeline, scale, machine, &bars);
            let session = setup.timed(&format!("data of {}", pipeline.name), session)?;
            let check = move |outputs: &Outputs| match pipeline
                .check(&pipeline.answer(&Results::from(outputs), scale)?, scale)
            {
                Err(Error::NoExpectation { .. }) => Ok(Verdict::Unknown),
                checked => checked.map(|_| Verdict::Good("as expected".into())),
            };
            setup.add(format!("{}: {}", pipeline.name, pipeline.about), pipeline.graph(scale)?, Box::new(check));
            setup.sessions.push(session);
        }
        bars.clear();
        Ok(())
    }
}

/// The network of the demonstration.
const SQUEEZENET: &str = "squeezenet1_1";

/// SqueezeNet on one image of the usual size.
fn networks(machine: &Machine, setup: &mut Setup) -> Result<()> {
    let missing = || Error::NoExpectation { what: SQUEEZENET.to_owned() };
    let network = Network::find(SQUEEZENET).ok_or_else(missing)?;
    let case = setup.timed("network weights", || Case::seeded(network, 1))?;
    let (session, graph) = (case.session(machine)?, case.graph.clone());
    let check = move |outputs: &Outputs| {
        Ok(Verdict::Good(format!("as PyTorch, relative error {:.1e}", case.checked(outputs)?)))
    };
    setup.add("SqueezeNet 1.1".into(), graph, Box::new(check));
    setup.sessions.push(session);
    Ok(())
}

fn check_query(query: u32, scale: f64, outputs: &Outputs) -> Result<Verdict> {
    let result = outputs.table(queries::RESULT)?;
    if !answers::has_answers(scale) {
        return Ok(Verdict::Unknown);
    }
    answers::check(query, scale, result).map_err(quearn_tpch::Error::from)?;
    Ok(Verdict::Good("as expected".into()))
}

impl Setup {
    /// Sets something up, with a row for how long it took.
    fn timed<T>(&mut self, name: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let made = make()?;
        let run_ms = Some(elapsed_ms(start));
        let verdict = Verdict::Good("set-up".into());
        self.rows.push(Row { name: name.into(), compile_ms: None, run_ms, verdict });
        Ok(made)
    }

    /// Adds a program of the session that is pushed next.
    fn add(&mut self, name: String, graph: Graph, check: Check) {
        self.programs.push(Program { name, graph, session: self.sessions.len(), check });
    }

    /// Runs the programs one after the other, each to its row.
    fn measure(&self) -> Vec<Row> {
        let (bars, total) = (Bars::new(), self.programs.len() as u64);
        let row = |(done, program): (u64, &Program)| {
            bars.show("compiling and running", done, total);
            program.measure(&self.sessions[program.session])
        };
        let rows = (0..).zip(&self.programs).map(row).collect();
        bars.clear();
        rows
    }
}

impl Program {
    fn measure(&self, session: &Session) -> Row {
        let name = self.name.clone();
        match measure(session, &self.graph, Runs::Count(RUNS)) {
            Err(error) => Row { name, compile_ms: None, run_ms: None, verdict: Verdict::Bad(error.to_string()) },
            Ok(measured) => self.row(name, &measured),
        }
    }

    fn row(&self, name: String, measured: &Measured) -> Row {
        let verdict = (self.check)(&measured.outputs).unwrap_or_else(|error| Verdict::Bad(error.to_string()));
        Row { name, compile_ms: Some(measured.compile_ms), run_ms: Some(measured.median_ms()), verdict }
    }
}
