//! `load`: what the tables cost in time and memory, and what is known about their columns.

use super::progress::Bars;
use super::report::{check_json, write_json};
use quearn::data::{Column, Table, Values};
use quearn_stage::graph::{Literal, Scalar};
use quearn_tpch::host::{self, Host};
use quearn_tpch::schema::TABLES;
use quearn_tpch::times::rounded;
use quearn_tpch::{Result, catalog, generate};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// `load`.
#[derive(clap::Args)]
pub struct Load {
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Show the columns too: how they are stored, and their statistics.
    #[arg(long)]
    columns: bool,
    /// File for the figures, those of the columns included.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// All tables.
#[derive(Serialize)]
struct Loaded {
    sf: f64,
    host: Host,
    started: String,
    load_s: f64,
    bytes: usize,
    rss_before_load_mb: Option<u64>,
    rss_after_load_mb: Option<u64>,
    peak_rss_load_mb: Option<u64>,
    tables: Vec<TableFacts>,
}

#[derive(Serialize)]
struct TableFacts {
    name: String,
    rows: usize,
    seconds: f64,
    bytes: usize,
    columns: Vec<ColumnFacts>,
}

/// A column; the least and greatest value are text in the column's type.
#[derive(Serialize)]
struct ColumnFacts {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    storage: String,
    bytes: usize,
    min: Option<String>,
    max: Option<String>,
    distinct: Option<u64>,
    sorted: bool,
    unique: bool,
    nulls: usize,
}

impl Load {
    /// Loads all tables, one after the other, and prints their figures.
    pub fn run(self) -> Result<()> {
        check_json(self.json.as_deref())?;
        let bars = Bars::new();
        let folder = generate::generate(self.scale, &bars.progress())?;
        bars.clear();
        let (started, rss_before_load_mb) = (host::now(), host::rss_mb());
        host::reset_peak();
        // Tables stay in memory until all are loaded, as they do in a session.
        let mut kept = vec![];
        let mut tables = vec![];
        for name in TABLES {
            let start = Instant::now();
            let table = catalog::load_table(&folder, name)?;
            tables.push(TableFacts::of(&table, rounded(start.elapsed().as_secs_f64())));
            kept.push(table);
        }
        let loaded = Loaded {
            sf: self.scale,
            host: Host::this(),
            started,
            load_s: rounded(tables.iter().map(|t| t.seconds).sum()),
            bytes: tables.iter().map(|t| t.bytes).sum(),
            rss_before_load_mb,
            rss_after_load_mb: host::rss_mb(),
            peak_rss_load_mb: host::peak_rss_mb(),
            tables,
        };
        super::print(loaded.text(self.columns))?;
        self.json.map_or(Ok(()), |path| write_json(&path, &loaded))
    }
}

impl Loaded {
    fn text(&self, columns: bool) -> String {
        let mut text = format!("{:10} {:>10} {:>9} {:>10} {:>9}\n", "table", "rows", "seconds", "MB", "bytes/row");
        for table in &self.tables {
            let (mb, per_row) = (table.bytes as f64 / 1e6, table.bytes as f64 / table.rows.max(1) as f64);
            let TableFacts { name, rows, seconds, .. } = table;
            let _ = writeln!(text, "{name:10} {rows:10} {seconds:9.3} {mb:10.2} {per_row:9.1}");
            if columns {
                table.columns.iter().for_each(|column| text += &column.line());
            }
        }
        let mb = |mb: Option<u64>| mb.map_or("-".to_owned(), |mb| mb.to_string());
        let _ = writeln!(
            text,
            "all in {:.2} s: {:.2} MB; resident {} MiB before, {} after, {} at most",
            self.load_s,
            self.bytes as f64 / 1e6,
            mb(self.rss_before_load_mb),
            mb(self.rss_after_load_mb),
            mb(self.peak_rss_load_mb),
        );
        text
    }
}

impl TableFacts {
    fn of(table: &Table, seconds: f64) -> TableFacts {
        let columns = table.columns().iter().map(ColumnFacts::of).collect();
        TableFacts { name: table.name().to_owned(), rows: table.rows(), seconds, bytes: table.bytes(), columns }
    }
}

impl ColumnFacts {
    fn of(column: &Column) -> ColumnFacts {
        let stats = &column.stats;
        ColumnFacts {
            name: column.name.clone(),
            ty: column.elem.to_string(),
            storage: storage(&column.values),
            bytes: column.bytes(),
            min: stats.min.and_then(|bound| value(column, bound)),
            max: stats.max.and_then(|bound| value(column, bound)),
            distinct: stats.distinct,
            sorted: stats.sorted,
            unique: stats.unique,
            nulls: stats.nulls,
        }
    }

    fn line(&self) -> String {
        let bound = |bound: &Option<String>| bound.as_deref().map_or("-".to_owned(), shortened);
        let distinct = self.distinct.map_or("-".to_owned(), |n| n.to_string());
        let marks = [(self.sorted, ", sorted"), (self.unique, ", unique")];
        let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        let ColumnFacts { name, ty, storage, bytes, nulls, .. } = self;
        format!(
            "  {name:15} {ty:15} {storage:24} {:9.2} MB  {} .. {}, {distinct} distinct, {nulls} NULL{marks}\n",
            *bytes as f64 / 1e6,
            bound(&self.min),
            bound(&self.max),
        )
    }
}

/// The beginning of a long text.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 24;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How values lie in memory.
fn storage(values: &Values) -> String {
    match values {
        Values::Fixed { phys, .. } => phys.to_string(),
        Values::Text(text) => {
            let packed = if text.unpacked().is_none() { "packed " } else { "" };
            format!("{packed}text, {} offsets", if text.is_wide() { "i64" } else { "i32" })
        }
        Values::Coded { phys, dict, .. } => format!("codes {phys}, {} strings", dict.len()),
    }
}

/// A bound of the statistics as a value of the column.
fn value(column: &Column, bound: i128) -> Option<String> {
    if let Values::Coded { dict, .. } = &column.values {
        return Some(dict.get(usize::try_from(bound).ok()?).to_owned());
    }
    let literal = match column.elem.scalar {
        Scalar::Decimal { precision, scale } => Literal::decimal(bound, precision, scale)?,
        Scalar::Date => Literal::date(i32::try_from(bound).ok()?),
        Scalar::Timestamp => Literal::timestamp(i64::try_from(bound).ok()?),
        scalar => Literal::int(scalar, bound)?,
    };
    // A literal prints as value and type.
    literal.to_string().rsplit_once(':').map(|(value, _)| value.to_owned())
}
