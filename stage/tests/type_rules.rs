//! Every type rule with what it gives and what it refuses, as lines of the text form.

use quearn_stage::graph::{Graph, Op, Scalar, binary_result, parse, promote, verify};

/// Nodes that the cases are about, numbered as the graph numbers them.
const PRELUDE: &str = r#"
v0: {a: i64, b: string?, c: f64, d: decimal(12,2), e: date, f: bool?, g: f32[3], h: interval} = rel.scan "t"
v1: [rows(v0)] i64 = bridge.column v0 "a"
v2: [rows(v0)] string? = bridge.column v0 "b"
v3: [rows(v0)] f64 = bridge.column v0 "c"
v4: [rows(v0)] decimal(12,2) = bridge.column v0 "d"
v5: [rows(v0)] date = bridge.column v0 "e"
v6: [rows(v0)] bool? = bridge.column v0 "f"
v7: [rows(v0), 3] f32 = bridge.column v0 "g"
v8: [rows(v0)] interval = bridge.column v0 "h"
v9: bool = scalar.const false:bool
v10: {a: i64, z: i32?} = rel.scan "u"
v11: [rows(v10)] i64 = bridge.column v10 "a"
v12: [rows(v10)] i32? = bridge.column v10 "z"
v13: {y: i64} = rel.scan "w"
v14: [rows(v13)] i64 = bridge.column v13 "y"
v15: {a: i64, b: string?, c: f64, d: decimal(12,2), e: date, f: bool?, g: f32[3], h: interval, y: i64} = rel.product v0, v13
v16: [rows(v15)] i64 = bridge.column v15 "y"
v17: [rows(v15)] bool = scalar.gt v16, v16
v18: bool = scalar.const true:bool
v19: f64? = scalar.const null:f64
v20: [n, 4, 8, 8] f32 = tensor.input "x"
v21: [6, 4, 3, 3] f32 = tensor.input "w" weight
v22: [6] f32 = tensor.input "b" weight
v23: [4] f32 = tensor.input "s" weight
v24: [2, 3] f32 = tensor.input "m"
v25: [3, 5] f32 = tensor.input "k"
v26: [2, 3] f64 = tensor.input "md"
v27: [2, 3] i32 = tensor.input "mi"
v28: i64 = scalar.const 3:i64
v29: f64 = scalar.const 0.5:f64
v30: {s: i64?} over 1 = rel.aggregate v0, v1 keys [] compute ["s" sum]
v31: [1] i64? = bridge.column v30 "s"
v32: i64 = control.param region 0 index 0
v33: f64 = control.param region 0 index 1
v34: f64 = scalar.add v33, v29
v35: interval = scalar.const 3m0d0us:interval
v36: f32? = scalar.const null:f32
v37: [5, 3] f32 = tensor.transpose v25 perm [1, 0]
v38: [2, 3] bool = scalar.lt v24, v24
v80: [2, 3] u8 = tensor.input "ub"
v81: [3, 5] i8 = tensor.input "ib" weight
v82: [2, 99999] u8 = tensor.input "long"
v83: [99999, 5] i8 = tensor.input "deep" weight
v84: [7, 3, 5] i8 = tensor.input "many" weight
v79: [4, 3, 3] f32 = tensor.input "filter"
"#;

fn add(line: &str) -> Result<Graph, String> {
    parse(&format!("{PRELUDE}{line}")).map_err(|e| e.message)
}

/// The lines make nodes of the types that they say.
#[track_caller]
fn gives(lines: &[&str]) {
    for line in lines {
        let graph = add(&format!("v99: {line}")).unwrap_or_else(|message| panic!("{line}\n{message}"));
        verify(&graph).unwrap();
    }
}

/// The operations are refused with these messages (behind their names).
#[track_caller]
fn refuses(cases: &[(&str, &str)]) {
    for (line, message) in cases {
        let line = if line.contains(" = ") { line.to_string() } else { format!("bool = {line}") };
        let found = add(&format!("v99: {line}")).expect_err(&line);
        let name = line.split(" = ").nth(1).unwrap().split(' ').next().unwrap();
        assert_eq!(found, format!("{name}: {message}"), "{line}");
    }
}

#[test]
fn constants() {
    gives(&["f64 = scalar.const 1.5:f64", "decimal(3,2)? = scalar.const null:decimal(3,2)"]);
    refuses(&[(
        "scalar.const null:decimal(2,3)",
        "decimal(2,3) is no type: a decimal has 1 to 38 digits, at most all after the point",
    )]);
}

