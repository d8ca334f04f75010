//! Parquet and safetensors: round trips over the layouts that writers make, and every kind of broken file.

use arrow::array::*;
use arrow::datatypes::Int8Type;
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use quearn::data::{Column, LoadOptions, Table, Tensor};
use quearn::io::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn batch(rows: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values((0..rows as i64).map(|i| i * 3));
    let names = StringArray::from_iter((0..rows).map(|i| (i % 7 != 0).then(|| format!("name {}", i % 50))));
    let notes = StringViewArray::from_iter_values((0..rows).map(|i| format!("a note longer than twelve bytes: {i}")));
    let prices = Decimal128Array::from_iter((0..rows).map(|i| (i % 5 != 0).then_some(i as i128 * 7 - 100)));
    let prices = prices.with_precision_and_scale(15, 2).unwrap();
    let flags: DictionaryArray<Int8Type> = (0..rows).map(|i| ["N", "A", "R"][i % 3]).collect();
    let days = Date32Array::from_iter_values((0..rows as i32).map(|i| 9_000 + i % 2_500));
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("name", Arc::new(names)),
        ("note", Arc::new(notes)),
        ("price", Arc::new(prices)),
        ("flag", Arc::new(flags)),
        ("day", Arc::new(days)),
    ])
    .unwrap()
}

fn write(path: &Path, batch: &RecordBatch, properties: WriterPropertiesBuilder) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn rows(column: &Column) -> Vec<String> {
    (0..column.rows).map(|row| column.literal(row).unwrap().to_string()).collect()
}

fn assert_same(found: &Table, expected: &Table) {
    assert_eq!(found.rows(), expected.rows());
    for column in expected.columns() {
        assert_eq!(rows(found.column(&column.name).unwrap()), rows(column), "{}", column.name);
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn row_groups_and_encodings_do_not_matter() {
    let folder = folder();
    let batch = batch(1_000);
    let expected = Table::from_batches("expected", std::slice::from_ref(&batch)).unwrap();
    let plain = || WriterProperties::builder().set_dictionary_enabled(false).set_encoding(Encoding::PLAIN);
    let variants = [
        WriterProperties::builder(),
        plain(),
        WriterProperties::builder().set_max_row_group_row_count(Some(1)),
        plain().set_max_row_group_row_count(Some(333)).set_data_page_row_count_limit(7),
        WriterProperties::builder().set_dictionary_page_size_limit(64).set_data_page_size_limit(128),
    ];
    for (i, properties) in variants.into_iter().enumerate() {
        let path = folder.path().join(format!("t{i}.parquet"));
        write(&path, &batch, properties);
        for load in [LoadOptions::COMPACT, LoadOptions::SHARE] {
            let table = read_parquet(&path, &ReadOptions { columns: None, load }).unwrap();
            assert_same(&table, &expected);
            assert_eq!(table.name(), format!("t{i}"));
        }
    }
}

#[test]
fn written_files_read_back() {
    let folder = folder();
    let path = folder.path().join("new folder/t.parquet");
    for rows in [0, 1, 500] {
        let batches = [batch(rows), batch(rows)];
        write_parquet(&path, &batches).unwrap();
        let table = read_parquet(&path, &ReadOptions::default()).unwrap();
        assert_same(&table, &Table::from_batches("t", &batches).unwrap());
    }
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left");
}

#[test]
fn projection_takes_the_order_asked_for() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    write_parquet(&path, &[batch(100)]).unwrap();
    let columns = |names: &[&str]| ReadOptions {
        columns: Some(names.iter().map(|n| n.to_string()).collect()),
        ..ReadOptions::default()
    };
    let table = read_parquet(&path, &columns(&["day", "id"])).unwrap();
    assert_eq!(table.columns().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["day", "id"]);
    assert_eq!(read_parquet(&path, &columns(&[])).unwrap().rows(), 100);
    let absent = read_parquet(&path, &columns(&["prize"])).unwrap_err().to_string();
    assert!(absent.ends_with("has no column `prize`; did you mean `price`?"), "{absent}");
}

#[test]
fn broken_parquet_is_an_error_with_the_path() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    let message = |path: &PathBuf| {
        let error = read_parquet(path, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("t.parquet"), "{error}");
        error
    };
    message(&path);
    std::fs::write(&path, "").unwrap();
    assert!(message(&path).contains("expected a Parquet file"));
    std::fs::write(&path, "id,name\n1,a\n2,b\n").unwrap();
    message(&path);
    write_parquet(&path, &[batch(2_000)]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for keep in [3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        message(&path);
    }
    // The pages zeroed, the footer intact.
    let footer = u32::from_le_bytes(whole[whole.len() - 8..][..4].try_into().unwrap()) as usize + 8;
    let mut zeroed = whole.clone();
    zeroed[4..whole.len() - footer].fill(0);
    std::fs::write(&path, &zeroed).unwrap();
    message(&path);
}

#[test]
fn no_flipped_byte_panics() {
    let folder = folder();
    let path = folder.path().join("t.parquet");
    write_parquet(&path, &[batch(60)]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(11) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x5a;
        std::fs::write(&path, &flipped).unwrap();
        // Other values in a page without a checksum may go unseen; anything else is an error.
        if let Err(error) = read_parquet(&path, &ReadOptions::default()) {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn weights() -> Vec<(&'static str, Tensor)> {
    vec![
        ("conv1.weight", Tensor::from_vec((0..12).map(|i| i as f32).collect(), &[3, 2, 2]).unwrap()),
        ("conv1.bias", Tensor::from_vec(vec![half::bf16::ONE; 3], &[3]).unwrap()),
        ("step", Tensor::from_vec(vec![7i64], &[]).unwrap()),
    ]
}

#[test]
fn safetensors_round_trip() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let weights = weights();
    write_safetensors(&path, weights.iter().map(|(n, t)| (*n, t))).unwrap();
    let mut read = read_safetensors(&path).unwrap();
    for (name, tensor) in &weights {
        assert_eq!(&read.take(name, tensor.shape()).unwrap(), tensor);
    }
    assert!(read.0.is_empty());
}

#[test]
fn wrong_weights_are_errors() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let weights = weights();
    write_safetensors(&path, weights.iter().map(|(n, t)| (*n, t))).unwrap();
    let mut read = read_safetensors(&path).unwrap();
    let text = |e: quearn::data::Error| e.to_string();
    assert_eq!(
        text(read.take("conv1.weigth", &[3]).unwrap_err()),
        "no tensor `conv1.weigth`; did you mean `conv1.weight` or `conv1.bias`?"
    );
    assert_eq!(text(read.take("conv1.bias", &[4]).unwrap_err()), "tensor `conv1.bias`: expected shape [4], found [3]");
    let whole = std::fs::read(&path).unwrap();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for bad in [&whole[..4], &whole[..40], &whole[..whole.len() - 1], b"", &huge] {
        std::fs::write(&path, bad).unwrap();
        let error = text(read_safetensors(&path).unwrap_err());
        assert!(error.contains("w.safetensors: expected a safetensors file"), "{error}");
    }
    assert!(text(read_safetensors(folder.path().join("absent")).unwrap_err()).contains("absent"));
}
