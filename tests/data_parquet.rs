//! Parquet files of every shape under real queries: the right answers, or an error that names the column; no panic.

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use quearn::data::{LoadOptions, Table as StoredRows};
use quearn::io::{ReadOptions, read_parquet};
use quearn::prelude::{Field, Scalar, *};
use quearn::testing::same_rows;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ORDERS: usize = 120;
const LINES: usize = 500;

/// Orders: a key, a customer that is NULL now and then, a day, a priority, a remark.
fn orders() -> RecordBatch {
    let customers = Int64Array::from_iter((0..ORDERS).map(|i| (i % 6 != 0).then_some(i as i64 * 7 % 40)));
    let priorities = StringArray::from_iter((0..ORDERS).map(|i| (i % 9 != 4).then(|| ["high", "low", "none"][i % 3])));
    batch(vec![
        ("o_key", Arc::new(Int64Array::from_iter_values((0..ORDERS as i64).map(|i| i * 2)))),
        ("o_customer", Arc::new(customers)),
        ("o_day", Arc::new(Date32Array::from_iter_values((0..ORDERS as i32).map(|i| 9_000 + i * 13 % 700)))),
        ("o_priority", Arc::new(priorities)),
        ("o_remark", Arc::new(StringArray::from_iter_values((0..ORDERS).map(|i| format!("remark {}", i * i))))),
    ])
}

/// Lines of orders; some belong to none.
fn lines() -> RecordBatch {
    let money = |step: usize, scale: i8| {
        let cents = (0..LINES).map(move |i| (i % 11 != 10 || scale == 4).then_some((i * step % 10_007) as i128));
        Arc::new(Decimal128Array::from_iter(cents).with_precision_and_scale(15, scale).unwrap()) as ArrayRef
    };
    let keys = Int64Array::from_iter((0..LINES as i64).map(|i| (i % 17 != 3).then_some(i * 37 % 300)));
    let flags = StringArray::from_iter_values((0..LINES).map(|i| ["A", "N", "R"][i * 7 % 3]));
    batch(vec![
        ("l_order", Arc::new(keys)),
        ("l_price", money(377, 2)),
        ("l_discount", money(3, 4)),
        ("l_flag", Arc::new(flags)),
        ("l_day", Arc::new(Date32Array::from_iter_values((0..LINES as i32).map(|i| 9_050 + i * 29 % 800)))),
    ])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn scan_orders(s: &Stage) -> Rep<'_, Table> {
    let fields = [
        Field::new("o_key", Scalar::I64),
        Field::nullable("o_customer", Scalar::I64),
        Field::new("o_day", Scalar::Date),
        Field::nullable("o_priority", Scalar::String),
        Field::new("o_remark", Scalar::String),
    ];
    s.scan("orders", fields)
}

fn scan_lines(s: &Stage) -> Rep<'_, Table> {
    let fields = [
        Field::nullable("l_order", Scalar::I64),
        Field::nullable("l_price", Scalar::decimal(15, 2)),
        Field::new("l_discount", Scalar::decimal(15, 4)),
        Field::new("l_flag", Scalar::String),
        Field::new("l_day", Scalar::Date),
    ];
    s.scan("lines", fields)
}

type Query = for<'s> fn(&'s Stage) -> Rep<'s, Table>;

/// As TPC-H Q1.
fn summary(s: &Stage) -> Rep<'_, Table> {
    let shipped = scan_lines(s).filter(|r| r.date("l_day").le(date("1996-06-01")));
    let groups = shipped.group_by(["l_flag"]).agg(|r| {
        let discounted = r.decimal("l_price") * (1 - r.decimal("l_discount"));
        [
            sum("price", r.decimal("l_price")),
            sum("discounted", discounted),
            avg("mean", r.decimal("l_price")),
            count_of("priced", r.decimal("l_price")),
            count("n"),
        ]
    });
    groups.sort([asc("l_flag")])
}