#[test]
fn unary() {
    gives(&[
        "[rows(v0)] decimal(12,2) = scalar.neg v4",
        "[rows(v0)] bool? = scalar.not v6",
        "[rows(v0)] bool = scalar.is_null v2",
        "[rows(v0)] f64 = scalar.exp v3",
        "[rows(v0)] i32 = scalar.month v5",
        "[n, 4, 8, 8] f32 = scalar.relu v20",
    ]);
    refuses(&[
        ("scalar.neg v2", "column \"b\" must be a number, found [rows(v0)] string?"),
        ("scalar.not v1", "column \"a\" must be a bool, found [rows(v0)] i64"),
        ("scalar.exp v1", "column \"a\" must be a float, found [rows(v0)] i64"),
        ("scalar.year v1", "column \"a\" must be a date or timestamp, found [rows(v0)] i64"),
        ("scalar.exp v3, v3", "takes 1 operand, found 2"),
        (
            "scalar.neg v10",
            "operand 1 (v10) must be a scalar, column or tensor, found the table {a: i64, z: i32?} over rows(v10)",
        ),
    ]);
}

#[test]
fn binary() {
    gives(&[
        "[rows(v0)] f64 = scalar.add v1, v3",
        "[rows(v0)] decimal(24,4) = scalar.mul v4, v4",
        "[rows(v0)] decimal(13,2) = scalar.sub v4, v4",
        "[rows(v0)] f64 = scalar.div v4, v4",
        "[rows(v0)] date = scalar.add v5, v8",
        "[rows(v0)] i32 = scalar.sub v5, v5",
        "[rows(v0)] bool? = scalar.and v6, v18",
        "[rows(v0)] bool = scalar.coalesce v6, v18",
        "[rows(v0), 3] f32? = scalar.mul v7, v36",
        "[n, 4, 8, 8] f32 = scalar.max v20, v20",
    ]);
    refuses(&[
        ("scalar.add v1, v2", "does not take column \"a\" (i64) and column \"b\" (string?)"),
        ("scalar.rem v4, v4", "does not take column \"d\" (decimal(12,2)) and column \"d\" (decimal(12,2))"),
        ("scalar.pow v1, v1", "does not take column \"a\" (i64) and column \"a\" (i64)"),
        ("scalar.add v8, v5", "does not take column \"h\" (interval) and column \"e\" (date)"),
        ("scalar.and v1, v6", "does not take column \"a\" (i64) and column \"f\" (bool?)"),
        (
            "scalar.add v1, v11",
            "operands are columns of different tables: rows(v0) of scan \"t\" vs rows(v10) of scan \"u\"",
        ),
        ("scalar.add v24, v25", "shapes do not match: 2 vs 3"),
        ("scalar.mul v20, v7", "shapes do not match: 8 vs rows(v0) of scan \"t\""),
        ("scalar.add v1", "takes 2 operands, found 1"),
    ]);
}

#[test]
fn compare() {
    gives(&[
        "[rows(v0)] bool = scalar.lt v1, v4",
        "[rows(v0)] bool? = scalar.eq v2, v2",
        "[rows(v0)] bool = scalar.ge v5, v5",
    ]);
    refuses(&[
        ("scalar.lt v1, v5", "cannot compare column \"a\" (i64) with column \"e\" (date)"),
        ("scalar.eq v8, v8", "cannot compare column \"h\" (interval) with column \"h\" (interval)"),
    ]);
}

#[test]
fn select_and_if() {
    gives(&[
        "[rows(v0)] f64 = scalar.select v6, v1, v3",
        "[rows(v0)] decimal(21,2) = control.if v6, v4, v28",
        "i64 = control.if v18, v28, v28",
    ]);
    refuses(&[
        ("scalar.select v1, v1, v3", "column \"a\" must be a bool, found [rows(v0)] i64"),
        ("scalar.select v6, v1, v5", "the arms differ: column \"a\" is i64, column \"e\" is date"),
        ("control.if v38, v24, v24", "operand 1 (v38) must be a scalar or one bool for each row, found [2, 3] bool"),
    ]);
}

