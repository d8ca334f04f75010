//! The text form of low-level programs: it is read back as it was written, whatever the program; bad text gives an
//! error and never a panic; and each rule of the verifier rejects a program that breaks it.

use proptest::prelude::*;
use quearn_stage::low::build::ModuleBuilder;
use quearn_stage::low::*;
use std::cell::Cell;

/// One of everything that the text form knows, as the printer writes it.
const EVERYTHING: &str = r#"extern get(ptr, i64) -> ptr
extern "odd name"()
site 1 overflow "l_extendedprice * (1 - l_discount)"
site 2 bad_cast "a \"quote\",\na line and \u{7}"
cold func @task(v0: ptr, v1: i64, v2: i64, v3: i64) {
  v4: i32 = const 0
  yield v4
}
func @"q6.main"(v0: ptr, v1: i64, v2: bool) {
  v3: i64 = const -5
  v4: f64 = const -0.0
  v5: f64 = const 1e300
  v6: f32 = const inf
  v7: f32 = const -inf
  v8: f64 = const nan 0x7ff8000000000001
  v9: ptr = alloca 64 align 16
  v10: i64x4 = iota
  v11: i64x4 = splat v1
  v12: boolx4 = cmp lt v10, v11
  v13: bool = ovf mul v1, v3
  fail_if v13, 1
  v14: i64x4 = select v12, v10, v11
  v15: i64 = extract v14, 3
  v16: i64x4 = insert v14, v15, 2
  v17: i64 = reduce max v16
  v18: f64 = sitofp v17
  v19: f64 = fma v4, v5, v18
  v20: f64 = sqrt v19
  v21: ptr = ptr_add v0 + v17 * 8 + -16
  v22: i64 = load v21 + 8 align 8
  v23: i64 = load v0 align 8 invariant
  store v21 + 8 align 4, v20
  v24: i64x4 = masked_load v0, v12 invariant
  masked_store v0, v12, v24
  v25: f32x4 = gather v0, v10, v12 scale 4
  compress_store v0, v12, v25
  v26: i64 = atomic xchg v0, v22
  v27: i64 = cmpxchg v0, v26, v23
  prefetch v21
  v28: ptr = call get(v0, v27)
  call "odd name"()
  v29: i64, v30: bool = if v2 {
    yield v1, v13
  } else {
    yield v3, v2
  }
  v31: i64 = for v32: i64 in v3..v1 step 2 (v33: i64 = v29) {
    v34: i64 = add v32, v33
    yield v34
  }
  v35: i64 = while (v36: i64 = v31) {
    v37: bool = cmp ne v36, v1
    yield v37
  } do (v38: i64) {
    v39: i64 = udiv v38, v3
    yield v39
  }
  v40: i32 = par_for @task(v28, v35, v1)
  check v40
  fail_if v30, -1
  v41: i32 = const 0
  yield v41
}
"#;