/// As TPC-H Q3.
fn revenue(s: &Stage) -> Rep<'_, Table> {
    let early = scan_orders(s).filter(|r| r.date("o_day").lt(date("1996-01-01")) & r.str("o_priority").ne("none"));
    scan_lines(s)
        .filter(|r| r.date("l_day").gt(date("1995-01-01")))
        .join_inner(early, [("l_order", "o_key")])
        .group_by(["l_order", "o_day", "o_priority"])
        .agg(|r| [sum("revenue", r.decimal("l_price"))])
        .sort([desc("revenue"), asc("l_order")])
        .limit(10)
}

/// A join and groups by keys that may be NULL, and an outer join.
fn customers(s: &Stage) -> Rep<'_, Table> {
    let orders = scan_orders(s);
    let counted = scan_lines(s).join_left(orders, [("l_order", "o_customer")]);
    counted
        .group_by(["o_customer", "o_priority"])
        .agg(|r| [count("n"), min("first", r.str("o_remark")), max("last", r.date("o_day"))])
        .sort([asc("o_customer").nulls_first(), asc("o_priority")])
}

const QUERIES: [Query; 3] = [summary, revenue, customers];

fn graph(query: Query) -> Graph {
    let s = Stage::new();
    s.output("result", query(&s));
    s.finish().unwrap()
}

fn answers(backend: BackendKind, tables: [StoredRows; 2]) -> Vec<RecordBatch> {
    let mut session = Session::builder().backend(backend).threads(2).build().unwrap();
    tables.into_iter().for_each(|table| session.add_table(table));
    let answer = |query: &Query| session.run(&graph(*query)).unwrap().table("result").unwrap().clone();
    QUERIES.iter().map(answer).collect()
}

fn stored(name: &str, batch: &RecordBatch) -> StoredRows {
    StoredRows::from_batches(name, std::slice::from_ref(batch)).unwrap()
}