#[test]
fn cast_and_text() {
    gives(&[
        "[rows(v0)] f32 = scalar.cast v4 to f32",
        "[rows(v0)] timestamp = scalar.cast v5 to timestamp",
        "[rows(v0)] i8? = scalar.cast v6 to i8",
        "[rows(v0)] bool? = scalar.like v2 \"a%\\\\_\"",
        "[rows(v0)] string? = scalar.substring v2 from 1 len 2",
        "[rows(v0)] string? = scalar.clean v2 lower 1 punctuation 0 spaces 1",
        "[rows(v0)] i64? = scalar.hash v2",
    ]);
    refuses(&[
        ("scalar.cast v2 to i64", "column \"b\" (string?) cannot be converted to i64"),
        (
            "scalar.cast v1 to decimal(0,0)",
            "decimal(0,0) is no type: a decimal has 1 to 38 digits, at most all after the point",
        ),
        ("scalar.like v1 \"a\"", "column \"a\" must be a string, found [rows(v0)] i64"),
        ("scalar.like v2 \"a\\\\\"", "the pattern \"a\\\\\" ends in a lone escape"),
        ("scalar.substring v2 from 0 len 2", "positions count from 1, found 0"),
        ("scalar.hash v1", "column \"a\" must be a string, found [rows(v0)] i64"),
        ("scalar.clean v1 lower 0 punctuation 0 spaces 0", "column \"a\" must be a string, found [rows(v0)] i64"),
    ]);
}

#[test]
fn scan_and_column() {
    gives(&["{a: i64, \"b c\": f32?[2, 2]} = rel.scan \"q\"", "[rows(v0), 3] f32 = bridge.column v0 \"g\""]);
    refuses(&[
        ("{a: i64, a: i32} = rel.scan \"q\"", "two columns are named \"a\""),
        ("{\"\": i64} = rel.scan \"q\"", "a column needs a name"),
        ("{a: i64} = rel.scan \"\"", "the table needs a name"),
        ("{a: i64[0]} = rel.scan \"q\"", "column \"a\": an extent must not be 0"),
        ("bridge.column v10 \"zz\"", "no column \"zz\"; did you mean \"z\"? (columns: \"a\", \"z\")"),
        ("bridge.column v13 \"quantity\"", "no column \"quantity\" (columns: \"y\")"),
        ("bridge.column v1 \"a\"", "column \"a\" must be a table, found [rows(v0)] i64"),
    ]);
}

#[test]
fn filter_and_project() {
    gives(&[
        "{y: i64} = rel.filter v13, v18",
        "{a: i64, z: i32?} = rel.filter v10, v18",
        "{k: i64, three: i64, g: f32[3]} over rows(v0) = rel.project v0, v1, v28, v7 as [\"k\", \"three\", \"g\"]",
    ]);
    refuses(&[
        ("rel.filter v0, v1", "column \"a\" must be a bool, found [rows(v0)] i64"),
        (
            "rel.filter v10, v6",
            "column \"f\" must be over the rows of the table, rows(v10) of scan \"u\", found rows(v0) of scan \"t\"",
        ),
        ("rel.project v0, v1, v3 as [\"k\", \"k\"]", "two columns are named \"k\""),
        ("rel.project v0, v1 as [\"k\", \"l\"]", "takes 3 operands, found 2"),
        (
            "rel.project v0, v24 as [\"k\"]",
            "tensor \"m\" must be over the rows of the table, rows(v0) of scan \"t\", found 2",
        ),
    ]);
}

#[test]
fn joins() {
    gives(&[
        "{a: i64} = rel.union v0, v10 of [\"a\"]",
        "{y: i64, a: i64?, z: i32?} = rel.join_left v13, v10, v14, v11 keys 1",
        "{a: i64, z: i32?, y: i64} = rel.join_inner v10, v13, v12, v14 keys 1",
        "{a: i64, z: i32?} = rel.join_semi v10, v0, v11, v1 keys 1",
        "{y: i64} = rel.join_anti v13, v0, v14, v1 keys 1",
        "{y: i64, m: bool} = rel.join_mark v13, v0, v14, v1 keys 1 as \"m\"",
        "{y: i64, a: bool} = rel.join_mark v13, v0, v14, v1 keys 1 as \"a\"",
        "{a: i64, b: string?, c: f64, d: decimal(12,2), e: date, f: bool?, g: f32[3], h: interval, y: i64} = \
         rel.join_inner v0, v13, v1, v14, v17 keys 1",
    ]);
    refuses(&[
        ("rel.product v0, v10", "both sides have a column \"a\"; rename one"),
        ("rel.union v0, v10 of [\"z\"]", "operand 1 (v0) has no column \"z\""),
        ("rel.union v0, v13 of [\"a\"]", "operand 2 (v13) has no column \"a\""),
        ("rel.union of [\"a\"]", "takes 1 or more operands, found 0"),
        ("rel.union v0, v10 of [\"a\", \"a\"]", "two columns are named \"a\""),
        ("rel.join_mark v13, v0, v14, v1 keys 1 as \"y\"", "the left side has a column \"y\" already"),
        ("rel.join_inner v0, v10, v1, v12 keys 1", "both sides have a column \"a\"; rename one"),
        ("rel.join_inner v0, v13 keys 0", "needs a key pair; without one it is a product and a filter"),
        ("rel.join_inner v0, v13, v1 keys 1", "with 1 key pairs takes 4 operands and perhaps a residual, found 3"),
        (
            "rel.join_inner v0, v13, v2, v14 keys 1",
            "key pair 1 cannot be compared: column \"b\" is string?, column \"y\" is i64",
        ),
        (
            "rel.join_inner v0, v13, v14, v1 keys 1",
            "column \"y\" must be over the rows of the table, rows(v0) of scan \"t\", found rows(v13) of scan \"w\"",
        ),
        (
            "rel.join_inner v0, v13, v1, v14, v6 keys 1",
            "column \"f\" must be over the rows of the product of both sides, found [rows(v0)] bool?",
        ),
        ("rel.join_inner v0, v13, v1, v14, v16 keys 1", "column \"y\" must be a bool, found [rows(v15)] i64"),
    ]);
}