#[test]
fn everything_is_read_as_it_was_written() {
    let module = parse(EVERYTHING).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(module.to_string(), EVERYTHING);
    verify(&module).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn numbers_follow_the_text_and_comments_are_dropped() {
    let module = parse("func @f(v7: i64) { v9: i32 = const 0 ; the status\n yield v9 }").expect("good text");
    assert_eq!(module.to_string(), "func @f(v0: i64) {\n  v1: i32 = const 0\n  yield v1\n}\n");
}

#[test]
fn a_function_without_its_module_shows_ids() {
    let module = parse(EVERYTHING).expect("good text");
    let text = module.funcs[1].to_string();
    assert!(text.contains("call x0(v0, v27)") && text.contains("par_for @f0(v28, v35, v1)"), "{text}");
}

#[test]
fn errors_say_where_and_what() {
    let error = |text: &str| parse(text).expect_err(text).to_string();
    assert_eq!(error("hello"), "line 1: expected `extern`, `site` or `func`, found `hello`");
    assert_eq!(error("site 2 overflow \"\""), "line 1: expected `1`, as sites are numbered in order, found `2`");
    assert_eq!(error("func @f(v0: i65) {"), "line 1: expected a type, found `i65`");
    assert_eq!(error("func @f() {\n  foo\n"), "line 2: expected an instruction or `yield`, found `foo`");
    assert_eq!(error("func @f() {\n\n yield v1 }"), "line 3: expected a value that the function defines, found `v1`");
    assert_eq!(
        error("func @f(v0: i64,\n v0: i64) { yield }"),
        "line 2: expected a value that is not defined yet, found `v0`"
    );
    assert_eq!(
        error("func @f() { call g() yield }"),
        "line 1: expected the name of an extern declared above, found `g`"
    );
    assert_eq!(error("site 1 overflow \"a\n\""), "line 1: expected a closing quote on the same line, found 'a'");
    assert_eq!(error("func @f() { v0: i8 = const 1 #"), "line 1: expected a token, found '#'");
    assert_eq!(error("func @f() { yield"), "line 1: expected a value, found the end");
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow_of_the_stack() {
    let text = format!("func @f(v0: bool) {{ {}", "if v0 { ".repeat(100_000));
    let error = parse(&text).expect_err("too deep").to_string();
    assert!(error.contains("blocks nested at most 200 deep"), "{error}");
}

// Rules of the verifier.

/// A module around `body`, in a function with a parameter of every common type.
fn around(body: &str) -> String {
    format!(
        "extern get(ptr) -> i64\n site 1 overflow \"here\"
         func @task(v0: ptr, v1: i64, v2: i64, v3: i64) {{ v4: i32 = const 0 yield v4 }}
         func @short(v0: ptr) {{ v4: i32 = const 0 yield v4 }}
         func @f(v0: ptr, v1: i64, v2: i32, v3: bool, v4: f64, v5: i64x4, v6: boolx4, v7: f16, v8: i8, v9: f64x4) {{
           v10: i32 = const 0 {body} yield v10 }}"
    )
}

/// The message of the verifier, if it finds a fault.
fn fault(text: &str) -> Option<String> {
    let module = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    verify(&module).err().map(|e| e.to_string())
}

/// One test a rule: bodies that break it, and a part of the message.
macro_rules! rejects {
    ($($name:ident: $rule:literal { $($body:literal,)* })*) => {
        $(
            #[test]
            fn $name() {
                for body in [$($body),*] {
                    let found = fault(&around(body)).unwrap_or_else(|| panic!("accepted: {body}"));
                    assert!(found.starts_with("f: ") && found.contains($rule), "{body}\n{found}");
                }
            }
        )*
    };
}

rejects! {
    use_before_definition: "is used where it is not defined" { "v11: i64 = add v12, v1 v12: i64 = const 1", }
    use_outside_of_the_block: "is used where it is not defined" {
        "if v3 { v11: i64 = const 1 yield } else { yield } v12: i64 = neg v11",
        "if v3 { v11: i64 = const 1 yield } else { v12: i64 = neg v11 yield }",
        "for v11: i64 in v1..v1 step 1 () { yield } v12: i64 = neg v11",
        "v11: i64 = if v3 { yield v11 } else { yield v1 }",
    }
    count_of_results: "there is one result" { "add v1, v1", "v11: i64, v12: i64 = neg v1", }
    no_result: "the results are ()" {
        "v11: i64 = store v0 align 8, v1",
        "v11: i64 = check v2",
        "v11: i64 = fail_if v3, 1",
        "v11: i64 = prefetch v0",
    }
    one_type: "operands and result have one type" {
        "v11: i64 = add v1, v2",
        "v11: i32 = neg v1",
        "v11: i64x4 = add v5, v1",
        "v11: i64 = select v3, v1, v2",
        "v11: f64 = fma v4, v4, v1",
        "v11: i32 = dot4 v2, v2, v1",
        "v11: i64 = atomic add v0, v2",
    }
    arithmetic_class: "operands are integers, f32 or f64" {
        "v11: bool = add v3, v3",
        "v11: ptr = sub v0, v0",
        "v11: f16 = mul v7, v7",
        "v11: f16 = neg v7",
        "v11: bool = cmp lt v3, v3",
        "v11: bool = reduce add v6",
    }
    float_class: "operands are f32 or f64" { "v11: i64 = sqrt v1", "v11: i64 = pow v1, v1", "v11: f16 = exp v7", }
    integer_class: "operands are integers, not" {
        "v11: f64 = shl v4, v4",
        "v11: bool = ovf add v3, v3",
        "v11: f64 = ctz v4",
        "v11: boolx4 = iota",
    }
    bit_class: "operands are integers or bool" { "v11: f64 = and v4, v4", "v11: f64 = not v4", "v11: f64 = reduce or v9", }
    equality_class: "not f16 or bf16" { "v11: bool = cmp eq v7, v7", }
    unsigned_class: "integers, bool or pointers" { "v11: bool = cmp ult v4, v4", }
    comparison_operands: "operands have one type" { "v11: bool = cmp eq v1, v2", "v11: bool = ovf add v1, v2", }
    comparison_result: "the results are (bool" { "v11: i64 = cmp eq v1, v1", "v11: bool = cmp eq v5, v5", }
    integer_constant: "an integer constant is no f64" { "v11: f64 = const 1", }
    float_constant: "a float constant is no i64" { "v11: i64 = const 1.0", }
    canonical_constant: "sign-extended" { "v11: i8 = const 128", "v11: bool = const -1", }
    casts: "there is no" {
        "v11: i64 = sext v1",
        "v11: i8 = zext v1",
        "v11: i64 = trunc v8",
        "v11: f64 = sitofp v3",
        "v11: f64 = uitofp v4",
        "v11: bool = fptosi v4",
        "v11: f16 = fpext v4",
        "v11: f64 = fptrunc v7",
    }
    cast_lanes: "a cast keeps the lanes" { "v11: i32 = trunc v5", }
    bitcast_size: "keeps the number of bits" { "v11: i32 = bitcast v1", "v11: i32 = bitcast v6", "v11: i8 = bitcast v3", }
    select_condition: "the condition is a bool, or one for each lane" {
        "v11: i64 = select v1, v1, v1",
        "v11: i64 = select v6, v1, v1",
    }
    vectors: "is no vector" {
        "v11: i64 = splat v1",
        "v11: i64 = extract v1, 0",
        "v11: i64 = iota",
        "v11: i64 = reduce add v1",
        "v11: i64 = masked_load v0, v3",
    }
    lane_type: "the scalar has the type of a lane" {
        "v11: i64x4 = splat v2",
        "v11: i32 = extract v5, 0",
        "v11: i64x4 = insert v5, v2, 0",
        "v11: i32 = reduce add v5",
    }
    lane_number: "the vector has that lane" { "v11: i64 = extract v5, 4", "v11: i64x4 = insert v5, v1, 4", }
    addresses: "the address is a ptr" {
        "v11: i64 = load v1 align 8",
        "store v1 align 8, v1",
        "v11: ptr = ptr_add v1 + 8",
        "masked_store v1, v6, v5",
        "prefetch v1",
        "v11: i64 = atomic add v1, v1",
        "v11: i64x4 = gather v1, v5, v6 scale 8",
    }
    address_result: "the results are (ptr)" { "v11: i64 = ptr_add v0 + 8", }
    address_index: "the index is an i64" { "v11: ptr = ptr_add v0 + v2 * 8", }
    scales: "the scale is above zero" {
        "v11: ptr = ptr_add v0 + v1 * 0",
        "v11: ptr = ptr_add v0 + v1 * -8",
        "v11: i64x4 = gather v0, v5, v6 scale 0",
    }
    alignments: "the alignment is a power of two" {
        "v11: i64 = load v0 align 0",
        "store v0 align 3, v1",
        "v11: ptr = alloca 8 align 12",
    }
    masks: "the mask has a bool for each lane" {
        "v11: i64x8 = masked_load v0, v6",
        "masked_store v0, v5, v5",
        "compress_store v0, v3, v5",
    }
    gather_index: "operands are i32 or i64" { "v11: i64x4 = gather v0, v9, v6 scale 8", }
    gather_lanes: "the index has the lanes of the data" { "v11: i64x4 = gather v0, v1, v6 scale 8", }
    atomics_are_scalar: "atomics are scalar" { "v11: i64x4 = atomic add v0, v5", }
    atomic_class: "operands are integers" { "v11: ptr = atomic add v0, v0", "v11: f64 = cmpxchg v0, v4, v4", }
    alloca_place: "an alloca stands in the entry block" { "if v3 { v11: ptr = alloca 8 align 8 yield } else { yield }", }
    call_arguments: "the arguments are those of" { "v11: i64 = call get()", "v11: i64 = call get(v1)", }
    call_result: "the results are (i64)" { "call get(v0)", "v11: i32 = call get(v0)", }
    failure_condition: "the condition is a bool" { "fail_if v1, 1", "if v6 { yield } else { yield }", }
    failure_code: "that of a site" { "fail_if v3, 0", "fail_if v3, 2", "fail_if v3, -2", }
    status: "the status is an i32" { "check v1", }
    if_yields: "block yields (i64)" {
        "v11: i64 = if v3 { yield v1 } else { yield }",
        "v11: i64 = if v3 { yield v2 } else { yield v1 }",
    }
    for_bounds: "the bounds are i64" { "for v11: i64 in v2..v1 step 1 () { yield }", }
    for_step: "the step is above zero" { "for v11: i64 in v1..v1 step 0 () { yield }", }
    for_params: "the body takes (i64" {
        "for v11: i32 in v1..v1 step 1 () { yield }",
        "v11: i64 = for v12: i64 in v1..v1 step 1 (v13: i32 = v1) { yield v1 }",
    }
    for_yields: "the body yields (i64)" { "v11: i64 = for v12: i64 in v1..v1 step 1 (v13: i64 = v1) { yield }", }
    for_results: "the results are (i64)" { "for v12: i64 in v1..v1 step 1 (v13: i64 = v1) { yield v13 }", }
    while_test: "the test yields (bool)" { "while () { yield } do () { yield }", "while () { yield v1 } do () { yield }", }
    while_params: "takes (i64)" {
        "v11: i64 = while (v12: i32 = v1) { yield v3 } do (v13: i64) { yield v13 }",
        "v11: i64 = while (v12: i64 = v1) { yield v3 } do () { yield v1 }",
    }
    while_yields: "the body yields (i64)" { "v11: i64 = while (v12: i64 = v1) { yield v3 } do (v13: i64) { yield v2 }", }
    while_results: "the results are (i64)" { "while (v12: i64 = v1) { yield v3 } do (v13: i64) { yield v13 }", }
    par_for_callee: "the function takes (ptr, i64, i64, i64)" { "v11: i32 = par_for @short(v0, v1, v1)", }
    par_for_operands: "the operands are ptr, i64, i64" { "v11: i32 = par_for @task(v1, v1, v1)", }
    par_for_result: "the results are (i32)" { "par_for @task(v0, v1, v1)", "v11: i64 = par_for @task(v0, v1, v1)", }
}

#[test]
fn messages_show_the_instruction() {
    assert_eq!(
        fault(&around("v20: i64 = add v1, v2")).as_deref(),
        Some("f: `v11: i64 = add v1, v2`: operands and result have one type")
    );
}

#[test]
fn functions_yield_their_status() {
    let rule = Some("f: the function yields one i32, its status".to_string());
    assert_eq!(fault("func @f() { yield }"), rule);
    assert_eq!(fault("func @f(v0: i64) { yield v0 }"), rule);
}

#[test]
fn names_are_unique_and_externs_take_words() {
    let func = "func @f() { v0: i32 = const 0 yield v0 }";
    assert_eq!(fault(&format!("{func} {func}")).as_deref(), Some("module: there are two of function f"));
    assert_eq!(fault("extern g() extern g(ptr)").as_deref(), Some("module: there are two of extern g"));
    for text in ["extern g(i128)", "extern g() -> i128", "extern g(i8x8)"] {
        assert!(fault(text).is_some_and(|f| f.ends_with("an extern takes and gives scalars of at most 64 bits")));
    }
}

/// The message for a good function after `change` has put its tables out of order, which no text can.
fn after(change: impl FnOnce(&mut Func)) -> String {
    let mut module = parse(&around("if v3 { prefetch v0 yield } else { yield }")).expect("good text");
    verify(&module).expect("good before the change");
    change(&mut module.funcs[2]);
    verify(&module).expect_err("a fault").message
}

#[test]
fn tables_are_consistent() {
    assert_eq!(after(|f| f.entry = Block(9)), "there is no entry block");
    assert_eq!(after(|f| f.params[0] = Value(1)), "v1 is not where its origin says");
    assert_eq!(after(|f| f.blocks[0].yields[0] = Value(99)), "b0 yields a value that does not exist");
    assert_eq!(after(|f| f.blocks[0].insts.push(Inst(99))), "b0 has an instruction that does not exist");
    assert_eq!(
        after(|f| f.insts[2].op = Op::Prefetch { ptr: Value(99), far: false }),
        "i2 uses a value that does not exist"
    );
    assert_eq!(after(|f| f.values[1].ty.lanes = 0), "a type has at least one lane");
    let branch = |then, els| Op::If { cond: Value(3), then: Block(then), els: Block(els) };
    assert_eq!(after(|f| f.insts[1].op = branch(1, 9)), "i1 has a block that does not exist");
    assert_eq!(after(|f| f.insts[1].op = branch(1, 1)), "b1 has two owners");
    let inside_itself = after(|f| f.blocks[1].insts.push(Inst(1)));
    assert_eq!(inside_itself, "`if v3`: an instruction is in one block only");
    let twice = after(|f| f.blocks[2].insts.push(Inst(2)));
    assert_eq!(twice, "`prefetch v0`: an instruction is in one block only");
    let call = Op::Call { callee: ExternId(9), args: vec![] };
    assert_eq!(after(|f| f.insts[2].op = call), "`call x9()`: the extern does not exist");
    let par = Op::ParFor { func: FuncId(9), frame: Value(0), n: Value(1), grain: Value(1) };
    assert_eq!(after(|f| f.insts[2].op = par), "`par_for @f9(v0, v1, v1)`: the function does not exist");
}

// Random programs.

const TYPES: [Ty; 9] = [
    Ty::I64,
    Ty::BOOL,
    Ty::F64,
    Ty::I8,
    Ty::I128,
    Ty::F32,
    Ty::I32,
    Ty::vector(Prim::I64, 4),
    Ty::vector(Prim::F64, 4),
];

/// Decisions read from random bytes; always the first choice when they are used up.
struct Choices<'a> {
    bytes: &'a [u8],
    next: Cell<usize>,
}

impl Choices<'_> {
    fn pick(&self, n: usize) -> usize {
        let at = self.next.replace(self.next.get() + 1);
        self.bytes.get(at).map_or(0, |&b| usize::from(b) % n)
    }

    fn done(&self) -> bool {
        self.next.get() >= self.bytes.len()
    }

    fn of<T: Copy>(&self, items: &[T]) -> T {
        items[self.pick(items.len())]
    }

    /// A value of `ty` out of `pool`, or a constant.
    fn value<'b>(&self, b: &'b Builder, pool: &[V<'b>], ty: Ty) -> V<'b> {
        let fitting: Vec<V<'b>> = pool.iter().copied().filter(|v| v.ty() == ty).collect();
        if !fitting.is_empty() && self.pick(4) > 0 {
            return self.of(&fitting);
        }
        if ty.prim.is_float() {
            b.float(ty, self.of(&[0.0, -0.0, 1.5, 1e-300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))
        } else {
            b.int(ty, self.of(&[0, 1, -1, 2, 127, 128, i128::from(i64::MIN), i128::MAX]))
        }
    }
}

/// Adds instructions to the block that is open, until the choices are used up or say so.
fn statements<'b>(b: &'b Builder, c: &Choices<'_>, pool: &mut Vec<V<'b>>, depth: usize) {
    while !c.done() && c.pick(12) > 0 {
        if depth < 4 && c.pick(5) == 0 {
            control(b, c, pool, depth);
        } else if c.pick(3) == 0 {
            memory(b, c, pool);
        } else {
            arithmetic(b, c, pool);
        }
    }
}

fn arithmetic<'b>(b: &'b Builder, c: &Choices<'_>, pool: &mut Vec<V<'b>>) {
    let ty = c.of(&TYPES);
    let (x, y) = (c.value(b, pool, ty), c.value(b, pool, ty));
    let number = ty != Ty::BOOL;
    let int = number && ty.prim.is_int();
    let bit_ops = [BinOp::And, BinOp::Or, BinOp::Xor];
    let number_ops = [BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Div, BinOp::Rem, BinOp::Min, BinOp::Max];
    let int_ops = [BinOp::UDiv, BinOp::URem, BinOp::Shl, BinOp::LShr, BinOp::AShr];
    let value = match c.pick(10) {
        0 if int => x.bin(c.of(&int_ops), y),
        1 if ty.prim.is_int() => x.bin(c.of(&bit_ops), y),
        2 if ty.prim.is_int() => !x,
        3 if int => x.overflows(c.of(OvfOp::ALL), y),
        4 if int => x.sext(c.of(&[Prim::I8, Prim::I64, Prim::I128])),
        5 if int && !ty.is_vector() => x.zext(c.of(&[Prim::Bool, Prim::I32, Prim::I64])),
        6 => c.value(b, pool, Ty::BOOL).select(x, y),
        7 if number => x.cmp(c.of(&[CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge]), y),
        8 if ty.is_vector() => x.insert(y.extract(c.pick(4) as u16), 1).extract(c.pick(4) as u16),
        9 if number && !ty.is_vector() => x.splat(4).reduce(ReduceOp::Max),
        _ if number => x.bin(c.of(&number_ops), y),
        _ => x.eq(y),
    };
    pool.push(value);
}

