//! Tables from Arrow batches and back: every type, slices, NULLs, several batches, shared memory, statistics.

use arrow::array::*;
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::*;
use quearn::data::{Column, LoadOptions, Phys, PlainText, Table, Values};
use quearn_stage::graph::Scalar;
use std::sync::Arc;

fn batch(array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap()
}

fn load(arrays: Vec<ArrayRef>, options: &LoadOptions) -> Column {
    let batches: Vec<RecordBatch> = arrays.into_iter().map(batch).collect();
    let table = Table::from_batches_with("t", &batches, options).unwrap();
    table.into_columns().remove(0)
}

fn fail(array: ArrayRef) -> String {
    Table::from_batches("t", &[batch(array)]).unwrap_err().to_string()
}

/// The values of a column, as the graph prints them without their type.
fn values(column: &Column) -> Vec<String> {
    let text = |row| column.literal(row).unwrap().to_string();
    (0..column.rows).map(|row| text(row).rsplit_once(':').unwrap().0.to_string()).collect()
}

/// Loads the array whole, sliced, in two batches, shared and compact; all must give the expected values.
fn check(array: ArrayRef, scalar: Scalar, expected: &[&str]) {
    let n = array.len();
    for options in [LoadOptions::SHARE, LoadOptions::COMPACT] {
        let whole = load(vec![array.clone()], &options);
        assert_eq!(whole.elem.scalar, scalar);
        assert_eq!(values(&whole), expected, "{scalar} {options:?}");
        assert_eq!(whole.stats.nulls, array.logical_null_count());
        let sliced = load(vec![array.slice(1, n - 1)], &options);
        assert_eq!(values(&sliced), expected[1..], "slice of {scalar} {options:?}");
        let halves = load(vec![array.slice(0, 1), array.slice(1, n - 1)], &options);
        assert_eq!(values(&halves), expected, "batches of {scalar} {options:?}");
        assert_eq!(halves.stats, whole.stats);
        let back = Table::new("t", vec![whole]).unwrap().to_batch().unwrap();
        assert_eq!(values(&load(vec![back.column(0).clone()], &options)), expected, "{scalar} to Arrow and back");
    }
}

#[test]
fn integers() {
    check(Arc::new(Int8Array::from(vec![Some(-5), None, Some(7)])), Scalar::I8, &["-5", "null", "7"]);
    check(Arc::new(UInt8Array::from(vec![Some(200), None, Some(7)])), Scalar::U8, &["200", "null", "7"]);
    check(Arc::new(Int16Array::from(vec![Some(-500), None, Some(7)])), Scalar::I16, &["-500", "null", "7"]);
    check(Arc::new(UInt16Array::from(vec![Some(65535), None, Some(7)])), Scalar::I32, &["65535", "null", "7"]);
    check(Arc::new(Int32Array::from(vec![1 << 30, -1, 7])), Scalar::I32, &["1073741824", "-1", "7"]);
    check(Arc::new(UInt32Array::from(vec![u32::MAX, 1])), Scalar::I64, &["4294967295", "1"]);
    check(Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), Scalar::I64, &["-9223372036854775808", "null"]);
    check(Arc::new(UInt64Array::from(vec![Some(3), None])), Scalar::I64, &["3", "null"]);
    assert!(fail(Arc::new(UInt64Array::from(vec![u64::MAX]))).starts_with("column `c`: expected i64: "));
}

#[test]
fn floats_and_bools() {
    let halves = Float16Array::from(vec![half::f16::from_f32(0.5), half::f16::from_f32(2.0)]);
    check(Arc::new(halves), Scalar::F16, &["0.5", "2.0"]);
    check(Arc::new(Float32Array::from(vec![Some(0.25), None])), Scalar::F32, &["0.25", "null"]);
    check(Arc::new(Float64Array::from(vec![1e300, -0.5])), Scalar::F64, &["1e300", "-0.5"]);
    let bools = BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]);
    check(Arc::new(bools), Scalar::Bool, &["true", "null", "false", "true"]);
}