#[test]
fn aggregates() {
    gives(&[
        "{k: string?, s: decimal(38,2), m: f64, n: i64, r: i64} = rel.aggregate v0, v2, v4, v1, v6 keys [\"k\"] \
         compute [\"s\" sum, \"m\" avg, \"n\" count, \"r\" count_rows]",
        "{s: i64?, m: i32?, n: i64} over 1 = rel.aggregate v10, v11, v12, v12 keys [] \
         compute [\"s\" sum, \"m\" min, \"n\" count]",
        "{k: bool} = rel.aggregate v10, v18 keys [\"k\"] compute []",
        "{n: i64} over 1 = rel.aggregate v0, v6 keys [] compute [\"n\" count_distinct]",
    ]);
    refuses(&[
        ("rel.aggregate v0, v2 keys [] compute [\"s\" sum]", "\"s\": sum does not take column \"b\" (string?)"),
        ("rel.aggregate v0, v5 keys [] compute [\"s\" avg]", "\"s\": avg does not take column \"e\" (date)"),
        ("rel.aggregate v0, v6 keys [] compute [\"s\" min]", "\"s\": min does not take column \"f\" (bool?)"),
        (
            "rel.aggregate v0, v7 keys [] compute [\"s\" sum]",
            "column \"g\" must be one value for each row, found [rows(v0), 3] f32",
        ),
        ("rel.aggregate v0, v1, v1 keys [\"s\"] compute [\"s\" sum]", "two columns are named \"s\""),
        ("rel.aggregate v0, v8 keys [\"k\"] compute []", "the key \"k\" is an interval, which has no equality"),
        (
            "rel.aggregate v0, v8 keys [] compute [\"n\" count_distinct]",
            "\"n\": count_distinct does not take column \"h\" (interval)",
        ),
        ("rel.aggregate v0 keys [] compute [\"s\" sum]", "takes 2 operands, found 1"),
    ]);
}

#[test]
fn sort_limit_single() {
    gives(&[
        "{a: i64, z: i32?} = rel.sort v10, v12, v11 by [desc nulls_first, asc]",
        "{a: i64, z: i32?} = rel.limit v10 offset 2 count 18446744073709551615",
        "i64? = bridge.single v31",
    ]);
    refuses(&[
        ("rel.sort v10 by []", "takes 2 or more operands, found 1"),
        ("rel.sort v0, v8 by [asc]", "column \"h\" must be something with an order, found [rows(v0)] interval"),
        ("rel.limit v1 offset 0 count 1", "column \"a\" must be a table, found [rows(v0)] i64"),
        ("bridge.single v1", "column \"a\" must be a column of a table with exactly one row, found [rows(v0)] i64"),
    ]);
}

#[test]
fn inputs() {
    gives(&["[n, 3] f16? = tensor.input \"q\"", "bf16 = tensor.input \"q\" weight"]);
    refuses(&[
        ("[0, 3] f32 = tensor.input \"q\"", "an extent must not be 0"),
        (
            "[rows(v0)] f32 = tensor.input \"q\"",
            "\"q\" comes from outside, where no table has rows; name the dimension",
        ),
        ("{a: i64} over 1 = tensor.input \"q\"", "\"q\" must be a tensor, found {a: i64} over 1"),
        ("[2] f32 = tensor.input \"\"", "the tensor needs a name"),
    ]);
}