fn memory<'b>(b: &'b Builder, c: &Choices<'_>, pool: &mut Vec<V<'b>>) {
    let ty = c.of(&TYPES);
    let base = c.value(b, pool, Ty::PTR);
    let ptr = match c.pick(3) {
        0 => base.at(8 * c.pick(4) as i64 - 8),
        1 => base.index(c.value(b, pool, Ty::I64), 8),
        _ => base,
    };
    match c.pick(7) {
        0 => pool.push(b.load(ty, ptr, 8 * c.pick(3) as i64)),
        1 => pool.push(b.load_invariant(ty, ptr, 0)),
        2 => pool.push(b.load_hoisted(Ty::I64, pool[0], 8 * c.pick(3) as i64)),
        3 => pool.push(b.call("get", Ty::I64, &[ptr])),
        4 => b.fail_if(c.value(b, pool, Ty::BOOL), c.of(FailKind::ALL), c.of(&["a", "\"b\"\n", "ü\u{0}"])),
        5 => pool.push(b.alloca(16, 16)),
        _ => b.store(ptr, 8 * c.pick(3) as i64, c.value(b, pool, ty)),
    }
    pool.push(ptr);
}

fn control<'b>(b: &'b Builder, c: &Choices<'_>, pool: &mut Vec<V<'b>>, depth: usize) {
    let ty = c.of(&TYPES);
    let inner = |more: &[V<'b>]| {
        let mut pool = [pool.as_slice(), more].concat();
        statements(b, c, &mut pool, depth + 1);
        pool
    };
    let results = match c.pick(3) {
        0 => {
            let cond = c.value(b, pool, Ty::BOOL);
            let branch = || vec![c.value(b, &inner(&[]), ty)];
            b.if_else(cond, branch, branch)
        }
        1 => {
            let (lo, hi) = (c.value(b, pool, Ty::I64), c.value(b, pool, Ty::I64));
            let init = c.value(b, pool, ty);
            b.for_carry(lo, hi, 1 + c.pick(3) as i64, &[init], |i, carried| {
                vec![c.value(b, &inner(&[i, carried[0]]), ty)]
            })
        }
        _ => {
            let init = c.value(b, pool, ty);
            b.while_(
                &[init],
                |carried| c.value(b, &inner(carried), Ty::BOOL),
                |carried| vec![c.value(b, &inner(carried), ty)],
            )
        }
    };
    pool.extend(results);
}