#[test]
fn decimals() {
    let small = Decimal32Array::from(vec![Some(-150), None]).with_precision_and_scale(9, 2).unwrap();
    check(Arc::new(small), Scalar::decimal(9, 2), &["-1.50", "null"]);
    let middle = Decimal64Array::from(vec![Some(123), None]).with_precision_and_scale(18, 0).unwrap();
    check(Arc::new(middle), Scalar::decimal(18, 0), &["123", "null"]);
    let wide = Decimal128Array::from(vec![Some(5), None, Some(-1 << 90)]).with_precision_and_scale(38, 3).unwrap();
    check(Arc::new(wide), Scalar::decimal(38, 3), &["0.005", "null", "-1237940039285380274899124.224"]);
    let negative_scale = Decimal128Array::from(vec![5]).with_precision_and_scale(5, -2).unwrap();
    assert_eq!(fail(Arc::new(negative_scale)), "column `c`: type Decimal128(5, -2) is not supported");
}

#[test]
fn dates_and_times() {
    check(Arc::new(Date32Array::from(vec![Some(0), None])), Scalar::Date, &["1970-01-01", "null"]);
    check(Arc::new(Date64Array::from(vec![86_400_000, 0])), Scalar::Date, &["1970-01-02", "1970-01-01"]);
    check(Arc::new(TimestampSecondArray::from(vec![2, 1])), Scalar::Timestamp, &["2000000", "1000000"]);
    check(Arc::new(TimestampMillisecondArray::from(vec![2, 1])), Scalar::Timestamp, &["2000", "1000"]);
    check(Arc::new(TimestampMicrosecondArray::from(vec![2, 1])), Scalar::Timestamp, &["2", "1"]);
    let zoned = TimestampNanosecondArray::from(vec![Some(2_000), None]).with_timezone("+02:00");
    check(Arc::new(zoned), Scalar::Timestamp, &["2", "null"]);
    assert!(fail(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))).contains("column `c`: expected timestamp"));
}

#[test]
fn intervals() {
    let months = IntervalYearMonthArray::from(vec![Some(-3), None]);
    check(Arc::new(months), Scalar::Interval, &["-3m0d0us", "null"]);
    let cell = |months, days, nanoseconds| IntervalMonthDayNano { months, days, nanoseconds };
    let mixed = IntervalMonthDayNanoArray::from(vec![cell(1, -2, -3_000), cell(-1, 2, 3_000)]);
    check(Arc::new(mixed), Scalar::Interval, &["1m-2d-3us", "-1m2d3us"]);
}

#[test]
fn strings() {
    let texts = vec![Some("b"), None, Some(""), Some("é"), Some("b")];
    let expected = ["\"b\"", "null", "\"\"", "\"é\"", "\"b\""];
    check(Arc::new(StringArray::from(texts.clone())), Scalar::String, &expected);
    check(Arc::new(LargeStringArray::from(texts.clone())), Scalar::String, &expected);
    check(Arc::new(StringViewArray::from(texts.clone())), Scalar::String, &expected);
    check(Arc::new(texts.iter().copied().collect::<DictionaryArray<Int8Type>>()), Scalar::String, &expected);
    let bytes: Vec<Option<&[u8]>> = texts.iter().map(|t| t.map(str::as_bytes)).collect();
    check(Arc::new(BinaryArray::from(bytes.clone())), Scalar::String, &expected);
    check(Arc::new(LargeBinaryArray::from(bytes)), Scalar::String, &expected);
    assert!(fail(Arc::new(BinaryArray::from_vec(vec![b"\xff"]))).starts_with("column `c`: expected string: "));
}