#[test]
fn products_and_convolutions() {
    gives(&[
        "[2, 5] f32 = tensor.matmul v24, v25",
        "[rows(v0), 5] f32 = tensor.matmul v7, v25",
        "[2, 5] i32 = tensor.matmul v80, v81",
        "[n, 6, 4, 4] f32 = tensor.conv2d v20, v21, v22 stride [2, 2] padding [1, 1] dilation [1, 1] groups 1",
        "[n, 6, 4, 4] f32 = tensor.conv2d v20, v21 stride [1, 1] padding [0, 0] dilation [2, 2] groups 1",
    ]);
    refuses(&[
        ("tensor.matmul v25, v24", "tensor \"k\" has 5 columns, tensor \"m\" has 2 rows"),
        ("tensor.matmul v22, v24", "needs two matrices [.., m, k] and [.., k, n], found [6] and [2, 3]"),
        ("tensor.matmul v26, v25", "tensor \"k\" must be f64 as tensor \"md\" is, found [3, 5] f32"),
        ("tensor.matmul v80, v84", "tensor \"many\" must be one matrix of bytes [k, n], found [7, 3, 5] i8"),
        ("tensor.matmul v81, v81", "tensor \"ib\" must be a float, found [3, 5] i8"),
        (
            "tensor.matmul v82, v83",
            "sums of more than 65793 products of bytes, or of an unknown number, may not fit i32",
        ),
        ("tensor.matmul v27, v25", "tensor \"mi\" must be a float, found [2, 3] i32"),
        (
            "tensor.conv2d v20, v21, v23 stride [1, 1] padding [0, 0] dilation [1, 1] groups 1",
            "tensor \"s\" must have the shape [6], found [4]",
        ),
        (
            "tensor.conv2d v20, v21 stride [1, 1] padding [0, 0] dilation [1, 1] groups 2",
            "tensor \"w\" must have 2 channels per filter for tensor \"x\", found 4",
        ),
        (
            "tensor.conv2d v20, v21 stride [1, 1] padding [0, 0] dilation [1, 1] groups 5",
            "5 groups do not divide 4 input and 6 output channels",
        ),
        ("tensor.conv2d v20, v21 stride [0, 1] padding [0, 0] dilation [1, 1] groups 1", "the stride must be positive"),
        (
            "tensor.conv2d v20, v21 stride [1, 1] padding [0, 0] dilation [9, 1] groups 1",
            "a window of 19 does not fit into 8 with 0 of padding on each side",
        ),
        (
            "tensor.conv2d v24, v21 stride [1, 1] padding [0, 0] dilation [1, 1] groups 1",
            "tensor \"m\" must be [n, c, h, w], found [2, 3] f32",
        ),
    ]);
}

#[test]
fn windows_round_as_pytorch_does() {
    gives(&[
        "[n, 4, 3, 3] f32 = tensor.pool2d_max v20 kernel [3, 3] stride [2, 2] padding [0, 0]",
        "[n, 4, 4, 4] f32 = tensor.pool2d_max v20 kernel [3, 3] stride [2, 2] padding [0, 0] ceil",
        // The fourth window of ceil(7 / 3) would begin behind the image and its padding.
        "[n, 4, 3, 3] f32 = tensor.pool2d_avg v20 kernel [2, 2] stride [3, 3] padding [0, 0] ceil",
        "[n, 4, 2, 2] f32 = tensor.pool2d_avg v20 kernel [1, 1] stride [7, 7] padding [0, 0] ceil",
        "[n, 4, 1, 1] f32 = tensor.pool2d_avg v20 kernel [1, 1] stride [8, 8] padding [0, 0] ceil",
        "[n, 4, 8, 8] f32 = tensor.max_unpool2d v20, v20 kernel [1, 1] stride [1, 1] padding [0, 0]",
        "[4, 2, 1, 1] f32 = tensor.conv2d_filters v20, v20 kernel [1, 1] stride [1, 1] padding [0, 0] dilation [1, 1] groups 2",
        "[4, 4, 3, 1] f32 = tensor.conv2d_filters v20, v20 kernel [3, 1] stride [1, 1] padding [1, 0] dilation [1, 1] groups 1",
    ]);
    refuses(&[
        (
            "tensor.max_unpool2d v20, v20 kernel [2, 2] stride [2, 2] padding [0, 0]",
            "tensor \"x\" must be [n, 4, 4, 4], as a pooling of tensor \"x\" is",
        ),
        (
            "tensor.conv2d_filters v20, v20 kernel [2, 2] stride [2, 2] padding [0, 0] dilation [1, 1] groups 1",
            "tensor \"x\" must be [n, o, 4, 4], as a convolution of tensor \"x\" is",
        ),
        (
            "tensor.conv2d_filters v20, v20 kernel [0, 2] stride [2, 2] padding [0, 0] dilation [1, 1] groups 1",
            "kernel and dilation must be positive",
        ),
        (
            "tensor.pool2d_max v20 kernel [2, 2] stride [1, 1] padding [2, 2]",
            "padding [2, 2] must be less than the kernel [2, 2]",
        ),
        (
            "tensor.pool2d_max v20 kernel [0, 2] stride [1, 1] padding [0, 0]",
            "padding [0, 0] must be less than the kernel [0, 2]",
        ),
        (
            "tensor.pool2d_max v20 kernel [9, 2] stride [1, 1] padding [0, 0]",
            "a window of 9 does not fit into 8 with 0 of padding on each side",
        ),
    ]);
}