/// Answers on the rows as they are in Arrow's memory.
fn expected(orders: &RecordBatch, lines: &RecordBatch) -> Vec<RecordBatch> {
    answers(BackendKind::Interp, [stored("orders", orders), stored("lines", lines)])
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, table: &str) -> PathBuf {
        self.0.path().join(format!("{table}.parquet"))
    }

    fn write(&self, table: &str, batch: &RecordBatch, properties: &WriterProperties) -> PathBuf {
        let path = self.path(table);
        write(&path, batch, properties, true);
        path
    }

    fn read(&self, table: &str) -> StoredRows {
        read_parquet(self.path(table), &ReadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn write(path: &Path, batch: &RecordBatch, properties: &WriterProperties, with_arrow_types: bool) {
    let options = ArrowWriterOptions::new().with_properties(properties.clone());
    let options = options.with_skip_arrow_metadata(!with_arrow_types);
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new_with_options(file, batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Answers on the files in the folder are those on the rows in memory.
#[track_caller]
fn check(what: &str, folder: &Folder, expected: &[RecordBatch]) {
    let found = answers(BackendKind::Auto, [folder.read("orders"), folder.read("lines")]);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        same_rows(found, expected, true, 1e-12).unwrap_or_else(|error| panic!("{what}, query {i}: {error}"));
    }
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
}

#[test]
fn answers_do_not_depend_on_how_a_file_is_written() {
    let (orders, lines) = (orders(), lines());
    let expected = expected(&orders, &lines);
    assert!(expected.iter().all(|answer| answer.num_rows() >= 3), "queries that say something");
    let plain = || properties().set_dictionary_enabled(false);
    let encoded = |encoding| plain().set_encoding(encoding).set_writer_version(WriterVersion::PARQUET_2_0);
    let strings = |builder: WriterPropertiesBuilder, encoding| {
        ["o_priority", "o_remark", "l_flag"]
            .into_iter()
            .fold(builder, |builder, name| builder.set_column_encoding(name.into(), encoding))
    };
    let variants = [
        ("dictionaries", properties()),
        ("plain", plain()),
        ("short dictionaries", properties().set_dictionary_page_size_limit(16).set_data_page_row_count_limit(20)),
        ("second version", properties().set_writer_version(WriterVersion::PARQUET_2_0)),
        ("delta", strings(encoded(Encoding::PLAIN), Encoding::DELTA_BYTE_ARRAY)),
        ("delta lengths", strings(encoded(Encoding::PLAIN), Encoding::DELTA_LENGTH_BYTE_ARRAY)),
        ("not compressed", properties().set_compression(Compression::UNCOMPRESSED)),
        ("snappy", properties().set_compression(Compression::SNAPPY)),
        ("zstd", properties().set_compression(Compression::ZSTD(Default::default()))),
        ("no statistics", properties().set_statistics_enabled(EnabledStatistics::None)),
        ("a row a group", properties().set_max_row_group_row_count(Some(1))),
        ("groups of 37", plain().set_max_row_group_row_count(Some(37)).set_data_page_row_count_limit(5)),
    ];
    let folder = Folder::new();
    for (what, variant) in variants {
        let variant = variant.build();
        for with_arrow_types in [true, false] {
            write(&folder.path("orders"), &orders, &variant, with_arrow_types);
            write(&folder.path("lines"), &lines, &variant, with_arrow_types);
            check(what, &folder, &expected);
        }
    }
}

#[test]
fn order_and_number_of_columns_do_not_matter() {
    let (orders, lines) = (orders(), lines());
    let folder = Folder::new();
    folder.write("orders", &orders.project(&[4, 2, 0, 3, 1]).unwrap(), &properties().build());
    let mut columns: Vec<(&str, ArrayRef)> = vec![("extra", Arc::new(Float64Array::from(vec![f64::NAN; LINES])))];
    for i in (0..lines.num_columns()).rev() {
        columns.push((["l_order", "l_price", "l_discount", "l_flag", "l_day"][i], lines.column(i).clone()));
    }
    columns.push(("", Arc::new(StringArray::from(vec![None::<&str>; LINES]))));
    folder.write("lines", &batch(columns), &properties().build());
    check("reordered", &folder, &expected(&orders, &lines));
}

/// The batch with a column cast to another type.
fn with_type(batch: &RecordBatch, column: &str, ty: &DataType) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    with_column(batch, column, cast(batch.column(at), ty).unwrap())
}

fn with_column(batch: &RecordBatch, column: &str, array: ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    let mut columns = batch.columns().to_vec();
    let mut fields: Vec<ArrowField> = batch.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields[at] = ArrowField::new(column, array.data_type().clone(), true);
    columns[at] = array;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn coded(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

#[test]
fn widths_of_types_do_not_matter() {
    let (orders, lines) = (orders(), lines());
    let expected = expected(&orders, &lines);
    let folder = Folder::new();
    let properties = properties().build();
    folder.write("orders", &orders, &properties);
    folder.write("lines", &lines, &properties);
    let of_lines = [
        ("l_order", vec![DataType::Int16, DataType::Int32, DataType::UInt16, DataType::UInt32, DataType::UInt64]),
        (
            "l_price",
            vec![
                DataType::Decimal32(9, 2),
                DataType::Decimal64(18, 2),
                DataType::Decimal128(9, 2),
                DataType::Decimal128(18, 2),
                DataType::Decimal128(38, 2),
            ],
        ),
        ("l_flag", vec![DataType::LargeUtf8, DataType::Utf8View, DataType::Binary, DataType::BinaryView]),
        ("l_day", vec![DataType::Date64]),
    ];
    for (column, types) in of_lines {
        for ty in types {
            folder.write("lines", &with_type(&lines, column, &ty), &properties);
            check(&format!("{column} as {ty}"), &folder, &expected);
        }
    }
    folder.write("lines", &lines, &properties);
    let (utf8, large) = (DataType::Utf8, DataType::LargeUtf8);
    let texts = [utf8.clone(), large.clone(), DataType::Utf8View, DataType::LargeBinary];
    let codes = [DataType::Int8, DataType::UInt16, DataType::Int64].map(|key| coded(key, utf8.clone()));
    for ty in texts.into_iter().chain(codes).chain([coded(DataType::Int32, large)]) {
        for column in ["o_priority", "o_remark"] {
            // The remarks have more distinct values than a byte holds codes; as many as there are rows.
            folder.write("orders", &with_type(&orders, column, &ty), &properties);
            check(&format!("{column} as {ty}"), &folder, &expected);
        }
    }
}

#[test]
fn row_groups_of_nothing_but_nulls() {
    let (orders, lines) = (orders(), lines());
    let nulls = |from: usize, to: usize| {
        let customers = orders.column(1).as_primitive::<arrow::datatypes::Int64Type>().iter();
        let customers = customers.enumerate().map(|(i, c)| c.filter(|_| !(from..to).contains(&i)));
        let priorities = orders.column(3).as_string::<i32>().iter().enumerate();
        let priorities = priorities.map(|(i, p)| p.filter(|_| !(from..to).contains(&i)));
        let orders = with_column(&orders, "o_customer", Arc::new(Int64Array::from_iter(customers)));
        with_column(&orders, "o_priority", Arc::new(StringArray::from_iter(priorities)))
    };
    let folder = Folder::new();
    folder.write("lines", &lines, &properties().build());
    for (from, to) in [(0, 40), (40, 80), (80, 120), (0, 120), (0, 0)] {
        let orders = nulls(from, to);
        let expected = expected(&orders, &lines);
        for dictionaries in [true, false] {
            let variant = properties().set_dictionary_enabled(dictionaries).set_max_row_group_row_count(Some(40));
            folder.write("orders", &orders, &variant.build());
            check(&format!("NULLs in {from}..{to}"), &folder, &expected);
        }
    }
}

#[test]
fn few_rows_and_many() {
    let folder = Folder::new();
    let properties = properties().build();
    for rows in [0, 1, 2] {
        let (orders, lines) = (orders().slice(0, rows), lines().slice(0, rows));
        folder.write("orders", &orders, &properties);
        folder.write("lines", &lines, &properties);
        check(&format!("{rows} rows"), &folder, &expected(&orders, &lines));
    }
    // One row group of several batches, more strings than are coded, and codes that widen.
    const MANY: usize = 150_000;
    let texts = StringArray::from_iter((0..MANY).map(|i| (i % 1000 != 7).then(|| format!("text {}", i % 70_000))));
    let few = StringArray::from_iter((0..MANY).map(|i| (i % 3 != 0).then(|| format!("word {}", i / 400))));
    let ints = Int64Array::from_iter((0..MANY as i64).map(|i| (i % 5 != 0).then_some(if i < 9 { i } else { i * i })));
    let columns: Vec<(&str, ArrayRef)> =
        vec![("text", Arc::new(texts)), ("word", Arc::new(few)), ("number", Arc::new(ints))];
    let many = batch(columns);
    let from_arrow = stored("many", &many);
    let mut groups = vec![];
    for dictionaries in [true, false] {
        let variant = WriterProperties::builder().set_dictionary_enabled(dictionaries);
        groups.push(variant.set_max_row_group_row_count(Some(MANY)).set_dictionary_page_size_limit(8 << 20));
    }
    for variant in groups {
        folder.write("many", &many, &variant.build());
        let table = folder.read("many");
        for (found, expected) in table.columns().iter().zip(from_arrow.columns()) {
            let differs = |row: &usize| found.literal(*row) != expected.literal(*row);
            assert_eq!((0..MANY).find(differs), None, "{}", found.name);
            assert_eq!(found.stats.nulls, expected.stats.nulls);
        }
        assert_eq!(table.column("word").unwrap().stats.distinct, Some(375));
    }
}

/// The message of the first query that fails on the file; all tables but `table` are right.
fn failure(table: &str, batch: &RecordBatch) -> String {
    let folder = Folder::new();
    let properties = properties().build();
    folder.write("orders", &orders(), &properties);
    folder.write("lines", &lines(), &properties);
    folder.write(table, batch, &properties);
    let mut session = Session::builder().threads(1).build().unwrap();
    for table in ["orders", "lines"] {
        match read_parquet(folder.path(table), &ReadOptions::default()) {
            Ok(table) => session.add_table(table),
            Err(error) => {
                assert!(error.to_string().contains(&format!("{table}.parquet")), "{error}");
                return error.to_string();
            }
        }
    }
    let error = QUERIES.iter().find_map(|query| session.run(&graph(*query)).err());
    error.expect("a query fails").to_string()
}

#[track_caller]
fn fails(table: &str, batch: &RecordBatch, words: &[&str]) {
    let message = failure(table, batch);
    assert!(words.iter().all(|word| message.contains(word)), "{message:?} does not contain all of {words:?}");
}

#[test]
fn other_types_are_errors_that_name_the_column() {
    let (orders, lines) = (orders(), lines());
    fails("lines", &with_type(&lines, "l_price", &DataType::Decimal128(15, 3)), &["\"l_price\"", "(15,2)", "(15,3)"]);
    fails("lines", &with_type(&lines, "l_price", &DataType::Float64), &["\"l_price\"", "f64"]);
    let cents = with_column(&lines, "l_price", Arc::new(Int64Array::from_iter((0..LINES as i64).map(Some))));
    fails("lines", &cents, &["\"l_price\"", "decimal(15,2)", "i64"]);
    for unit in [TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        let stamps = with_type(&lines, "l_day", &DataType::Timestamp(unit, None));
        fails("lines", &stamps, &["\"l_day\"", "date", "timestamp"]);
    }
    fails("orders", &with_type(&orders, "o_key", &DataType::Utf8), &["\"o_key\"", "i64", "string"]);
    fails("orders", &with_type(&orders, "o_day", &DataType::Int32), &["\"o_day\"", "date", "i32"]);
    let large = Decimal128Array::from(vec![10i128.pow(17); LINES]).with_precision_and_scale(38, 2).unwrap();
    fails("lines", &with_column(&lines, "l_price", Arc::new(large)), &["\"l_price\"", "more digits"]);
}

#[test]
fn missing_columns_and_nulls_are_errors_that_name_the_column() {
    let (orders, lines) = (orders(), lines());
    fails("lines", &lines.project(&[0, 1, 3, 4]).unwrap(), &["\"l_discount\"", "\"lines\""]);
    let keys = Int64Array::from_iter((0..ORDERS as i64).map(|i| (i != 77).then_some(i)));
    fails("orders", &with_column(&orders, "o_key", Arc::new(keys)), &["\"o_key\"", "1 rows are NULL"]);
    let flags = StringArray::from_iter((0..LINES).map(|i| (i > 2).then_some("A")));
    fails("lines", &with_column(&lines, "l_flag", Arc::new(flags)), &["\"l_flag\"", "3 rows are NULL"]);
}

#[test]
fn types_without_a_word_are_errors_that_name_file_and_column() {
    let lines = lines();
    let times = Time32SecondArray::from(vec![1; LINES]);
    fails("lines", &with_column(&lines, "l_day", Arc::new(times)), &["`l_day`", "Time32", "lines.parquet"]);
    let wide = with_type(&lines, "l_price", &DataType::Decimal256(50, 2));
    fails("lines", &wide, &["`l_price`", "Decimal256", "lines.parquet"]);
    let item = Arc::new(ArrowField::new("a.b", DataType::Int64, true));
    let pair = StructArray::from(vec![(item, Arc::new(Int64Array::from(vec![1; LINES])) as ArrayRef)]);
    fails("lines", &with_column(&lines, "l_flag", Arc::new(pair)), &["`l_flag`", "Struct", "lines.parquet"]);
    let ragged = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(
        (0..LINES).map(|i| Some(vec![Some(1); i % 3])),
    );
    fails("lines", &with_column(&lines, "l_flag", Arc::new(ragged)), &["`l_flag`", "List", "lines.parquet"]);
    let broken = BinaryArray::from_iter_values((0..LINES).map(|i| if i == 99 { &b"\xff\xfe"[..] } else { b"A" }));
    let broken = with_column(&lines, "l_flag", Arc::new(broken));
    fails("lines", &broken, &["`l_flag`", "string", "lines.parquet"]);
    let huge = UInt64Array::from_iter_values((0..LINES).map(|i| u64::MAX - i as u64));
    fails("lines", &with_column(&lines, "l_order", Arc::new(huge)), &["`l_order`", "i64", "lines.parquet"]);
    let date = Date64Array::from(vec![i64::MAX; LINES]);
    fails("lines", &with_column(&lines, "l_day", Arc::new(date)), &["`l_day`", "date", "lines.parquet"]);
}

/// What cannot be read does not matter where it is not read.
#[test]
fn only_columns_that_are_asked_for_matter() {
    let folder = Folder::new();
    let times: ArrayRef = Arc::new(Time32SecondArray::from(vec![1; LINES]));
    folder.write("lines", &with_column(&lines(), "l_day", times), &properties().build());
    let read = |names: &[&str]| {
        let columns = Some(names.iter().map(|name| name.to_string()).collect());
        read_parquet(folder.path("lines"), &ReadOptions { columns, ..ReadOptions::default() })
    };
    assert_eq!(read(&["l_flag", "l_order"]).unwrap().rows(), LINES);
    assert!(read(&["l_flag", "l_day"]).unwrap_err().to_string().contains("`l_day`"));
    let twice = read(&["l_flag", "l_flag"]).unwrap_err().to_string();
    assert!(twice.contains("two columns named `l_flag`"), "{twice}");
}

/// Whatever is done to a file, reading ends with a table or with an error that names the file.
#[test]
fn broken_files_are_errors_with_the_path() {
    let folder = Folder::new();
    let variant = properties().set_max_row_group_row_count(Some(50)).set_compression(Compression::SNAPPY).build();
    let path = folder.write("orders", &orders(), &variant);
    let whole = std::fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..][..4].try_into().unwrap()) as usize + 8;
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        for load in [LoadOptions::COMPACT, LoadOptions::SHARE] {
            match read_parquet(&path, &ReadOptions { columns: None, load }) {
                Ok(table) => drop(table.to_batch()),
                Err(error) => assert!(error.to_string().contains("orders.parquet"), "{error}"),
            }
        }
    };
    for keep in (0..whole.len()).step_by(97).chain(whole.len() - 20..whole.len()) {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let error = read_parquet(&path, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("orders.parquet"), "{error}");
    }
    let pages = whole.len() - footer;
    let footer = (pages..whole.len()).step_by(2).map(|at| (at, [0xff, 0x01, 0x10][at % 3]));
    for (at, flip) in (4..pages).step_by(13).map(|at| (at, 0x81)).chain(footer) {
        let mut flipped = whole.clone();
        flipped[at] ^= flip;
        read(&flipped);
    }
}

#[test]
fn a_broken_page_names_file_and_column() {
    let folder = Folder::new();
    let variant = properties().set_compression(Compression::ZSTD(Default::default())).build();
    let path = folder.write("lines", &lines().project(&[1]).unwrap(), &variant);
    let mut bytes = std::fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize + 8;
    let pages = bytes.len() - footer;
    bytes[pages / 3..pages].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let error = read_parquet(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("lines.parquet") && error.contains("`l_price`"), "{error}");
}