fn program(bytes: &[u8]) -> Module {
    let choices = Choices { bytes, next: Cell::new(0) };
    let module = ModuleBuilder::new();
    let params = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
    let task = module.func("task", &params, |b, p| statements(b, &choices, &mut p.to_vec(), 2));
    module.func("main", &[Ty::PTR, Ty::I64, Ty::BOOL], |b, p| {
        while !choices.done() {
            statements(b, &choices, &mut p.to_vec(), 0);
        }
        b.par_for(task, p[0], p[1], b.i64(1024));
    });
    module.build()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_are_well_formed_and_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let module = program(&bytes);
        let text = module.to_string();
        prop_assert_eq!(verify(&module), Ok(()), "{}", text);
        let again = parse(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(again.to_string(), text.as_str());
        prop_assert_eq!(verify(&again), Ok(()), "{}", text);
    }

    #[test]
    fn spoilt_text_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, any::<prop::sample::Index>()), 1..6)) {
        const BITS: [&str; 10] = ["v1", "}", "{", "-", "\"", "yield ", "99999999999", "i64x4", ", ", "é"];
        let mut chars: Vec<char> = EVERYTHING.chars().collect();
        for (at, cut, bit) in edits {
            let at = at.index(chars.len());
            let end = (at + cut).min(chars.len());
            chars.splice(at..end, bit.get(&BITS).chars());
        }
        let text: String = chars.into_iter().collect();
        if let Ok(module) = parse(&text) {
            let printed = module.to_string();
            let again = parse(&printed).map_err(|e| TestCaseError::fail(format!("{e}\n{printed}")))?;
            prop_assert_eq!(again.to_string(), printed.as_str());
            // Names may be unique in neither, so that only the verdicts can be compared.
            prop_assert_eq!(verify(&again).is_ok(), verify(&module).is_ok(), "{}", printed);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[ -~\\n\u{e9}]{0,200}") {
        let _ = parse(&text);
    }
}