#[test]
fn normalisation() {
    gives(&[
        "[n, 4, 8, 8] f32 = tensor.batch_norm v20, v23, v23, v23, v23 eps 1e-5",
        "[rows(v0), 3] f32 = tensor.softmax v7 axis 1",
    ]);
    refuses(&[
        ("tensor.batch_norm v20, v23, v22, v23, v23 eps 1e-5", "tensor \"b\" must have the shape [4], found [6]"),
        ("tensor.batch_norm v20, v23, v23, v23, v23 eps NaN", "eps must be a small positive number, found NaN"),
        ("tensor.softmax v24 axis 2", "no axis 2 in the shape [2, 3]"),
        ("tensor.softmax v36 axis 0", "operand 1 (v36) may be NULL (f32?); give it a value with coalesce"),
    ]);
}

#[test]
fn shapes() {
    gives(&[
        "[2, 6] f32 = tensor.concat v24, v24 axis 1",
        "[rows(v0), 2] f32 = tensor.tree_ensemble v7 features 3 base [0.5, -1.0] trees [1: x2 <=? 0.5 1.0 x0 <= inf 2.0 -0.0, 0: 1.5]",
        "[3, 2] f32 = tensor.reshape v24 to [3, 2]",
        "[n, 256] f32 = tensor.reshape v20 to [n, 256]",
        "[8, n, 4, 8] f32 = tensor.transpose v20 perm [3, 0, 1, 2]",
        "[2, 2] f32 = tensor.slice v24 axis 1 start 2 step -2 count 2",
        "[rows(v0), 1] f32 = tensor.slice v7 axis 1 start 1 step 1 count 1",
        "[n, 2, 3] f32 = tensor.broadcast v24 to [n, 2, 3]",
        "[2, 3, 5] f32 = tensor.gather v25, v27",
        "[rows(v0), 5] f32 = tensor.gather v25, v1",
        "[6, 4, 3, 3] f32 = tensor.scatter_add v21, v28, v79",
        "[rows(v0)] i64 = bridge.row_number v0",
        "[2, 3, 2] f32 = bridge.stack v24, v24",
        "[rows(v0), 1] string? = bridge.stack v2",
    ]);
    refuses(&[
        ("tensor.concat v24, v25 axis 1", "tensor \"k\" is [3, 5], which does not fit [2, 3] but for axis 1"),
        ("tensor.concat v24, v26 axis 1", "tensor \"md\" must be f32 as tensor \"m\" is, found [2, 3] f64"),
        ("tensor.concat v7, v7 axis 0", "column \"g\" must be of known extent along axis 0, found [rows(v0), 3] f32"),
        ("tensor.concat axis 0", "takes one operand or more, found 0"),
        ("tensor.reshape v24 to [4, 2]", "[2, 3] and [4, 2] do not have the same elements"),
        ("tensor.reshape v20 to [m, 256]", "[n, 4, 8, 8] and [m, 256] do not have the same elements"),
        ("tensor.transpose v24 perm [0, 0]", "[0, 0] does not name every axis of [2, 3] once"),
        ("tensor.slice v24 axis 1 start 1 step 1 count 3", "elements 1 to 3 do not lie inside the extent 3"),
        ("tensor.slice v24 axis 1 start 1 step -1 count 3", "elements 1 to -1 do not lie inside the extent 3"),
        ("tensor.slice v24 axis 1 start 0 step 0 count 1", "takes no step or no element"),
        ("tensor.slice v24 axis 2 start 0 step 1 count 1", "no axis 2 in the shape [2, 3]"),
        (
            "tensor.slice v20 axis 0 start 0 step 1 count 1",
            "tensor \"x\" must be of known extent along axis 0, found [n, 4, 8, 8] f32",
        ),
        ("tensor.broadcast v24 to [rows(v0), 2, 3]", "[2, 3] does not broadcast to rows that it does not have"),
        ("tensor.broadcast v24 to [3]", "[2, 3] does not broadcast to [3]"),
        ("tensor.broadcast v24 to [4, 3]", "[2, 3] does not broadcast to [4, 3]"),
        ("tensor.iota to 9223372036854775808", "9223372036854775808 numbers do not fit i64"),
        ("tensor.tree_ensemble v24 features 2 base [0.0] trees []", "tensor \"m\" has 3 features, the trees have 2"),
        ("tensor.tree_ensemble v24 features 3 base [] trees []", "needs an output"),
        (
            "tensor.tree_ensemble v24 features 3 base [0.0] trees [0: x3 <= 0.5 1.0 2.0]",
            "tree 0 asks for feature 3, of 3 features",
        ),
        ("tensor.tree_ensemble v27 features 3 base [0.0] trees []", "tensor \"mi\" must be of f32, found [2, 3] i32"),
        ("tensor.gather v25, v3", "column \"c\" must be an integer, found [rows(v0)] f64"),
        ("tensor.gather v28, v1", "operand 1 (v28) must be of one dimension or more, found i64"),
        ("tensor.scatter_add v27, v28, v24", "tensor \"mi\" must be a float, found [2, 3] i32"),
        ("tensor.scatter_add v24, v29, v24", "operand 2 (v29) must be an integer, found f64"),
        ("tensor.scatter_add v24, v28, v24", "tensor \"m\" must be of the shape [3], found [2, 3] f32"),
        ("tensor.scatter_add v26, v27, v24", "tensor \"m\" must be f64 as tensor \"md\" is, found [2, 3] f32"),
        ("tensor.scatter_add v29, v28, v29", "operand 1 (v29) must be of one dimension or more, found f64"),
        ("bridge.row_number v30", "takes a stored table: the rows of others come in any order"),
        ("bridge.stack v24, v25", "tensor \"m\" has the shape [2, 3], tensor \"k\" has [3, 5]"),
    ]);
}