#[test]
fn dictionaries_are_sorted_and_hold_what_occurs() {
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("z"), Some("unused"), None, Some("a"), Some("z")]));
    let keys = Int32Array::from(vec![Some(0), Some(3), Some(4), Some(2), None]);
    let column = load(vec![Arc::new(DictionaryArray::new(keys, strings))], &LoadOptions::SHARE);
    let Values::Coded { phys: Phys::I8, dict, .. } = &column.values else { panic!("{:?}", column.values) };
    assert_eq!(dict.iter().collect::<Vec<_>>(), ["a", "z"]);
    assert_eq!(values(&column), ["\"z\"", "\"a\"", "\"z\"", "null", "null"]);
    assert_eq!((column.stats.nulls, column.stats.distinct, column.stats.max_len), (2, Some(2), Some(1)));
    assert_eq!((column.stats.min, column.stats.max), (Some(0), Some(1)));
    // Numbers behind a dictionary are just numbers.
    let keys = Int8Array::from(vec![1, 0]);
    let numbers = DictionaryArray::new(keys, Arc::new(Int64Array::from(vec![10, 20])) as ArrayRef);
    check(Arc::new(numbers), Scalar::I64, &["20", "10"]);
}

#[test]
fn images_keep_their_shape() {
    let row = Arc::new(Field::new_list_field(DataType::UInt8, false));
    let rows = FixedSizeListArray::new(row, 3, Arc::new(UInt8Array::from_iter_values(0..24)), None);
    let item = Arc::new(Field::new_list_field(rows.data_type().clone(), false));
    let nulls = NullBuffer::from(vec![true, false, true, true]);
    let images: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, Arc::new(rows), Some(nulls)));
    let whole = load(vec![images.clone()], &LoadOptions::SHARE);
    assert_eq!((whole.shape.clone(), whole.rows, whole.stats.nulls), (vec![2, 3], 4, 1));
    for arrays in [vec![images.slice(1, 3)], vec![images.slice(1, 1), images.slice(2, 2)]] {
        let column = load(arrays, &LoadOptions::COMPACT);
        let Values::Fixed { phys: Phys::U8, data } = &column.values else { panic!("{:?}", column.values) };
        assert_eq!(data.as_slice(), (6..24).collect::<Vec<u8>>());
        assert!(!column.is_valid(0) && column.is_valid(1));
        let back = Table::new("t", vec![column]).unwrap().to_batch().unwrap();
        assert_eq!(back.column(0).len(), 3);
    }
    let hole = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])], 2);
    assert_eq!(fail(Arc::new(hole)), "column `c`: row 0: expected 2 elements, found NULL in place of one");
}

#[test]
fn one_batch_is_shared() {
    let ints = Int64Array::from((0..100).collect::<Vec<i64>>()).slice(10, 50);
    let at = ints.values().as_ptr() as usize;
    let column = load(vec![Arc::new(ints)], &LoadOptions::SHARE);
    let Values::Fixed { phys: Phys::I64, data } = &column.values else { panic!("{:?}", column.values) };
    assert_eq!(data.as_ptr() as usize, at);

    let texts = StringArray::from(vec![Some("x"), None, Some("long text"), Some("y")]).slice(1, 2);
    let (offsets, bytes) = (texts.value_offsets().as_ptr() as usize, texts.value_data().as_ptr() as usize);
    let nulls = texts.nulls().unwrap().buffer().as_ptr();
    let column = load(vec![Arc::new(texts)], &LoadOptions::SHARE);
    let PlainText { offsets: o, bytes: b, wide: false } = column.plain_text().unwrap() else {
        panic!("{:?}", column.values)
    };
    assert_eq!((o.as_ptr() as usize, b.as_ptr() as usize), (offsets, bytes));
    assert_eq!(column.validity.as_ref().unwrap().bits.as_ptr(), nulls);
    let back = column.to_array().unwrap();
    assert_eq!(back.as_string::<i32>().value_data().as_ptr() as usize, bytes);

    let pixels = Float32Array::new(ScalarBuffer::from(vec![1f32; 12]), None);
    let at = pixels.values().as_ptr();
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let images = FixedSizeListArray::new(item, 4, Arc::new(pixels), None).slice(1, 2);
    let column = load(vec![Arc::new(images)], &LoadOptions::SHARE);
    let Values::Fixed { data, .. } = &column.values else { panic!("{:?}", column.values) };
    assert_eq!(data.as_ptr(), at.wrapping_add(4).cast());
}