#[test]
fn reductions() {
    gives(&[
        "[2] i64 = tensor.reduce_sum v27 axes [1]",
        "[n, 4, 1, 1] f32 = tensor.reduce_mean v20 axes [2, 3] keep",
        "f64 = tensor.reduce_max v3 axes [0]",
        "[1, 3] i64 = tensor.reduce_prod v27 axes [0] keep",
        "[2, 3] i64 = tensor.cum_sum v27 axis 0",
        "[n, 4, 8, 8] f32 = tensor.cum_sum v20 axis 3",
        "[rows(v0)] i64 = tensor.arg_max v7 axis 1",
    ]);
    refuses(&[
        ("tensor.reduce_mean v27 axes [0]", "tensor \"mi\" must be a float, found [2, 3] i32"),
        ("tensor.reduce_sum v24 axes [1, 0]", "the axes [1, 0] must be ascending"),
        ("tensor.reduce_sum v24 axes [2]", "no axis 2 in the shape [2, 3]"),
        ("tensor.reduce_sum v12 axes [0]", "column \"z\" may be NULL (i32?); give it a value with coalesce"),
        ("tensor.reduce_sum v4 axes [0]", "column \"d\" must be an integer or float, found [rows(v0)] decimal(12,2)"),
        ("tensor.cum_sum v24 axis 2", "no axis 2 in the shape [2, 3]"),
        ("tensor.arg_max v24 axis 2", "no axis 2 in the shape [2, 3]"),
    ]);
}

#[test]
fn loops() {
    gives(&["f64 = control.loop v28, v29 {\nv40: i64 = control.param region 5 index 0\n\
             v41: f64 = control.param region 5 index 1\nreturn v41\n}"]);
    let region = |head: &str, results: &str| {
        format!(
            "v90: f64 = control.loop {head} {{\nv91: i64 = control.param region 7 index 0\n\
             v92: f64 = control.param region 7 index 1\nreturn {results}\n}}"
        )
    };
    let cases = [
        (region("v29, v29", "v92"), "operand 1 (v29) must be an integer scalar, found f64"),
        (region("v28, v28", "v92"), "carried value 0 begins as i64, expected f64"),
        (region("v28, v29", "v91"), "carried value 0 becomes i64, expected f64"),
        (region("v28, v29, v29", "v92"), "carries 2 values, its region has 2 parameters and 1 results"),
        (region("v28", "v92"), "takes (trips, init..), found 1 operands"),
    ];
    for (text, message) in cases {
        assert_eq!(add(&text).unwrap_err(), format!("control.loop: {message}"));
    }
    refuses(&[("control.item v28 at 0", "operand 1 (v28) must be a tuple, found i64")]);
}