#[test]
fn compact_storage() {
    let phys = |array: ArrayRef| match load(vec![array], &LoadOptions::COMPACT).values {
        Values::Fixed { phys, .. } | Values::Coded { phys, .. } => phys,
        Values::Text(_) => panic!("text"),
    };
    assert_eq!(phys(Arc::new(Int64Array::from(vec![0, 127]))), Phys::I8);
    let decimals = Decimal128Array::from(vec![Some(40_000), None]).with_precision_and_scale(15, 2).unwrap();
    assert_eq!(phys(Arc::new(decimals)), Phys::I32);
    assert_eq!(phys(Arc::new(Date32Array::from(vec![0, 10_000]))), Phys::I16);
    // What lies below a NULL must not count.
    let hidden = Int64Array::new(vec![1, i64::MAX].into(), Some(vec![true, false].into()));
    assert_eq!(phys(Arc::new(hidden)), Phys::I8);
    let many: Vec<String> = (0..4_000).map(|i| format!("{:03}", i % 200)).collect();
    assert_eq!(phys(Arc::new(StringArray::from(many))), Phys::I16);
    let distinct = StringArray::from_iter_values((0..4_000).map(|i| i.to_string()));
    let column = load(vec![Arc::new(distinct)], &LoadOptions::COMPACT);
    assert!(matches!(column.values, Values::Text(_)));
}

#[test]
fn statistics() {
    let of = |array: ArrayRef| load(vec![array], &LoadOptions::SHARE).stats;
    let keys = of(Arc::new(Int64Array::from(vec![3, 5, 9])));
    assert_eq!((keys.min, keys.max, keys.distinct), (Some(3), Some(9), Some(3)));
    assert!(keys.sorted && keys.unique);
    let shuffled = of(Arc::new(Int64Array::from(vec![Some(5), None, Some(3), Some(5)])));
    assert_eq!((shuffled.nulls, shuffled.distinct), (1, Some(2)));
    assert!(!shuffled.sorted && !shuffled.unique);
    let all_null = of(Arc::new(Int64Array::from(vec![None, None])));
    assert_eq!((all_null.min, all_null.distinct, all_null.nulls), (None, Some(0), 2));
    let text = of(Arc::new(StringArray::from(vec!["a", "bcd", "bcd"])));
    assert_eq!((text.max_len, text.distinct, text.min), (Some(3), Some(2), None));
    assert!(text.sorted && !text.unique);
    let floats = of(Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN])));
    assert_eq!((floats.distinct, floats.unique, floats.sorted), (Some(2), false, false));
    let spread = Int64Array::from_iter_values((0..50_000i64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15u64 as i64)));
    let distinct = of(Arc::new(spread)).distinct.unwrap();
    assert!((47_000..=50_000).contains(&distinct), "{distinct}");
}

#[test]
fn empty_tables() {
    for array in [Arc::new(StringArray::from(Vec::<&str>::new())) as ArrayRef, Arc::new(Int64Array::from(vec![0; 0]))] {
        for options in [LoadOptions::SHARE, LoadOptions::COMPACT] {
            let column = load(vec![array.clone(), array.clone()], &options);
            assert_eq!((column.rows, column.stats.distinct), (0, Some(0)));
            assert!(column.to_array().unwrap().is_empty());
        }
    }
}

#[test]
fn bad_tables_are_errors() {
    let ints =
        |name: &str| RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let table = Table::from_batches("orders", &[ints("o_orderkey")]).unwrap();
    let absent = table.column("o_orderky").unwrap_err();
    assert_eq!(absent.to_string(), "table `orders` has no column `o_orderky`; did you mean `o_orderkey`?");
    let mixed = Table::from_batches("t", &[ints("a"), ints("b")]).unwrap_err().to_string();
    assert!(mixed.starts_with("table `t`: batch 1: expected the columns of batch 0"), "{mixed}");
    assert!(Table::from_batches("t", &[]).unwrap_err().to_string().contains("expected at least one batch"));
    let twice = Table::new("t", [&table, &table].map(|t| t.columns()[0].clone()).to_vec()).unwrap_err();
    assert_eq!(twice.to_string(), "table `t`: two columns named `o_orderkey`");
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    let text = fail(Arc::new(lists));
    assert!(text.starts_with("column `c`: type List("), "{text}");
}