#[test]
fn steps() {
    let region = |result: &str, head: &str, results: &str| {
        format!(
            "v90: {result} = control.steps {head} {{\nv91: [3] f32 = control.param region 7 index 0\n\
             v92: [3] f32 = control.param region 7 index 1\nv93: [3] f32 = scalar.add v91, v92\n\
             return {results}\n}}"
        )
    };
    let (head, whole) = ("v86, v85 count 2 carried 1 axis 0", "v85: [2, 3] f32 = tensor.input \"whole\"\n");
    let begin = "v86: [3] f32 = tensor.input \"begin\"\n";
    let steps =
        |result: &str, head: &str, results: &str| add(&format!("{whole}{begin}{}", region(result, head, results)));
    for (result, head, results) in [
        ("([3] f32, [2, 3] f32)", head, "v93, v92"),
        ("[3] f32", head, "v91"),
        ("([2, 3] f32, [2, 3] f32)", "v85, v85 count 2 carried 0 axis 0 back", "v93, v92"),
    ] {
        steps(result, head, results).unwrap();
    }
    for (head, results, message) in [
        (
            "v86, v85 count 3 carried 1 axis 0",
            "v93",
            "tensor \"whole\" must be a tensor of extent 3 along axis 0, found [2, 3] f32",
        ),
        ("v86, v85 count 3 carried 1 axis 1", "v93", "slices of tensor \"whole\" are [2] f32, expected [3] f32"),
        ("v85, v85 count 2 carried 1 axis 0", "v93", "carried value 0 begins as [2, 3] f32, expected [3] f32"),
        ("v86, v85 count 2 carried 1 axis 0", "v28", "carried value 0 becomes i64, expected [3] f32"),
        ("v86, v85 count 2 carried 1 axis 0", "v93, v0", "collects result 1, which is {"),
        ("v86 count 2 carried 1 axis 0", "v93", "carries 1 of 1 operands, its region has 2 parameters and 1 results"),
        ("v85, v85 count 2 carried 0 axis 0", "", "gives nothing"),
    ] {
        let error = steps("[3] f32", head, results).unwrap_err();
        assert!(error.starts_with(&format!("control.steps: {message}")), "{error}");
    }
}

#[test]
fn a_parameter_is_used_only_inside_its_region() {
    let graph = add("return \"leak\" v34").unwrap();
    let message = "return: output \"leak\": v34 depends on a parameter of region 0 outside of it";
    assert_eq!(verify(&graph).unwrap_err().to_string(), message);
}

#[test]
fn outputs_have_names_of_their_own() {
    let graph = add("return \"a\" v28\nreturn \"a\" v29").unwrap();
    assert_eq!(verify(&graph).unwrap_err().to_string(), "return: output \"a\": two outputs have this name");
}

#[test]
fn inputs_come_before_users() {
    let mut graph = Graph::new();
    let error = graph.add(Op::Filter, &[quearn_stage::graph::Node(0), quearn_stage::graph::Node(7)]).unwrap_err();
    assert_eq!(error.to_string(), "rel.filter: operand 1 is v0, which is not made before it");
}

#[test]
fn promotion() {
    use Scalar::{BF16, F16, F32, F64, I8, I32, I64, U8};
    let decimal = Scalar::decimal;
    let cases = [
        (I8, U8, Some(Scalar::I16)),
        (I32, I64, Some(I64)),
        (F16, BF16, Some(F32)),
        (F32, I32, Some(F32)),
        (F32, I64, Some(F64)),
        (F16, decimal(4, 2), Some(F64)),
        (decimal(12, 2), decimal(10, 4), Some(decimal(14, 4))),
        (decimal(38, 0), decimal(38, 38), Some(decimal(38, 38))),
        (decimal(12, 2), I64, Some(decimal(21, 2))),
        (Scalar::Date, Scalar::Timestamp, None),
        (Scalar::Bool, I32, None),
    ];
    for (a, b, expected) in cases {
        assert_eq!(promote(a, b), expected, "{a} {b}");
        assert_eq!(promote(b, a), expected, "{b} {a}");
    }
    use quearn_stage::graph::BinaryOp::Mul;
    assert_eq!(binary_result(Mul, decimal(30, 20), decimal(30, 19)), None);
    assert_eq!(binary_result(Mul, decimal(30, 20), decimal(30, 18)), Some(decimal(38, 38)));
}
